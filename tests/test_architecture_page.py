"""The page on the house: its rooms are there, and its walks are as short as it says."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
LONGEST = {"From json to mask logits": 12, "From a picture to its mask in `label`": 14}


def test_walks__name_files_that_exist_and_are_few():
    for title, most in LONGEST.items():
        walk = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
        steps = re.findall(r"^\d+\. .*?`([\w/]+\.py)`", walk, re.MULTILINE)
        assert 8 <= len(steps) <= most
        assert len(set(steps)) == len(re.findall(r"^\d+\. ", walk, re.MULTILINE))
        missing = [step for step in steps if not (ROOT / "src" / "deepmac" / step).is_file()]
        assert not missing, f"docs/architecture.md names {missing} in {title!r}"


def test_tree__names_rooms_that_exist():
    rooms = re.findall(r"^(\w+)/", PAGE.split("```")[1], re.MULTILINE)
    assert rooms and all((ROOT / "src" / "deepmac" / room).is_dir() for room in rooms)
