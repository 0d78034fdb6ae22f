"""Activations computed anew in the backward pass instead of kept: less memory, more time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deepmac.nn.norm import running_statistics_frozen
from deepmac.nn.replicas import Replicas


def recomputed(
    module: nn.Module,
    replicas: Replicas,
    function: Callable[..., Tensor],
    *inputs: Tensor | None,
) -> Tensor:
    """``function(*inputs)``, of which only the inputs are kept for the backward pass.

    Args:
        module: what ``function`` runs; its norms see each batch once.
        replicas: whose way of computing anew is used.
        function: deterministic.
        inputs: a tensor that requires a gradient first.
    """
    if torch.compiler.is_compiling():  # which repeats no side effects
        result: Tensor = checkpoint(function, *inputs, use_reentrant=False)
    elif replicas.recompute is not None:
        result = replicas.recompute(_FrozenLater(module, function), *inputs)
    else:
        result = checkpoint(
            function, *inputs, use_reentrant=False, preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), running_statistics_frozen(module)),
        )  # fmt: skip
    return result


class _FrozenLater:
    """The first call updates running statistics, later ones repeat it."""

    def __init__(self, module: nn.Module, function: Callable[..., Tensor]) -> None:
        self.module = module
        self.function = function
        self.context: AbstractContextManager[None] = nullcontext()

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        with self.context:
            result = self.function(*inputs)
        self.context = running_statistics_frozen(self.module)
        return result
