"""One batch norm: a row mask, a sum over replicas, and the TensorFlow original's variants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepmac.nn.replicas import ALONE, Replicas


@dataclass(frozen=True)
class NormOptions:
    """What distinguishes one batch norm from another.

    Attributes:
        eps: added to the variance.
        momentum: share of the new batch in the running statistics (torch's convention).
        biased_running_var: the running variance takes the batch's biased variance.
        over_replicas: statistics are summed over the replicas of a training.
    """

    eps: float = 1e-5
    momentum: float = 0.1
    biased_running_var: bool = False
    over_replicas: bool = True


class BatchNorm2d(nn.Module):
    """Batch norm over (N, C, H, W) whose rows may be padding.

    Parameters and buffers are named as torch's, without ``num_batches_tracked``. Statistics are
    float32 (float64 for float64 input) whatever the input is.

    Attributes:
        replicas: who shares the batch; see :func:`deepmac.nn.replicas.share`.
        update_running: False leaves the running statistics alone in training.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, options: NormOptions | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.options = options or NormOptions()
        self.replicas: Replicas = ALONE
        self.update_running = True
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise ``x``.

        Args:
            x: (N, C, H, W) float. N may be 0.
            valid: (N,) bool. In training, rows that are False do not enter the statistics but
                are normalised with them; without any valid row the running statistics normalise
                and stay as they are. Ignored in eval mode.

        Returns:
            (N, C, H, W), dtype of ``x``.
        """
        if not self.training:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias,
                training=False, eps=self.options.eps,
            )  # fmt: skip
        values = x.shape[0] * x.shape[2] * x.shape[3]
        # F.batch_norm refuses a single value per channel.
        if valid is None and values > 1 and not self._sums_over_replicas():
            return self._plain(x, values)
        return self._masked(x, valid)

    def extra_repr(self) -> str:
        return f"{self.channels}, {self.options}"

    def _sums_over_replicas(self) -> bool:
        return self.replicas.count > 1 and self.options.over_replicas

    def _plain(self, x: Tensor, values: int) -> Tensor:
        """The fused kernel; into scratch buffers where it must not write the running ones."""
        options = self.options
        # torch_xla's kernel keeps the biased variance, torch's others the unbiased one.
        kernel_is_biased = x.device.type == "xla"
        if self.update_running and options.biased_running_var == kernel_is_biased:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias,
                training=True, momentum=options.momentum, eps=options.eps,
            )  # fmt: skip
        mean, var = torch.zeros_like(self.running_mean), torch.ones_like(self.running_var)
        out = F.batch_norm(
            x, mean, var, self.weight, self.bias, training=True, momentum=1.0, eps=options.eps
        )
        if self.update_running:
            unbiased = values / (values - 1)
            factor = unbiased if kernel_is_biased else 1 / unbiased
            self._update(mean, var * factor, options.momentum)
        return out

    def _masked(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """The same from sums, so that rows can be left out and replicas added up."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        wide = x.to(dtype)
        rows = None if valid is None else valid.reshape(-1, 1, 1, 1)
        if valid is None:
            count = wide.new_full((1,), float(x.shape[0]))
        else:
            count = valid.to(dtype).sum().reshape(1)
        count = count * (x.shape[2] * x.shape[3])

        def total(values: Tensor) -> Tensor:
            # where, not multiply: a NaN in a padding row must not spread.
            live = values if rows is None else torch.where(rows, values, 0.0)
            return live.sum(dim=(0, 2, 3))

        reduce = self.replicas.sum if self._sums_over_replicas() else ALONE.sum
        sums = reduce(torch.cat([total(wide), count]))
        count = sums[-1:].detach()
        some = count > 0
        divisor = count.clamp(min=1.0)
        # An empty batch has no statistics: the running ones keep its output finite.
        mean = torch.where(some, sums[:-1] / divisor, self.running_mean.to(dtype))
        centred = wide - mean.reshape(1, -1, 1, 1)
        squares = reduce(total(centred.square()))
        var = torch.where(some, squares / divisor, self.running_var.to(dtype))
        scale = torch.rsqrt(var + self.options.eps) * self.weight.to(dtype)
        out = centred * scale.reshape(1, -1, 1, 1) + self.bias.to(dtype).reshape(1, -1, 1, 1)
        if self.update_running:
            new_var = var.detach()
            if not self.options.biased_running_var:
                new_var = new_var * (count / (count - 1).clamp(min=1.0))
            momentum = torch.where(some, self.options.momentum, 0.0).to(self.running_mean.dtype)
            self._update(mean.detach(), new_var, momentum)
        return out.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, var: Tensor, momentum: float | Tensor) -> None:
        for running, new in ((self.running_mean, mean), (self.running_var, var)):
            running.add_((new.to(running.dtype) - running) * momentum)


@contextmanager
def running_statistics_frozen(module: nn.Module) -> Iterator[None]:
    """Within it, training forwards of ``module`` leave running statistics alone.

    For a forward that only repeats an earlier one, as activation checkpointing does.
    """
    before = [(norm, norm.update_running) for norm in _norms(module)]
    for norm, _ in before:
        norm.update_running = False
    try:
        yield
    finally:
        for norm, update in before:
            norm.update_running = update


def _norms(module: nn.Module) -> Iterator[BatchNorm2d]:
    return (child for child in module.modules() if isinstance(child, BatchNorm2d))
