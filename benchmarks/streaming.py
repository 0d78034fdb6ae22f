"""Loading from chunks beside the folder they were made of; and what a process keeps meanwhile."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.table import Row
from deepmac.data.annotations.coco import CocoIndex, read_coco
from deepmac.data.annotations.locate import locate_coco
from deepmac.data.collate import collate
from deepmac.data.dataset import CocoInstances
from deepmac.data.mask_targets import TargetSpec
from deepmac.data.sampler import EpochBatchSampler
from deepmac.data.stream.chunked import StreamImages, read_chunked
from deepmac.data.stream.order import StreamOrder
from deepmac.data.stream.sampler import StreamBatchSampler
from deepmac.data.stream.shard import Sharding, shard
from deepmac.data.transforms.compose import training_transform

BATCH = 4


def rows(quick: bool, root: Path) -> list[Row]:
    """For the table of ``make bench``."""
    size, repeats = (64, 1) if quick else (512, 7)
    with tempfile.TemporaryDirectory() as place:
        (stream, folder), count = measure(root, Path(place), size, repeats)
    how = (
        f"{count} pictures to {size} x {size}, augmented, in this process on one thread; CPU time "
        f"of a pass, median of {repeats} pairs in turns, files in the page cache"
    )
    return [Row("loading from chunks", "images/s", stream, "the folder", folder, 0.9, how,
                larger_is_better=True)]  # fmt: skip


def measure(root: Path, place: Path, size: int, repeats: int) -> tuple[tuple[float, float], int]:
    """Images a second of CPU time from chunks and from the folder, and how many images."""
    index = read_coco(*locate_coco(root, "train"), check_images="none")
    shard({"train": index}, str(place), Sharding(chunk_mb=2), source=str(root))
    chunked = read_chunked(str(place), "train", whole=False)
    assert isinstance(chunked.images, StreamImages)
    split, count = chunked.images.split, len(index.images)
    ours = StreamBatchSampler(split, StreamOrder(split.counts, seed=0), BATCH)
    theirs = EpochBatchSampler(count, BATCH, seed=0, shuffle=True, drop_last=True)
    sides = [(_data_set(chunked, size), ours), (_data_set(index, size), theirs)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for data, sampler in sides:
            _pass(data, sampler)
        taken = np.array([[_pass(*side) for side in sides] for _ in range(repeats)])
    finally:
        torch.set_num_threads(threads)
    seen = len(ours) * BATCH
    return (seen / median(taken[:, 0]), seen / median(taken[:, 1])), count


def private_megabytes() -> float:
    """Of this process: what it shares with none."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    found = [line.split() for line in lines if line.startswith("Private_")]
    return sum(int(words[1]) for words in found) / 1e3


def _data_set(index: CocoIndex, size: int) -> CocoInstances:
    return CocoInstances(
        index,
        label_of=index.label_of,
        masked_category_ids=frozenset(index.category_ids),
        transform=training_transform(size),
        targets=TargetSpec(mask_size=32),
        training=True,
    )


def _pass(data: CocoInstances, sampler: Any) -> float:
    """Seconds of CPU time for an epoch, always the same one."""
    sampler.set_epoch(0)
    started = time.process_time()
    for _ in DataLoader(data, batch_sampler=sampler, collate_fn=collate):
        pass
    return time.process_time() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="data set in COCO's layout")
    for row in rows(False, parser.parse_args().root):
        print("  ".join(row.cells()))


if __name__ == "__main__":
    main()
