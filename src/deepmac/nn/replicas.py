"""What the devices that train one network together do together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

Recompute = Callable[..., Tensor]
"""Calls its first argument with the others now, and again in the backward pass."""


def _itself(values: Tensor) -> Tensor:
    return values


@dataclass(frozen=True, eq=False)
class Replicas:
    """Devices that share a batch and average their gradients; losses and batch norms read it.

    Attributes:
        count: how many.
        sum: of a tensor over all of them, same shape, in a graph: its backward sums the gradient
            likewise. Every replica must call it equally often, one without objects too.
        recompute: instead of torch's activation checkpoint, which knows no XLA; None = torch's.
    """

    count: int = 1
    sum: Callable[[Tensor], Tensor] = _itself
    recompute: Recompute | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Replicas:
        return self  # a copy of a network is trained by the same devices


ALONE = Replicas()


def share(module: nn.Module, replicas: Replicas) -> None:
    """Tell every part of ``module`` that has an attribute ``replicas``."""
    for part in module.modules():
        if isinstance(getattr(part, "replicas", None), Replicas):
            part.replicas = replicas  # type: ignore[assignment]


def distributed_sum(values: Tensor) -> Tensor:
    """The sum over the processes of ``torch.distributed``, for :class:`Replicas`."""
    total: Tensor = _DistributedSum.apply(values)
    return total


class _DistributedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return _DistributedSum.forward(ctx, grad)
