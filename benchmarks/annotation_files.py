"""What opening an annotation file takes, and what loader workers keep for themselves.

``python -m benchmarks.annotation_files --root COCO``: the annotations of a COCO folder, repeated
up to COCO's own size (or ``--json FILE --images DIR``). Printed: the first opening, into an
empty cache, a later one, and by how much a process's private memory grows while it asks for every
record of an epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepmac.data.annotations.coco import read_coco
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--count", type=int, default=118_287, metavar="IMAGES")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--images", type=Path)
    options = parser.parse_args(arguments)
    before = private_dirty()
    configured = os.environ.get("DEEPMAC_CACHE")
    with tempfile.TemporaryDirectory() as cache:
        if options.root is not None:
            source, options.images = locate_coco(options.root, "train")
            options.json = Path(cache) / "repeated.json"
            write_repeated(source, options.json, options.count)
        os.environ["DEEPMAC_CACHE"] = cache
        for which in ("first", "later"):
            wall, busy = time.perf_counter(), time.process_time()
            index = read_coco(options.json, options.images, check_images="none")
            wall, busy = time.perf_counter() - wall, time.process_time() - busy
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            print(f"{which} opening: {wall:.2f} s ({busy:.2f} s of CPU), peak so far {peak:.2f} GB")
        print(f"{len(index.images):,} images, {len(index.table.id):,} annotations")
        print(f"private memory for them: {private_dirty() - before:.0f} MB (Private_Dirty)")
        child = os.fork()
        if not child:
            start = private_dirty()
            for number, record in enumerate(index.images, start=1):
                assert record.width
                if number == 1000:
                    start = private_dirty()
            grown = private_dirty() - start
            print(f"a worker that asks for every record grows by {grown:.1f} MB", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
    os.environ.pop("DEEPMAC_CACHE")
    if configured is not None:
        os.environ["DEEPMAC_CACHE"] = configured


if __name__ == "__main__":
    main()
