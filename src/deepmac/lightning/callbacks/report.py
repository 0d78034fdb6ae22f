"""``report.html`` of a run directory: the last evaluation, loss curves and pictures on one page."""

from __future__ import annotations

import csv
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from deepmac.evaluation import table_rows
from deepmac.files import write_atomically
from deepmac.lightning.callbacks.evaluation import EvaluateCoco

_CURVES = ("train/loss", "train/heatmap", "train/mask", "mask_gt_box/mIoU/seen")
_CURVES_UNSEEN = "mask_gt_box/mIoU/unseen"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; color: #1c1e21; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .15rem .8rem; text-align: right }
td:first-child, th:first-child { text-align: left }
tr.section td { font-weight: 600; padding-top: .8rem }
.floor, figcaption { color: #666 }
figure { display: inline-block; margin: .5rem 1rem .5rem 0 }
figcaption { font-size: 13px }
img { max-width: 100% }
svg { background: #f6f7f8 }
"""


class RunReport(Callback):
    """Rewrites the page after every evaluation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write, on the first replica."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        scored = [c for c in trainer.callbacks if isinstance(c, EvaluateCoco)]  # type: ignore
        metrics = scored[0].metrics if scored else {}
        write_report(Path(trainer.default_root_dir), metrics, step=trainer.global_step)


def write_report(run_dir: Path, metrics: dict[str, Any], *, step: int) -> Path:
    """Write ``report.html`` from what the run directory holds; returns its path.

    Args:
        run_dir: holds ``metrics.csv`` and ``pictures/`` where they exist.
        metrics: the last evaluation, nested as in ``metrics.json``; may be empty.
        step: optimizer steps behind it.
    """
    rows = _read_rows(run_dir / "metrics.csv")
    curves = "".join(
        _curve(name, points)
        for name in (*_CURVES, _CURVES_UNSEEN)
        if (points := _points(rows, name))
    )
    pictures = "".join(
        f'<p><img src="pictures/{html.escape(path.name)}" alt="predictions at {path.stem}"></p>'
        for path in sorted((run_dir / "pictures").glob("step_*.png"))[-1:]
    )
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(run_dir.name)}"
        f"</title><style>{_STYLE}</style><h1>{html.escape(run_dir.name)}</h1>"
        f"<p>after {step} steps; settings in <a href=config.yaml>config.yaml</a>, all numbers in "
        "<a href=metrics.json>metrics.json</a> and <a href=metrics.csv>metrics.csv</a></p>"
        f"{_table(metrics) if metrics else ''}<h2>Curves</h2>{curves or '<p>none yet</p>'}"
        f"<h2>Pictures</h2>{pictures or '<p>none</p>'}</html>\n"
    )
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / "report.html"
    write_atomically(path, page)
    return path


def _table(metrics: dict[str, Any]) -> str:
    groups = ("all", "seen", "unseen")
    head = "".join(f"<th>{group}</th>" for group in groups)
    body = []
    for section, rows in table_rows(metrics, groups):
        body.append(f"<tr class=section><td colspan=4>{html.escape(section)}</td></tr>")
        for label, values, floors in rows:
            cells = "".join(
                f"<td>{value} <span class=floor>{floor}</span></td>"
                for value, floor in zip(values, floors, strict=True)
            )
            body.append(f"<tr><td>{html.escape(label)}</td>{cells}</tr>")
    note = "percent; in brackets the floor, the filled box as the mask"
    if metrics["restricted"]:
        note += f"; on {metrics['images']} of {metrics['images_in_data_set']} validation images"
    return f"<table><tr><th></th>{head}</tr>{''.join(body)}</table><p class=floor>{note}</p>"


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _points(rows: Sequence[dict[str, str]], name: str) -> list[tuple[float, float]]:
    return [(float(row["step"]), float(row[name])) for row in rows if row.get(name)]


def _curve(
    name: str, points: list[tuple[float, float]], width: int = 260, height: int = 120
) -> str:
    """An inline drawing of one value over the steps, from zero to its largest."""
    last_step = max(step for step, _ in points) or 1.0
    top = max(value for _, value in points) or 1.0
    path = " ".join(
        f"{step / last_step * width:.1f},{height - max(0.0, value) / top * (height - 8):.1f}"
        for step, value in points
    )
    caption = f"{html.escape(name)}: {points[-1][1]:.4g} (largest {top:.4g})"
    dots = "" if len(points) > 1 else f'<circle cx={width} cy=8 r=3 fill="#3867d6" />'
    return (
        f'<figure><svg width={width} height={height} role=img aria-label="{caption}">{dots}'
        f'<polyline points="{path}" fill=none stroke="#3867d6" stroke-width=1.5 /></svg>'
        f"<figcaption>{caption}</figcaption></figure>"
    )
