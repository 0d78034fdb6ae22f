"""Clean masks: connected parts of a small binary picture, its largest one, its holes.

Works on runs of pixels down the columns, as COCO's run lengths do: an object has hundreds of runs
where it has ten thousands of pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def largest_component(mask: Mask) -> Mask:
    """The (h, w) bool mask without all but its largest part; diagonal neighbours are connected.

    Of equally large parts the leftmost stays.
    """
    labels, count = label_components(mask, diagonal=True)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return labels == sizes.argmax()


def fill_holes(mask: Mask) -> Mask:
    """The (h, w) bool mask with every background part filled that does not reach the edge."""
    labels, count = label_components(~np.pad(mask, 1), diagonal=False)
    if count < 2:
        return mask
    return (labels != labels[0, 0])[1:-1, 1:-1]


def label_components(mask: Mask, *, diagonal: bool) -> tuple[NDArray[np.int64], int]:
    """Number the connected parts.

    Args:
        mask: (h, w) bool.
        diagonal: whether pixels that share only a corner are connected.

    Returns:
        (h, w) int64, 0 outside the mask and 1, 2, ... by the column of a part's first pixel; and
        how many parts there are.
    """
    height, width = mask.shape
    framed = np.zeros((width, height + 2), dtype=np.int8)
    framed[:, 1:-1] = mask.T
    edges = np.diff(framed, axis=1)
    columns, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    parent = np.arange(len(columns))
    for first, second in _touching(columns, starts, ends, int(diagonal)):
        _join(parent, first, second)
    roots = np.array([_root(parent, run) for run in range(len(columns))], dtype=np.int64)
    unique, numbers = np.unique(roots, return_inverse=True)
    flat = np.zeros(height * width + 1, dtype=np.int64)
    np.add.at(flat, columns * height + starts, numbers + 1)
    np.add.at(flat, columns * height + ends, -(numbers + 1))
    labels = np.cumsum(flat[:-1]).reshape(width, height).T
    return labels, len(unique)


def _touching(
    columns: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64], reach: int
) -> list[tuple[int, int]]:
    """Pairs of runs in neighbouring columns that share a row (or, with reach 1, a corner)."""
    if not len(columns):
        return []
    # One number line: columns one after the other, far enough apart never to meet.
    span = int(ends.max()) + 3
    low = np.searchsorted(columns * span + ends, (columns - 1) * span + starts - reach, "right")
    high = np.searchsorted(columns * span + starts, (columns - 1) * span + ends + reach, "left")
    pairs = []
    for run in np.flatnonzero(high > low).tolist():
        pairs += [(run, other) for other in range(low[run], high[run])]
    return pairs


def _root(parent: NDArray[np.int64], run: int) -> int:
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = int(parent[run])
    return run


def _join(parent: NDArray[np.int64], first: int, second: int) -> None:
    a, b = _root(parent, first), _root(parent, second)
    parent[max(a, b)] = min(a, b)
