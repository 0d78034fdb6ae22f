"""An exponential moving average of the weights that is of use in short trainings too."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor, nn

from deepmac.lightning.private import averaged_module
from deepmac.nn.ranges import Share


class WarmedUpEMA(WeightAveraging):
    """Lightning's weight averaging with a window that grows from a few steps to its full length.

    A fixed decay of 0.999 still holds half of the untrained weights after 700 steps. Here step n
    keeps ``min(decay, (1 + n) / (10 + n))`` of the average, as TensorFlow's moving averages with
    ``num_updates`` do. Validation, ``best.ckpt`` and ``last.ckpt`` see the average.

    Args:
        decay: share of the average that every step keeps, in the long run; 0 to 1.
    """

    def __init__(self, decay: Share = 0.999) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"an EMA decay of {decay} is not between 0 and 1")
        self.decay = decay
        super().__init__(multi_avg_fn=self._update)

    @property
    def averaged(self) -> nn.Module | None:
        """The module with the average for its weights, while a training runs; its mode is whatever
        it was last set to."""
        return averaged_module(self)

    @torch.no_grad()
    def _update(self, averages: list[Any], currents: list[Any], count: Tensor) -> None:
        keep = torch.clamp((1 + count) / (10 + count), max=self.decay)
        for average, current in zip(averages, currents, strict=True):
            if average.is_floating_point():
                average.lerp_(current, (1 - keep).to(average.dtype))
            else:
                average.copy_(current)  # counters of batches
