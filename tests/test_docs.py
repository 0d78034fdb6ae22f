"""Prose that a person reads: its lines, and what things are called."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
OTHERS = [
    path
    for folder, kinds in (
        ("src/deepmac", ("*.html", "*.js", "*.md")),
        ("examples", ("*.py",)),
        ("notebooks", ("*.ipynb",)),
        ("conf", ("*.yaml",)),
    )
    for kind in kinds
    for path in sorted((ROOT / folder).rglob(kind))
]


def test_pages__have_lines_of_at_most_100_columns():
    """But for tables, and addresses that cannot be broken."""
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in PAGES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 100 and not line.lstrip().startswith("|") and "://" not in line
    ]
    assert not long


def test_notebooks__share_no_helper_and_show_no_picture_that_is_not_free():
    """A function that two need belongs to the package."""
    known: dict[str, str] = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        for name in re.findall(r"^def (\w+)", code, re.M):
            assert name not in known, f"{name}: in {path.name} and in {known[name]}"
            known[name] = path.name
        assert "coco_mini" not in code


def test_the_method_is_called_deep_mac_and_the_package_deepmac():
    """``DeepMAC`` is a class: it stands in code alone."""
    code = re.compile(r"```.*?```|`[^`]*`|^::: .*$", re.DOTALL | re.MULTILINE)
    for path in (*PAGES, *OTHERS):
        text = code.sub("", path.read_text(encoding="utf-8"))
        for line in text.splitlines():
            plain = re.search(r"DeepMAR?C(?![\w(]| +│)", line)
            assert not plain or "import" in line, f"{path.relative_to(ROOT)}: {line}"
