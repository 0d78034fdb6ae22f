"""What was read or looked at once is not read again, unless something has changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from data.annotations import exports
from deepmac.data.annotations import coco, read_boxes
from deepmac.data.annotations.coco import CocoIndex
from deepmac.data.settings import read_annotations
from deepmac.errors import DataError

LONG_AGO = 1_700_000_000


def settle(folder: Path, when: int = LONG_AGO) -> None:
    """As if nobody had written to the files for long."""
    for path in folder.rglob("*"):
        os.utime(path, (when, when))


def read(root: Path, **settings: Any) -> CocoIndex:
    return read_annotations({"root": root, "on_error": "drop", **settings}, "train")  # type: ignore[arg-type]


def content(index: CocoIndex) -> Any:
    return list(index.images), index.problems, index.categories, index.dropped


@pytest.mark.parametrize("name", [n for n in exports.ALL if exports.FORMAT.get(n, n) != "coco"])
def test_a_second_opening__reads_no_file_of_any_format(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports.ALL[name](tmp_path)
    settle(tmp_path)
    first = content(read(tmp_path))
    monkeypatch.setattr(read_boxes, "read_place", lambda *_: pytest.fail("it was read again"))
    assert content(read(tmp_path)) == first


@pytest.mark.parametrize("name", ["yolo_seg", "voc", "labelme", "open_images", "panoptic"])
def test_a_changed_file__is_read(tmp_path: Path, name: str) -> None:
    exports.ALL[name](tmp_path)
    settle(tmp_path)
    before = read(tmp_path)
    kinds = {".txt": b"0 0.5 0.5 0.2 0.2\n", ".png": b"", ".xml": b"<annotation/>", ".json": b"{}"}
    files = [p for p in tmp_path.rglob("*") if p.suffix in kinds and p.stem in ("a", "a_0")]
    assert files
    files[0].write_bytes(kinds[files[0].suffix])
    try:
        assert content(read(tmp_path)) != content(before)
    except DataError:
        assert name != "yolo_seg"


def test_a_file_of_just_now__is_not_trusted_to_stay(tmp_path: Path, cache: Path) -> None:
    exports.yolo_seg(tmp_path)
    read(tmp_path)
    assert not [p for p in (cache / "annotations").glob("*") if len(p.name) == 64]


def test_pictures__are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports.label_studio(tmp_path)  # file names that are found in another spelling
    settle(tmp_path)
    looked: list[str] = []
    check = coco.check_image

    def counting(path: Any, *arguments: Any, **options: Any) -> None:
        looked.append(Path(path).name)
        check(path, *arguments, **options)

    monkeypatch.setattr(coco, "check_image", counting)
    first = content(read(tmp_path))
    assert len(set(looked)) >= 6
    looked.clear()
    assert content(read(tmp_path)) == first and not looked
    (tmp_path / "images/b.jpg").write_bytes(b"not a picture")
    again = read(tmp_path)
    assert {name.rpartition("\\")[2] for name in looked} == {"b.jpg"} and len(again.images) == len(
        first[0]
    ) - 1
    looked.clear()
    read(tmp_path)  # what is faulty is looked at each time
    assert {name.rpartition("\\")[2] for name in looked} == {"b.jpg"}
    read(tmp_path, check_images="full")
    assert len(set(looked)) >= 6
    (tmp_path / "images/a.jpg").unlink()
    assert "missing image" in {p.kind for p in read(tmp_path).problems}
