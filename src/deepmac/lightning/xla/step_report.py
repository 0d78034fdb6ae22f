"""What training steps say of themselves, kept on the device until somebody looks.

Reading a loss makes the host wait for the device. On XLA it happens every few steps only, so the
values and the first non-finite batch are carried along in the step's own graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Look(NamedTuple):
    """What one look at the device brings.

    Attributes:
        losses: of the last step, averaged over the replicas.
        bad_losses: this replica's losses of its first step that was not finite; empty without.
        bad_images: the image ids of that step.
        steps_ago: how many steps ago it was.
        any_bad: whether any replica had one.
        stop: whether any replica was told to stop.
    """

    losses: dict[str, float]
    bad_losses: dict[str, float]
    bad_images: list[int]
    steps_ago: int
    any_bad: bool
    stop: bool


class StepReport:
    """Accumulates one report per training step.

    Args:
        replicas: of the run.
        sum_over_replicas: of a small tensor, within the graph; not called for one replica.
    """

    def __init__(self, replicas: int, sum_over_replicas: Callable[[Tensor], Tensor]) -> None:
        self.replicas = replicas
        self.sum_over_replicas = sum_over_replicas
        self._names: list[str] = []
        self._numbers: Tensor | None = None
        self._images: Tensor | None = None

    def add(
        self, losses: Mapping[str, Tensor], image_ids: Tensor, *, stop: bool | None = None
    ) -> None:
        """Take in a step, without waiting for it.

        Args:
            losses: scalars, ``loss`` among them; the same names every time.
            image_ids: (B,) int64; the same B every time.
            stop: whether this process was told to stop; None where nobody tells it this way.
        """
        self._names = list(losses)
        count = len(losses)
        values = torch.stack([value.detach().float() for value in losses.values()])
        device = values.device
        if self._numbers is None or self._images is None:
            # Sent, not made there: a constant would change the first graph after every look.
            self._numbers = torch.zeros(2 * count + 4).to(device)
            self._images = torch.zeros(image_ids.shape, dtype=image_ids.dtype).to(device)
        before = self._numbers
        own_before, all_before, steps = before[-4], before[-3], before[-1]
        bad = (~torch.isfinite(losses["loss"].detach())).float()
        first = (bad > 0) & (own_before == 0)
        told = bad.new_zeros(1) if stop is None else torch.tensor([float(stop)]).to(device)
        shared = torch.cat([values, bad[None], told])
        if self.replicas > 1:
            shared = self.sum_over_replicas(shared)
        self._images = torch.where(first, image_ids, self._images)
        self._numbers = torch.cat(
            [
                shared[:count] / self.replicas,
                torch.where(first, values, before[count : 2 * count]),
                torch.where(first, steps + 1, own_before)[None],
                (all_before + shared[count])[None],
                shared[count + 1 :],
                (steps + 1)[None],
            ]
        )

    def tensors(self) -> tuple[Tensor, Tensor]:
        """What ``read`` takes, still on the device; the report starts anew."""
        assert self._numbers is not None and self._images is not None, "no step was added"
        taken = self._numbers, self._images
        self._numbers = self._images = None
        return taken

    @property
    def empty(self) -> bool:
        """Whether no step was added since the last look."""
        return self._numbers is None

    def read(self, numbers: Tensor, images: Tensor) -> Look:
        """Make sense of ``tensors``, by now on the CPU."""
        count = len(self._names)
        values = numbers.tolist()
        at, any_bad, told, steps = values[2 * count :]
        bad = dict(zip(self._names, values[count : 2 * count], strict=True)) if at else {}
        return Look(
            losses=dict(zip(self._names, values[:count], strict=True)),
            bad_losses=bad,
            bad_images=images.tolist() if at else [],
            steps_ago=int(steps - at) if at else 0,
            any_bad=any_bad > 0,
            stop=told > 0,
        )
