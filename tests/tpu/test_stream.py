"""A training on XLA from chunks: as static as one from a folder."""

import json

import pytest

from deepmac.data.annotations.coco import read_coco
from deepmac.data.shapes.data_set import write_shapes
from deepmac.data.stream.shard import Sharding, shard

IMAGES, BATCH, VAL_IMAGES = 30, 4, 7
EPOCH = IMAGES // BATCH


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """Two epochs from chunks on this disk; every third picture is without objects."""
    place = tmp_path_factory.mktemp("stream")
    write_shapes(place / "shapes", num_train=IMAGES, num_val=VAL_IMAGES, size=64)
    path = place / "shapes/annotations/instances_train.json"
    content = json.loads(path.read_text())
    bare = {image["id"] for image in content["images"][::3]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] not in bare]
    path.write_text(json.dumps(content))
    sets = {
        name: read_coco(
            place / f"shapes/annotations/instances_{name}.json", place / "shapes/images"
        )
        for name in ("train", "val")
    }
    report = shard(sets, str(place / "chunks"), Sharding(chunk_mb=0.02), source="the tests")
    assert report.finished and report.chunks > 4
    return run(
        "stream",
        "fit",
        "data.source=stream",
        f"data.root={place / 'chunks'}",
        "trainer=tpu",
        "trainer.precision=32-true",
        "trainer.max_epochs=2",
        "trainer.check_val_every_n_epoch=1",
    ).finish()


def test_stream__compiles_nothing_after_the_second_step(trained):
    """Batches hold from no object to the most that there are, in an order of their own."""
    noted = trained.noted("train")
    assert [line["step"] for line in noted] == list(range(1, 2 * EPOCH + 1))
    assert len({line["compiles"] for line in noted[1:]}) == 1
    assert noted[1]["fallbacks"] == noted[-1]["fallbacks"]


def test_stream__validates_each_image_once_in_one_graph(trained):
    later = trained.noted("validate")
    assert [line["images"] for line in later] == [3] * 6  # 7 images in threes, twice
    assert len({line["compiles"] for line in later}) == 1
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    assert metrics["images"] == metrics["images_in_data_set"] == VAL_IMAGES
