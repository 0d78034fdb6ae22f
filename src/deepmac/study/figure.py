"""The figure of a study: seen and unseen mask quality of each head, a panel for each group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deepmac.errors import ConfigError
from deepmac.files import atomic_binary
from deepmac.study.runs import Row, Study, head_order
from deepmac.study.table import group_title

_SEEN = {"color": "#1f77b4", "marker": "o", "label": "seen: had masks in training"}
_UNSEEN = {"color": "#d62728", "marker": "s", "label": "unseen: boxes only"}


def draw_study(study: Study, path: str | Path) -> None:
    """Write a picture; needs matplotlib (``pip install deepmac[study]``).

    Args:
        study: at least one row.
        path: its ending chooses the format.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("the figure needs matplotlib: pip install 'deepmac[study]'") from error
    groups = study.groups
    heads = sorted({row.mask_head for row in study.rows}, key=head_order)
    width = max(4.0, 0.85 * len(heads)) * len(groups) + 1.0
    figure = Figure(figsize=(width, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for panel, (group, rows) in zip(panels, groups.items(), strict=True):
        _draw_panel(panel, rows, heads)
        panel.set_title(group_title(group).replace(", ", "\n"), fontsize=11)
    panels[0].set_ylabel("mean IoU of masks in true boxes")
    handles, labels = panels[0].get_legend_handles_labels()
    columns = 4 if len(groups) > 1 else 2  # a single panel is narrow
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    with atomic_binary(Path(path)) as file:
        figure.savefig(file, dpi=110, format="png")


def _draw_panel(panel: Any, rows: list[Row], heads: list[str]) -> None:
    places = [heads.index(row.mask_head) for row in rows]
    for name, style in (("seen", _SEEN), ("unseen", _UNSEEN)):
        means = [row.mean(name) for row in rows]
        spreads = [row.spread(name) or 0.0 for row in rows]
        panel.errorbar(places, means, yerr=spreads, capsize=3, linewidth=1.5, **style)
        for place, row in zip(places, rows, strict=True):
            values = row.values(name)
            panel.plot([place] * len(values), values, ".", color=style["color"], alpha=0.45)
        floor = rows[0].mean(f"floor_{name}")
        label = f"the box itself, {name}"
        panel.axhline(floor, color=style["color"], linestyle=":", linewidth=1, label=label)
    costs = {row.mask_head: row.cost for row in rows}
    panel.set_xticks(range(len(heads)), [_tick(head, costs) for head in heads], fontsize=8)
    panel.set_xlim(-0.5, len(heads) - 0.5)
    panel.grid(axis="y", alpha=0.3)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _tick(head: str, costs: dict[str, Any]) -> str:
    name = head.replace("fully_connected", "fully\nconnected")
    name = name.replace("resnet", "ResNet\n").replace("hourglass", "hourglass\n")
    if head not in costs:
        return name
    cost = costs[head]
    return f"{name}\n{cost.parameters / 1e6:.2f} M\n{cost.multiply_adds / 1e6:.0f} MMAC"
