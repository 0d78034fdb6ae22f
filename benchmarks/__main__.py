"""``make bench``: every benchmark, each printing how it was measured.

``--quick`` takes fewer images and repeats. Give a COCO folder with ``--root`` to measure on it;
without one the generated shapes serve, drawn at 512 pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import annotation_files, data_pipeline, label, training
from deepmac.data.shapes.data_set import ensure_shapes


def main() -> None:
    """Run them one after the other: side by side they would measure each other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--root", type=Path, help="a folder with annotations/ and images/")
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats")
    options = parser.parse_args()
    root = options.root or ensure_shapes(num_train=160, num_val=8, size=512)
    counts = ["--images", "64", "--repeats", "1"] if options.quick else []
    data_pipeline.main(["--root", str(root), *counts])
    annotation_files.main(["--root", str(root), *(["--count", "5000"] if options.quick else [])])
    few = ["--images", "8", "--repeats", "1"] if options.quick else []
    label.main(["--root", str(root), *few])
    training.main(["--root", str(root), *(["--rounds", "2"] if options.quick else [])])


if __name__ == "__main__":
    main()
