"""Initial weights of convolutions and dense layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from deepmac.nn.conventions import TODAY, Conventions

_KERNELS: dict[str, Callable[..., Any]] = {
    "he_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "glorot_uniform": nn.init.xavier_uniform_,
}


def initialize_weights(module: nn.Module, conventions: Conventions = TODAY) -> None:
    """Draw every convolution and dense kernel within ``module`` anew and zero the biases.

    He's normal initialisation (fan in) for layers that feed a ReLU, or the original's, which is
    Keras' default: Glorot's uniform.
    """
    draw = _KERNELS[conventions.initial_kernels]
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            draw(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
