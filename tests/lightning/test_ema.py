"""The moving average of the weights."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from deepmac.lightning.callbacks.ema import WarmedUpEMA


def averaged(decay: float, steps: int) -> float:
    """The average after a weight that starts at 0 has been 1 for some steps."""
    model = nn.BatchNorm1d(1)
    nn.init.zeros_(model.weight)
    average = AveragedModel(model, multi_avg_fn=WarmedUpEMA(decay)._update, use_buffers=True)
    average.update_parameters(model)  # the first update copies
    nn.init.ones_(model.weight)
    for _ in range(steps):
        average.update_parameters(model)
    assert average.module.num_batches_tracked == model.num_batches_tracked
    return float(average.module.weight.item())


def test_a_short_training_has_left_its_first_weights_behind() -> None:
    assert averaged(0.999, steps=100) > 0.99


def test_a_long_training_averages_over_the_full_window() -> None:
    expected = 1.0
    for n in range(1, 3001):
        expected *= min(0.9, (1 + n) / (10 + n))
    assert averaged(0.9, steps=200) == pytest.approx(1 - expected, abs=1e-6)
    late, later = averaged(0.99, steps=2000), averaged(0.99, steps=2001)
    assert (1 - later) == pytest.approx(0.99 * (1 - late), abs=1e-5)


def test_a_decay_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        WarmedUpEMA(1.5)


def test_the_average_keeps_the_dtype() -> None:
    half = [torch.zeros(3, dtype=torch.bfloat16)]
    WarmedUpEMA(0.5)._update(half, [torch.ones(3, dtype=torch.bfloat16)], torch.tensor(50))
    assert half[0].dtype == torch.bfloat16 and half[0].tolist() == [0.5] * 3
