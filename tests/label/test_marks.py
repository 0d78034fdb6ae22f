"""What the review sheet saves, read back."""

import json

import pytest

from deepmac.errors import DataError
from deepmac.label.marks import FORMAT, Marks, read_marks


def test_marks__of_a_sheet_and_of_a_plain_list(tmp_path):
    path = tmp_path / "wrong_masks.json"
    path.write_text(json.dumps({"format": FORMAT, "wrong": [3, "a"], "redraw": [7]}))
    assert read_marks(path) == Marks((3, "a"), (7,), ())
    assert read_marks(path).to_see == (7,)
    path.write_text("[5, 6]")
    assert read_marks(path) == Marks((5, 6))
    assert read_marks(path).to_see == (5, 6)


BROKEN = (
    "{}",
    "3",
    '{"format": "deepmac-review-1", "wrong": [true]}',
    "[[1]]",
    '{"format": "deepmac-review-1", "redraw": 5}',
    "{",
)


@pytest.mark.parametrize("text", BROKEN)
def test_marks__that_are_none_get_a_sentence(tmp_path, text):
    path = tmp_path / "wrong_masks.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"wrong_masks\.json"):
        read_marks(path)
