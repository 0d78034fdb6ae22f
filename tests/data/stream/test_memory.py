"""A million annotations stream through a process whose memory stays where it was."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deepmac.data.annotations.index import CocoIndex
from deepmac.data.annotations.records import Category, ImageRecord, Instance
from deepmac.data.annotations.table import TableImages, pack
from deepmac.data.stream.shard import Sharding, shard

IMAGES = int(os.environ.get("DEEPMAC_STREAM_IMAGES", 100_000))
EACH = 10
STREAM = """
import sys
from benchmarks.streaming import private_megabytes
from deepmac.data.stream.chunked import read_chunked
from deepmac.data.stream.order import StreamOrder
from deepmac.data.stream.sampler import StreamBatchSampler

index = read_chunked(sys.argv[1], "train", whole=False)
split = index.images.split
sampler = StreamBatchSampler(split, StreamOrder(split.counts, seed=0), 16)
seen = boxes = 0
marks = []
for number, batch in enumerate(sampler):
    for _, image, _ in batch:
        record = index.images[image]
        assert record.data()[:2] == bytes((255, 216))
        seen, boxes = seen + 1, boxes + len(record.instances)
    if number % (len(sampler) // 8) == 0:
        marks.append(private_megabytes())
print(seen, boxes, max(marks), marks[-1] - marks[1])
"""


@pytest.mark.slow
def test_a_million_annotations__leave_memory_flat(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "one.jpg")
    ring = [4.0, 4.0, 40.0, 6.0, 30.0, 40.0, 12.0, 44.0, 6.0, 20.0]

    def record(number):
        items = tuple(
            Instance(number * EACH + n + 1, 1 + n % 2, (4.0, 4.0, 40.0, 44.0), [ring], False, 900.0)
            for n in range(EACH)
        )
        return ImageRecord(number + 1, "one.jpg", tmp_path / "one.jpg", 48, 48, items)

    table = pack(record(number) for number in range(IMAGES))
    images = TableImages(table, tmp_path)
    categories = (Category(1, "ant"), Category(2, "bee"))
    index = CocoIndex(tmp_path / "made", tmp_path, categories, images)
    shard({"train": index}, str(tmp_path / "set"), Sharding(chunk_mb=1), source="made", workers=2)
    done = subprocess.run(
        [sys.executable, "-c", STREAM, str(tmp_path / "set")],
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen, boxes, most, grown = (float(word) for word in done.stdout.split())
    print(
        f"{seen:.0f} images, {boxes:.0f} boxes: {most:.0f} MB private, {grown:+.1f} MB by the end"
    )
    assert IMAGES - 16 < seen <= IMAGES and boxes == seen * EACH
    assert most < 1000 and grown < 60
