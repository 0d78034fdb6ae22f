"""A few damaged exports of each format; ``make fuzz-data`` tries thousands."""

from pathlib import Path

import pytest

from data.annotations import exports
from data.annotations.fuzz import try_one


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
