"""The page itself: one file that asks for nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from deepmac.files import write_atomically


def write_page(runs: Sequence[dict[str, Any]], path: Path) -> Path:
    """Write the page of one or several runs; returns its path.

    Args:
        runs: see :func:`deepmac.report.run_folder.read_run`.
        path: of the page; appears whole.
    """
    # Names come from data sets of unknown origin: nothing in them may end the script element.
    text = json.dumps({"runs": list(runs)}).replace("<", "\\u003c")
    page = (files("deepmac.report") / "page.html").read_text(encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page.replace("__DATA__", text))
    return path
