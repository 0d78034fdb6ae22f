"""What a sweep ends with: one table of its runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

_COLUMNS = {
    "box AP": ("box", "AP", "all"),
    "mask AP": ("mask", "AP", "all"),
    "unseen": ("mask", "AP", "unseen"),
    "mIoU in given boxes": ("mask_gt_box", "mIoU", "all"),
    "unseen ": ("mask_gt_box", "mIoU", "unseen"),
}


class SweepTable(Callback):
    """Named in ``conf/train.yaml``; the study of mask heads has a table of its own."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the runs of the sweep's folder, the best mask AP first."""
        if "study" not in (config.hydra.callbacks or {}):
            print_sweep(Path(config.hydra.sweep.dir))


def print_sweep(folder: Path) -> None:
    """One row for every run in ``folder`` that has been evaluated; the others are counted."""
    runs = sorted(path.parent.parent for path in folder.glob("*/.hydra/overrides.yaml"))
    words = {run: yaml.safe_load((run / ".hydra/overrides.yaml").read_text()) for run in runs}
    shared = set.intersection(*(set(w) for w in words.values())) if words else set()
    rows = []
    for run in runs:
        if (metrics := _metrics(run)) is not None:
            own = [word for word in words[run] if word not in shared]
            rows.append((run.name, " ".join(own), [_value(metrics, *c) for c in _COLUMNS.values()]))
    if len(runs) < 2:
        return
    table = Table("run", "settings", *_COLUMNS, title=str(folder), title_justify="left", box=None)
    for name, settings, values in sorted(rows, key=lambda row: -(row[2][1] or 0.0)):
        table.add_row(
            name, settings, *("-" if value is None else f"{100 * value:.1f}" for value in values)
        )
    console = Console(highlight=False)
    console.print(table)
    if len(rows) < len(runs):
        console.print(f"{len(runs) - len(rows)} of {len(runs)} runs have no metrics.json")


def _metrics(run: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content


def _value(metrics: dict[str, Any], section: str, name: str, group: str) -> float | None:
    value = metrics.get(section, {}).get(name, {}).get(group)
    return value if isinstance(value, int | float) else None
