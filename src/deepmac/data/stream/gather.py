"""Several tables put end to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmac.data.annotations.table import COLUMNS, POLYGONS, RUN_LENGTHS, Table

_POINTS_TO = {
    "name_start": ("name_bytes", 1),
    "neg_start": ("image_categories", 1),
    "not_exhaustive_start": ("image_categories", 1),
    "row_start": ("id", 1),
    "ring_start": ("ring_end", 1),
    "ring_end": ("coordinates", 1),
    "rle_start": ("rle_bytes", 1),
    "point_start": ("points", 3),
    "corner_start": ("corners", 1),
}
"""Columns that hold places in another column, and in steps of how many of its values."""
_WHERE = {"ring_start": ("mask_kind", POLYGONS), "rle_start": ("mask_kind", RUN_LENGTHS)}


def joined(tables: Sequence[Table]) -> Table:
    """One table of the images of all, in their order."""
    columns: dict[str, NDArray[Any]] = {}
    sizes = {
        name: np.cumsum([0, *(len(getattr(table, name)) for table in tables)])
        for name in {target for target, _ in _POINTS_TO.values()}
    }
    for name, kind in COLUMNS.items():
        parts = []
        for number, table in enumerate(tables):
            values = getattr(table, name)
            if name in _POINTS_TO:
                target, step = _POINTS_TO[name]
                shift = int(sizes[target][number]) // step
                values = np.where(_points(name, table), values + shift, values)
            parts.append(values)
        shape = (0, 4) if name == "box" else (0,)
        columns[name] = np.concatenate(parts or [np.zeros(shape)]).astype(kind, copy=False)
    return Table(columns)


def _points(name: str, table: Table) -> Any:
    """Which of a column's values are places at all."""
    if name == "corner_start":
        return getattr(table, name) >= 0
    if name in _WHERE:
        column, value = _WHERE[name]
        return getattr(table, column) == value
    return True
