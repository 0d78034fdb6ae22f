"""A few damaged exports of each format; ``make fuzz-data`` tries thousands."""

from pathlib import Path

import pytest

from data.annotations import exports, fuzz, plainly
from data.annotations.fuzz import try_one
from deepmac.data.settings import read_annotations


@pytest.mark.parametrize("name", exports.ALL)
def test_damaged_exports__are_read_or_told(tmp_path: Path, name: str) -> None:
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        outcome, words = try_one(name, seed, folder)
        assert outcome in ("read", "told"), words


@pytest.mark.parametrize("seed", [3, 100, 108])
@pytest.mark.parametrize("name", ["fiftyone", "lvis", "wildlife"])
def test_what_once_failed__does_not_again(tmp_path: Path, name: str, seed: int) -> None:
    outcome, words = try_one(name, seed, tmp_path)
    assert outcome in ("read", "told"), words


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("yolo_pose", 17),  # a kpt_shape that is none: key points became outlines
        ("yolo_obb", 6),  # one faulty line: all turned boxes became outlines
        ("labelme", 15),  # a file without its list of shapes was passed over
        ("open_images", 16),  # a table of masks with another first line was passed over
    ],
)
def test_what_once_was_silent__is_told(tmp_path: Path, name: str, seed: int) -> None:
    outcome, words = try_one(name, seed, tmp_path)
    assert outcome == "told", words


@pytest.mark.parametrize("name", [n for n in exports.ALL if n != "labelme_masks"])
def test_the_plain_reading__agrees_on_what_is_whole(tmp_path: Path, name: str) -> None:
    """So that a difference on damaged exports means something."""
    exports.ALL[name](tmp_path)
    found = []
    for split in ("train", "val"):
        found += fuzz.things_of(read_annotations({"root": tmp_path}, split))  # type: ignore[arg-type]
    plain = plainly.read(name, tmp_path)
    assert plain is not None and not plain.unclear and len(found) == 10
    assert plainly.unlike(found, plain.things) == (0, 0)
