"""Adam as TensorFlow writes it, for trainings that follow the original."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from deepmac.lightning.optim.adam import Adam


class TensorFlowAdam(Adam):
    """Adam whose epsilon is not corrected for bias.

    Step t moves a parameter by ``lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)``, m and v
    being the running means of the gradient and its square (``tf.keras.optimizers.Adam``). torch
    divides v by ``1 - b2^t`` before the root, so that there the same epsilon counts for up to
    ``1 / sqrt(1 - b2)`` times as much in the first steps. Handing torch ``eps / sqrt(1 - b2^t)``
    makes the two equal, with torch's own fast kernels.

    t counts the steps of the optimizer, as in TensorFlow; it is kept in the groups, under
    ``steps``, and so in checkpoints. Arguments as torch's.
    """

    def __init__(self, params: Any, *, lr: float, eps: float = 1e-7, **options: Any) -> None:
        super().__init__(params, lr=lr, eps=eps, **options)
        for group in self.param_groups:
            group["steps"] = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step, as torch's."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        epsilons = [group["eps"] for group in self.param_groups]
        for group, epsilon in zip(self.param_groups, epsilons, strict=True):
            group["steps"] += 1
            group["eps"] = epsilon / math.sqrt(1 - group["betas"][1] ** group["steps"])
        try:
            super().step()
        finally:
            for group, epsilon in zip(self.param_groups, epsilons, strict=True):
                group["eps"] = epsilon
        return loss
