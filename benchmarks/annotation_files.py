"""What opening an annotation file takes, and what loader workers keep for themselves.

``python -m benchmarks.annotation_files --root COCO``: the annotations of a COCO folder, repeated
up to COCO's own size (or ``--json FILE --images DIR``). Printed: the first opening, into an
empty cache, and a later one, each in a process of its own; the same with every picture's header
looked at; what a process keeps for itself; and by how much a loader's worker grows over an epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset, get_worker_info

from deepmac.data.annotations.coco import CocoIndex, read_coco
from deepmac.data.annotations.locate import locate_coco


def private_dirty() -> float:
    """Megabytes that this process shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1e3


def write_repeated(source: Path, target: Path, images: int) -> None:
    """A file of many images by repeating those of a smaller one."""
    content = json.loads(source.read_text())
    own: dict[int, list[dict[str, Any]]] = {}
    for entry in content["annotations"]:
        own.setdefault(entry["image_id"], []).append(entry)
    listed, identity = content["images"], 0
    with target.open("w") as file:
        file.write(f'{{"categories":{json.dumps(content["categories"])},"images":[')
        for number in range(images):
            entry = {**listed[number % len(listed)], "id": number + 1}
            file.write(("," if number else "") + json.dumps(entry))
        file.write('],"annotations":[')
        for number in range(images):
            for entry in own.get(listed[number % len(listed)]["id"], []):
                file.write("," if identity else "")
                identity += 1
                file.write(json.dumps({**entry, "id": identity, "image_id": number + 1}))
        file.write("]}")


class Records(Dataset[int]):
    """Everything of an image but its pixels, as a training asks for it."""

    def __init__(self, index: CocoIndex) -> None:
        self.index = index

    def __len__(self) -> int:
        return len(self.index.images)

    def __getitem__(self, position: int) -> int:
        """How many objects the image has."""
        return sum(1 for item in self.index.images[position].instances if not item.iscrowd)


def with_memory(objects: list[int]) -> tuple[int, int, float]:
    """A batch: objects, and the worker with its private memory."""
    worker = get_worker_info()
    return sum(objects), -1 if worker is None else worker.id, private_dirty()


def epoch_growth(index: CocoIndex, workers: int = 2) -> tuple[float, int]:
    """Megabytes by which a worker's private memory grows over an epoch, the most of all."""
    loader = DataLoader(
        Records(index), batch_size=64, shuffle=True, num_workers=workers, collate_fn=with_memory,
        multiprocessing_context="fork",
    )  # fmt: skip
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    seen = 0
    for number, (objects, worker, memory) in enumerate(loader):
        seen += objects
        if number >= 4 * workers:  # the loader's own start is no growth
            first.setdefault(worker, memory)
        last[worker] = memory
    return max((last[w] - first[w] for w in first), default=0.0), seen


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--count", type=int, default=118_287, metavar="IMAGES")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--images", type=Path)
    options = parser.parse_args(arguments)
    configured = os.environ.get("DEEPMAC_CACHE")
    with tempfile.TemporaryDirectory() as cache:
        if options.root is not None:
            source, options.images = locate_coco(options.root, "train")
            options.json = options.json or Path(cache) / "repeated.json"
            if not options.json.exists():
                write_repeated(source, options.json, options.count)
        os.environ["DEEPMAC_CACHE"] = cache
        _measured(options.json, options.images)
    os.environ.pop("DEEPMAC_CACHE")
    if configured is not None:
        os.environ["DEEPMAC_CACHE"] = configured


def _measured(path: Path, images: Path) -> None:
    size = path.stat().st_size / 1e6
    print(f"{path.name}: {size:.0f} MB; a process of its own each, one core")
    for which in ("first", "later"):
        told = _alone(_OPEN, path, images, "none")
        wall, busy, peak, private, images_count, rows = told.split()
        if which == "first":
            print(f"{int(images_count):,} images, {int(rows):,} annotations")
        print(
            f"{which} opening: {float(wall):.2f} s ({float(busy):.2f} s of CPU), peak "
            f"{float(peak):.2f} GB, private memory {float(private):.0f} MB in all"
        )
    for which in ("first", "later"):
        wall, busy, *_ = _alone(_OPEN, path, images, "header").split()
        print(f"{which} look at every picture: {float(wall):.2f} s ({float(busy):.2f} s of CPU)")
    before = private_dirty()
    index = read_coco(path, images, check_images="none", on_error="stop")
    added = private_dirty() - before
    print(f"a process that has loaded torch keeps {added:.0f} MB more for itself (Private_Dirty)")
    grown, objects = epoch_growth(index)
    print(f"a loader worker grows by {grown:.1f} MB over an epoch of {objects:,} objects")


_OPEN = """
import sys, time
from pathlib import Path
from deepmac.data.annotations.coco import read_coco
wall, busy = time.perf_counter(), time.process_time()
index = read_coco(sys.argv[1], sys.argv[2], check_images=sys.argv[3], on_error="stop")
wall, busy = time.perf_counter() - wall, time.process_time() - busy
lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
private = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
status = Path("/proc/self/status").read_text().split("VmHWM:")[1]
peak = int(status.split()[0]) / 1e6
print(wall, busy, peak, private / 1e3, len(index.images), len(index.table.id))
"""


def _alone(code: str, *arguments: object) -> str:
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
