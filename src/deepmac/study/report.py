"""``study.md``, ``study.png`` and ``study.json`` of a folder of runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from deepmac.files import sweep_drafts, write_atomically
from deepmac.study.figure import draw_study
from deepmac.study.runs import Study, read_study
from deepmac.study.table import format_study


def write_study(folder: str | Path) -> Study:
    """Read the runs below ``folder`` and write table, figure and all numbers into it.

    Raises:
        ConfigError: see :func:`~deepmac.study.runs.read_study` and
            :func:`~deepmac.study.figure.draw_study`; the table is written before the figure.
    """
    folder = Path(folder)
    study = read_study(folder)
    sweep_drafts(folder)
    write_atomically(folder / "study.md", format_study(study))
    content = {
        "settings": study.settings,
        "unfinished": study.unfinished,
        "rows": [asdict(row) for row in study.rows],
    }
    write_atomically(folder / "study.json", json.dumps(content, indent=1) + "\n")
    draw_study(study, folder / "study.png")
    return study
