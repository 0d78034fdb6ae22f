"""Initial weights of convolutions and dense layers."""

from __future__ import annotations

from torch import nn

from deepmac.nn.norm import Compat


def initialize_weights(module: nn.Module, compat: Compat = None) -> None:
    """Draw every convolution and dense kernel within ``module`` anew and zero the biases.

    He's normal initialisation (fan in) for layers that feed a ReLU; with ``compat`` the
    original's, Keras' default: Glorot's uniform.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if compat is None:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
