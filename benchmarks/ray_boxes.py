"""A million boxes through ``deepmac label --engine ray`` on this machine: rate, and memory.

``python -m benchmarks.ray_boxes --boxes 1000000``: small generated pictures, each under many names
in the tables, and a stub in the network's place, whose answer for any box is the same disk, at
once. All else is the product's: tables, Ray, reading and decoding, pasting, run lengths, writing.
Printed at each eighth of the job: the memory that the driver, the actors and all of Ray's other
processes share with none.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn

from deepmac.label.cluster.engine import Outcome, Workers, run
from deepmac.label.cluster.labeller import Work
from deepmac.label.cluster.tables import ABOUT, BOXES
from deepmac.label.digest import model_digest
from deepmac.label.loading import IMAGES_TOGETHER
from deepmac.label.masks.records import MaskOptions
from deepmac.nn.backbones import Normalization, Normalize
from deepmac.nn.centernet import Detections
from deepmac.nn.clicks import Clicks
from deepmac.nn.network import SegmentationNetwork
from deepmac.predict.letterbox import InputSpec

WIDTH, HEIGHT, SIDE = 64, 48, 64
FILES = 1000
_MARKS = 8
_KINDS = ("driver", "actors", "other")


class Disk(SegmentationNetwork):
    """No network: a disk in every box."""

    def __init__(self, cells: int = 32) -> None:
        super().__init__()
        self.backbone = SimpleNamespace(size_divisor=1)
        self.normalize = Normalize(Normalization((0.0,) * 3, (1.0,) * 3))
        self.num_classes = self.stride = 1
        self.mask_size, self.frame_scale, self.max_detections = cells, 1.0, 0
        self.detector = False
        place = torch.linspace(-1, 1, cells)
        self.disk = nn.Parameter((place[:, None] ** 2 + place**2 < 0.8).float())

    def last_stage(self, images: Tensor) -> Any:
        return images

    def detect(self, stage: Any, true_sizes: Tensor | None = None) -> Detections:
        raise NotImplementedError("a stub for given boxes")

    def mask_probabilities(
        self,
        stage: Any,
        boxes: Tensor,
        valid: Tensor | None = None,
        labels: Tensor | None = None,
        clicks: Clicks | None = None,
    ) -> Tensor:
        return self.disk.expand(*boxes.shape[:2], *self.disk.shape)

    def inference_parts(self) -> list[nn.Module]:
        return []


@dataclass
class Watch:
    """Memory of a job's processes at each eighth of its tables.

    Attributes:
        out: folder of the tables.
        tables: that there are to be.
        marks: share of the tables that was there, when, and megabytes of each of ``_KINDS``.
    """

    out: Path
    tables: int
    marks: list[tuple[float, float, tuple[float, ...]]] = field(default_factory=list)

    def rate(self) -> float:
        """Share of the job a second between the first mark and the last."""
        (first, began, _), (last, ended, _) = self.marks[0], self.marks[-1]
        return (last - first) / max(1e-9, ended - began)

    @contextmanager
    def watching(self) -> Iterator[None]:
        stopped = threading.Event()
        thread = threading.Thread(target=self._look, args=(stopped,))
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    def _look(self, stopped: threading.Event) -> None:
        while not stopped.wait(0.2):
            done = sum(1 for _ in self.out.glob("part-*.parquet")) / self.tables
            if done >= (len(self.marks) + 1) / _MARKS:
                self.marks.append((done, time.monotonic(), private_megabytes()))


def private_megabytes() -> tuple[float, ...]:
    """Of this process, of the actors below it, and of everything else below it."""
    parents, found = {}, dict.fromkeys(_KINDS, 0.0)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rpartition(")")[2].split()[1]
                )
    own = os.getpid()
    for process in parents:
        above = process
        while above in parents and above != own:
            above = parents[above]
        if above != own:
            continue
        with suppress(OSError):
            folder = Path("/proc") / str(process)
            is_actor = (folder / "cmdline").read_bytes().startswith(b"ray::MapWorker")
            kind = "driver" if process == own else "actors" if is_actor else "other"
            lines = (folder / "smaps_rollup").read_text().splitlines()
            found[kind] += sum(int(s.split()[1]) for s in lines if s.startswith("Private_")) / 1e3
    return tuple(found.values())


def write_job(place: Path, boxes: int, each: int) -> int:
    """Pictures and tables of boxes below a folder; returns the number of row groups."""
    draw = np.random.default_rng(0)
    (place / "images").mkdir()
    for number in range(FILES):
        pixels = draw.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"images/{number}.jpg", quality=50)
    (place / "boxes").mkdir()
    columns = ["image", "image_number", "width", "height", "row", "x1", "y1", "x2", "y2"]
    schema = pa.schema([BOXES.field(name) for name in columns], {ABOUT: b"{}"})
    rows, groups = IMAGES_TOGETHER * each, 0
    with pq.ParquetWriter(place / "boxes/0.parquet", schema) as writer:
        for start in range(0, boxes, rows):
            row = np.arange(start, min(boxes, start + rows))
            image = row // each
            left, top = draw.uniform(0, (WIDTH - 9, HEIGHT - 9), (len(row), 2)).T
            right, bottom = (
                left + draw.uniform(8, WIDTH - left),
                top + draw.uniform(8, HEIGHT - top),
            )
            names = [f"{number % FILES}.jpg" for number in image]
            sizes = np.full(len(row), WIDTH), np.full(len(row), HEIGHT)
            values = [names, image, *sizes, row, left, top, right, bottom]
            writer.write_table(pa.table(values, schema=schema))
            groups += 1
    return groups


def measure(boxes: int, each: int, actors: int) -> tuple[Outcome, float, Watch]:
    """Label them; returns what came of it, its seconds, and what was seen of the memory."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        watch = Watch(place / "masks", write_job(place, boxes, each))
        network = Disk().eval()
        work = Work(str(place / "images"), MaskOptions(0.5), model_digest(network), InputSpec(SIDE))
        started = time.monotonic()
        with watch.watching():
            found = run(network, work, str(place / "boxes"), str(place / "masks"), Workers(actors))
        seconds = time.monotonic() - started
        tables = sorted((place / "masks").glob("part-*.parquet"))
        rows = np.concatenate([pq.read_table(t, columns=["row"])["row"].to_numpy() for t in tables])
        assert np.array_equal(rows, np.arange(boxes)), "a box is missing, or there twice"
    return found, seconds, watch


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_boxes", description=__doc__)
    parser.add_argument("--boxes", type=int, default=1_000_000)
    parser.add_argument("--each", type=int, default=20, help="boxes of a picture (%(default)s)")
    parser.add_argument("--actors", type=int, default=2)
    options = parser.parse_args()
    found, seconds, watch = measure(options.boxes, options.each, options.actors)
    print(
        f"{found.boxes:,} boxes of {-(-options.boxes // options.each):,} pictures, {found.errors} "
        f"without a mask, in {found.units} tables: {seconds:.0f} s with Ray's start, and "
        f"{watch.rate() * found.boxes:,.0f} a second between the marks, by {options.actors} actors "
        "without a network: a stub that answers at once"
    )
    print("done    " + "".join(f"{kind:>9}" for kind in _KINDS) + "   private MB")
    for done, _, sizes in watch.marks:
        print(f"{done:6.1%}  " + "".join(f"{size:9.0f}" for size in sizes))


if __name__ == "__main__":
    main()
