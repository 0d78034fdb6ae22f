"""The learning-rate schedule of the original configs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

ScheduleShape = Literal["cosine", "constant", "steps"]


def learning_rate_factor(
    step: int,
    *,
    total_steps: float,
    warmup_steps: int,
    warmup_factor: float,
    shape: ScheduleShape = "cosine",
    drops: Sequence[int] = (),
    time_share: float | None = None,
) -> float:
    """Fraction of the base learning rate at an optimizer step (0 = the first one).

    Linear from ``warmup_factor`` to 1 over ``warmup_steps``, then half a cosine to 0 at
    ``total_steps`` (reference: ``learning_schedules.cosine_decay_with_warmup``), constant, or a
    tenth at each of the ``drops``. An endless run (``total_steps`` infinite) stays constant after
    the warm-up, unless time limits it: then the cosine follows ``time_share``, the part of the
    time that has gone by. With both limits it follows the one that is nearer.

    Args:
        step: from 0.
        total_steps: of the whole training; may be infinite.
        warmup_steps: 0 = none.
        warmup_factor: of the first step.
        shape: what follows the warm-up.
        drops: steps, for ``steps``.
        time_share: 0..1; None where time does not limit the training.
    """
    if step < warmup_steps:
        return warmup_factor + (1 - warmup_factor) * step / warmup_steps
    if shape == "steps":
        return 0.1 ** sum(step >= drop for drop in drops)
    if shape == "constant" or (math.isinf(total_steps) and time_share is None):
        return 1.0
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    progress = max(progress, time_share or 0.0)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
