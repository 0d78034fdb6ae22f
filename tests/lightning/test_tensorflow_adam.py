"""TensorFlow's form of Adam: the formula, step by step."""

import copy
import io

import numpy as np
import pytest
import torch

from deepmac.lightning.optim.tensorflow_adam import TensorFlowAdam

B1, B2, EPS = 0.9, 0.999, 1e-7


def gradients(steps, size=6, seed=0):
    """Of all magnitudes, so that epsilon counts for some and not for others."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(steps, size)) * 10.0 ** np.arange(-9, -9 + size)


def by_formula(start, grads, rates):
    value, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for t, (grad, lr) in enumerate(zip(grads, rates, strict=True), start=1):
        m = B1 * m + (1 - B1) * grad
        v = B2 * v + (1 - B2) * grad**2
        value = value - lr * np.sqrt(1 - B2**t) / (1 - B1**t) * m / (np.sqrt(v) + EPS)
    return value


def take_steps(optimizer, parameter, grads, rates):
    for grad, lr in zip(grads, rates, strict=True):
        parameter.grad = torch.from_numpy(grad)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()


@pytest.mark.parametrize("foreach", [False, True])
def test_ten_steps__follow_the_formula(foreach):
    start, grads, rates = np.linspace(-1, 1, 6), gradients(10), np.linspace(2.5e-4, 1e-3, 10)
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = TensorFlowAdam([parameter], lr=1.0, eps=EPS, foreach=foreach)
    take_steps(optimizer, parameter, grads, rates)
    expected = by_formula(start, grads, rates)
    assert np.abs(parameter.detach().numpy() - expected).max() <= 1e-15
    assert optimizer.param_groups[0]["eps"] == EPS, "the setting itself stays as it is"


def test_torchs_own_adam__is_another_one():
    start, grads, rates = np.zeros(6), gradients(3), [1e-3] * 3
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    take_steps(torch.optim.Adam([parameter], lr=1.0, eps=EPS), parameter, grads, rates)
    assert np.abs(parameter.detach().numpy() - by_formula(start, grads, rates)).max() > 1e-4


def test_state__goes_on_where_it_was_saved():
    start, grads, rates = np.linspace(-1, 1, 6), gradients(10), [1e-3] * 10
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = TensorFlowAdam([parameter], lr=1e-3, eps=EPS)
    take_steps(optimizer, parameter, grads[:4], rates[:4])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again = torch.nn.Parameter(copy.deepcopy(parameter.detach()))
    resumed = TensorFlowAdam([again], lr=1e-3, eps=EPS)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    take_steps(resumed, again, grads[4:], rates[4:])
    assert np.abs(again.detach().numpy() - by_formula(start, grads, rates)).max() <= 1e-15


def test_closure__is_called_with_gradients_on():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = TensorFlowAdam([parameter], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
    assert torch.allclose(parameter, torch.full((2,), 0.9), atol=1e-5)
