"""The columns give back what went in, and processes share them."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepmac.data.annotations import coco
from deepmac.data.annotations.coco import CocoIndex, decode_mask, index_of, read_coco
from deepmac.data.annotations.records import ImageRecord, Instance
from deepmac.data.annotations.table import TableImages, pack

TRIANGLE = [[2.5, 2, 12, 2, 2, 12.25]]


def content(count: int = 40, seed: int = 0) -> dict[str, Any]:
    """Polygons, run lengths, crowds, boxes, faults and notes, in no order."""
    rng = np.random.default_rng(seed)
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 20, "height": 16} for i in (3, 1, 2)]
    annotations: list[dict[str, Any]] = []
    for identity in rng.permutation(count).tolist():
        entry = {"id": identity, "image_id": identity % 4, "category_id": 7, "iscrowd": 0}
        entry |= {"bbox": [2, 2, 10, 10.25], "area": 50.5, "segmentation": TRIANGLE}
        entry |= [
            {},
            {"segmentation": []},
            {"iscrowd": 1, "segmentation": {"size": [16, 20], "counts": [16, 32, 272]}},
            {"bbox": [15, 2, 10, 10], "segmentation": None},
            {"bbox": [2, 2, 0, 1]},
            {"points": [[3, 4, 1]], "mask_score": 0.5},
            {"segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]], "bbox": [2, 2, 10, 10]},
            {"category_id": 9.0, "corners": [2, 2, 9, 3, 8, 9, 1, 8]},
        ][rng.integers(8)]
        annotations.append(entry)
    categories = [{"id": 9, "name": "dog"}, {"id": 7, "name": "cat"}]
    return {"images": images, "categories": categories, "annotations": annotations}


def write(folder: Path, made: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        Image.new("RGB", (20, 16)).save(folder / name)
    path = folder / "set.json"
    path.write_text(json.dumps(made))
    return path


def described(index: CocoIndex) -> Any:
    """Everything that an index says, masks as pixels."""
    rows = [
        (
            (image.id, image.file_name, replace(item, segmentation=None)),
            None if item.segmentation is None else decode_mask(item, 16, 20).tobytes(),
        )
        for image in index.images
        for item in image.instances
    ]
    return rows, index.problems, index.dropped, index.categories, len(index.images)


@pytest.mark.parametrize("seed", range(4))
def test_many_at_once__read_as_one_by_one(tmp_path: Path, seed: int) -> None:
    made = content(seed=seed)
    path = write(tmp_path / "set", made)
    quick = read_coco(path, path.parent, on_error="drop")
    careful = index_of(made, path, path.parent, on_error="drop")
    assert described(quick) == described(careful)
    assert any(item.mask_source == "model" for image in quick.images for item in image.instances)


def test_a_second_opening__maps_the_same_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "set", content())
    first = read_coco(path, path.parent, on_error="drop")
    monkeypatch.setattr(coco, "_parse", lambda *_: pytest.fail("it was parsed again"))
    second = read_coco(path, path.parent, on_error="drop")
    assert described(first) == described(second)
    assert isinstance(second.images, TableImages) and not second.images.table.box.flags.writeable
    sent = pickle.loads(pickle.dumps(second.images[1:]))
    assert sent == second.images[1:] and len(pickle.dumps(second.images)) < 2000


@pytest.mark.parametrize("spoil", ["changed file", "cut column", "no columns", "other settings"])
def test_the_cache__is_never_believed_where_it_does_not_fit(
    tmp_path: Path, cache: Path, spoil: str
) -> None:
    path = write(tmp_path / "set", content())
    before = described(read_coco(path, path.parent, on_error="drop"))
    entry = next(p for p in (cache / "annotations").iterdir() if p.name != "digests")
    if spoil == "changed file":
        write(path.parent, content(seed=1))
        before = described(index_of(content(seed=1), path, path.parent, on_error="drop"))
    elif spoil == "cut column":
        data = (entry / "coordinates.npy").read_bytes()
        (entry / "coordinates.npy").write_bytes(data[:-8])
    elif spoil == "no columns":
        (entry / "box.npy").unlink()
    else:
        reading = coco.Reading(rectangle_masks="mask")
        kept = read_coco(path, path.parent, on_error="drop", reading=reading)
        assert kept.table.mask_kind.astype(bool).sum() > sum(
            row[-1] is not None for row in before[0]
        )
    assert described(read_coco(path, path.parent, on_error="drop")) == before


def test_a_cache_that_cannot_be_written__costs_speed_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "set", content())
    expected = described(read_coco(path, path.parent, on_error="drop"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEEPMAC_CACHE", str(tmp_path / "file"))
    index = read_coco(path, path.parent, on_error="drop")
    assert described(index) == expected
    assert pickle.loads(pickle.dumps(index.images)) == index.images


def test_two_processes__may_open_at_once(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "set", content(count=3000))
    code = (
        "import sys; from pathlib import Path\n"
        "from deepmac.data.annotations.coco import read_coco\n"
        "p = Path(sys.argv[1]); i = read_coco(p, p.parent, on_error='drop')\n"
        "print(len(i.table.id), sum(len(x.instances) for x in i.images))"
    )
    command = [sys.executable, "-c", code, str(path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=120)[0] for process in both}
    assert len(said) == 1 and all(process.returncode == 0 for process in both)
    left = {p.name for p in (cache / "annotations").iterdir()} - {"digests", "pictures"}
    assert len(left) == 1 and not any(name.startswith(".") for name in left)


def test_records__survive_packing() -> None:
    items = (
        Instance(4, 2, (1.0, 2.0, 3.5, 4.0), TRIANGLE, False, 9.0, ((1.0, 2.0, 1),), "model", 0.25),
        Instance(5, 1, (0.0, 0.0, 9.0, 9.0), None, True, 81.0, corners=(1, 1, 5, 2, 4, 6, 0, 5.0)),
    )
    folder = Path("x")
    images = (
        ImageRecord(1, "é.jpg", folder / "é.jpg", 20, 16, items, False, (2,), (1, 3)),
        ImageRecord(2, "b.jpg", folder / "b.jpg", 20, 16, ()),
    )
    packed = TableImages(pack(images), folder)
    assert packed == images
    assert packed.at([1])[0] == images[1]
    assert packed.table.objects_per_image().tolist() == [1, 0]


def test_worker_memory__does_not_grow_with_the_records_touched(tmp_path: Path) -> None:
    made = content(count=4000)
    made["images"] = [{**made["images"][0], "id": i} for i in range(2000)]
    for position, entry in enumerate(made["annotations"]):
        entry["image_id"] = position % 2000
    path = write(tmp_path / "set", made)
    index = read_coco(path, path.parent, on_error="drop")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        for record in index.images[:50]:
            assert record.instances is not None
        before = _private_dirty()
        for _ in range(3):
            for record in index.images:
                assert record.instances is not None
        os.write(writing, str(_private_dirty() - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reading, 100)) < 2_000_000


def _private_dirty() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


def test_a_cache_of_the_past__is_swept(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "set", content(count=4))
    for number in range(30):
        read_coco(path, path.parent, on_error="drop")
        target = tmp_path / f"{number}.json"
        shutil.copy(path, target)
        read_coco(target, path.parent, on_error="drop")
    assert len(list((cache / "annotations").iterdir())) <= 27
