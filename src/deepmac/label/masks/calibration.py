"""Scores that tell the truth: a monotone map from a model's raw scores to the IoU to expect."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmac.errors import DataError, UserError

FORMAT = "deepmac-calibration-1"
FILE_NAME = "calibration.json"
FEWEST = 40
"""Masks below which a map would be noise."""

SCORE_DECIMALS = 4
_FOLDS = 5
_BINS = 10
_MIN_BLOCK = 10  # masks behind every knot

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """A map from raw scores to expected IoU, linear between its knots.

    Attributes:
        raw: (k,) increasing raw scores.
        iou: (k,) IoU to expect there, never decreasing.
        model: digest of the model that it belongs to.
        measured: what :func:`calibrate` found out, for people.
    """

    raw: tuple[float, ...]
    iou: tuple[float, ...]
    model: str = ""
    measured: dict[str, Any] | None = None

    def __call__(self, score: float) -> float:
        """Expected IoU of a mask with this raw score."""
        return float(np.interp(score, self.raw, self.iou))

    def to_json(self) -> str:
        """The text of a calibration file."""
        values = {"format": FORMAT, "model": self.model, "raw": self.raw, "iou": self.iou}
        return json.dumps({**values, "measured": self.measured}, indent=1) + "\n"

    @classmethod
    def read(cls, path: Path, model: str) -> Calibration:
        """From a file.

        Args:
            path: of the file.
            model: digest of the model at hand.

        Raises:
            UserError: no such file, something else, or of another model.
        """
        values, raw, iou = _parsed(path)
        if values.get("model") != model:
            raise UserError(
                f"{path} calibrates another model: make one for this model with "
                "deepmac label --calibrate"
            )
        return cls(raw, iou, model, values.get("measured"))


def check_file(path: Path) -> None:
    """Raise UserError unless a file holds a calibration, of whatever model."""
    _parsed(path)


def _parsed(path: Path) -> tuple[dict[str, Any], tuple[float, ...], tuple[float, ...]]:
    """A calibration file's values and its knots, everything checked."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(f"it is not of the format {FORMAT}")
        raw, iou = (tuple(map(float, values[name])) for name in ("raw", "iou"))
        if len(raw) != len(iou) or not raw:
            raise ValueError("raw and iou are of different length or empty")
        if not all(0 <= value <= 1 for value in (*raw, *iou)):  # also NaN
            raise ValueError("raw or iou holds something else than shares from 0 to 1")
        if any(b <= a for a, b in pairwise(raw)) or any(b < a for a, b in pairwise(iou)):
            raise ValueError("knots that do not increase")
        measured: Any = values.get("measured")
        for name in () if measured is None else _SHOWN:
            if not math.isfinite(measured[name]):
                raise ValueError(f"measured {name} is no number")
    except (OSError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path} is no calibration ({type(error).__name__}: {error!s:.200}): make one with "
            "deepmac label --calibrate"
        ) from None
    return values, raw, iou


_SHOWN = ("masks", "spearman", "calibration_error_held_out")


def calibrate(raw: Floats, iou: Floats, images: Sequence[Hashable], model: str = "") -> Calibration:
    """Fit a map and measure it on masks that it was not fitted on.

    Args:
        raw: (n,) raw scores.
        iou: (n,) IoU of the masks with the true ones.
        images: n image ids: masks of an image are never on both sides.
        model: digest.

    Returns:
        The map fitted on everything; ``measured`` holds ``masks``, ``images``, ``mean_iou``,
        ``spearman`` (of raw scores: a monotone map keeps it), and the expected calibration error
        of the raw scores and of the held-out predictions of 5-fold cross-validation.

    Raises:
        DataError: fewer than ``FEWEST`` masks.
    """
    if len(raw) < FEWEST:
        raise DataError(
            f"{len(raw)} masks are too few to calibrate scores on: give at least {FEWEST} objects "
            "with masks that the model was not trained on"
        )
    numbers = {image: n for n, image in enumerate(dict.fromkeys(images))}
    fold = np.array([numbers[image] for image in images]) % _FOLDS
    held_out = np.empty_like(raw)
    for number in range(_FOLDS):
        mine = fold == number
        rest = _fit(raw[~mine], iou[~mine]) if not mine.all() else _fit(raw, iou)
        held_out[mine] = np.interp(raw[mine], *rest)
    x, y = _fit(raw, iou)
    measured = {
        "masks": len(raw),
        "images": len(numbers),
        "mean_iou": round(float(iou.mean()), 4),
        "spearman": round(spearman(raw, iou), 4),
        "held_out_spearman": round(spearman(held_out, iou), 4),
        "calibration_error_raw": round(calibration_error(raw, iou), 4),
        "calibration_error_held_out": round(calibration_error(held_out, iou), 4),
    }
    return Calibration(tuple(x.tolist()), tuple(y.tolist()), model, measured)


def calibration_error(predicted: Floats, actual: Floats, bins: int = _BINS) -> float:
    """Expected calibration error: mean gap of predicted and actual IoU over bins of equal count."""
    order = np.argsort(predicted, kind="stable")
    gaps = [
        len(part) * abs(predicted[part].mean() - actual[part].mean())
        for part in np.array_split(order, min(bins, len(order)))
    ]
    return float(sum(gaps) / len(order))


def spearman(first: Floats, second: Floats) -> float:
    """Rank correlation, ties sharing their mean rank; 0 where one side is constant."""
    a, b = (_ranks(values) for values in (first, second))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale else 0.0


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = (ends - (counts - 1) / 2)[inverse]
    return ranks


def _fit(raw: Floats, iou: Floats) -> tuple[Floats, Floats]:
    """Isotonic regression (pool adjacent violators) on blocks of at least a few masks."""
    order = np.argsort(raw, kind="stable")
    block = max(_MIN_BLOCK, -(-len(raw) // 100))
    parts = np.array_split(order, max(1, len(order) // block))
    blocks: list[tuple[float, float, int]] = []  # mean raw, mean IoU, count
    for part in parts:
        blocks.append((float(raw[part].mean()), float(iou[part].mean()), len(part)))
        while len(blocks) > 1 and blocks[-2][1] >= blocks[-1][1]:
            (r1, i1, n1), (r2, i2, n2) = blocks[-2:]
            n = n1 + n2
            blocks[-2:] = [((r1 * n1 + r2 * n2) / n, (i1 * n1 + i2 * n2) / n, n)]
    x, y, _ = (np.array(column) for column in zip(*blocks, strict=True))
    keep = np.concatenate([[True], np.diff(x) > 0])
    return x[keep], y[keep]
