"""``data.batch_size=auto``: as many images as a training step has room for on a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning.utilities.memory import is_oom_error

from deepmac.data.batch import Batch
from deepmac.errors import ConfigError
from deepmac.lightning.console import say
from deepmac.lightning.datamodule import CocoDataModule
from deepmac.lightning.optim.optimizer import build_optimizer
from deepmac.nn.replicas import ALONE

WITHOUT_A_GPU = 8
_ROOM = 0.9
"""Share of a GPU's room that the largest step may take."""


def choose_batch_size(module: Any, data: CocoDataModule, device: torch.device, images: int) -> int:
    """Images per device and step, said in a line.

    Steps of growing batches are tried on the GPU, each of them full of the training image with the
    most objects, until one does not fit: no step of the training is larger.

    Args:
        module: the ``SegmentationModule`` that will be trained; it is left as it was.
        data: read already.
        device: that it will be trained on.
        images: no more than these, the device's share of an epoch.

    Raises:
        ConfigError: there is no room for a single image.
    """
    if device.type != "cuda":
        size = min(WITHOUT_A_GPU, max(1, images))
        say(f"data.batch_size=auto: {size} (only on a GPU is it tried out what fits)")
        return size
    with torch.random.fork_rng(devices=[device]):  # the run's numbers are those of a given size
        trial = Trial(module, data, device)
        try:
            room = _ROOM * room_on(device)
            size = largest(lambda count: trial.peak(count) <= room, most=images)
            used = trial.peak(size)
        finally:
            trial.end()
    total = torch.cuda.get_device_properties(device).total_memory
    if math.isinf(used):
        raise ConfigError(
            f"data.batch_size=auto: no step of one image fits into the GPU's {total / 1e9:.0f} GB "
            "or what others leave of them; try trainer.precision=bf16-mixed, a smaller "
            "data.image_size or a smaller network"
        )
    say(f"data.batch_size=auto: {size}, whose largest step takes {used / total:.0%} of the GPU")
    return size


def room_on(device: torch.device) -> int:
    """Bytes of a GPU that this process may take: other processes have theirs."""
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    allowed = int(total * torch.cuda.get_per_process_memory_fraction(device))
    return min(free + torch.cuda.memory_reserved(device), allowed)


def largest(fits: Callable[[int], bool], *, most: int) -> int:
    """The largest of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... up to ``most`` that fits; at least 1."""
    best, power = 1, 1
    while True:
        for size in sorted({power, power * 3 // 2}):
            if size > max(1, most) or (size > 1 and not fits(size)):
                return best
            best = max(best, size)
        power *= 2


class Trial:
    """Training steps of a network of the module's settings, which is gone afterwards.

    Args:
        module: see :func:`choose_batch_size`.
        data: see there.
        device: that the steps run on.
    """

    def __init__(self, module: Any, data: CocoDataModule, device: torch.device) -> None:
        self.module, self.data, self.device = module, data, device
        self._before = module.network, module.replicas
        given = module.network_arguments
        module.network_arguments = {**given, "weights": None}
        try:
            network: Any = module.make_network(len(data.class_map))
        finally:
            module.network_arguments = given
        if module.hparams["channels_last"]:
            network = network.to(memory_format=torch.channels_last)
        module.network, module.replicas = network.train(), ALONE
        module.to(device)
        self.optimizer = build_optimizer([{"params": list(network.parameters())}], module.hparams)

    def peak(self, count: int) -> float:
        """Bytes that a step of so many images takes; infinite where there is no room for it."""
        try:
            self._step(count)
            on_gpu = self.device.type == "cuda"
            return float(torch.cuda.max_memory_reserved(self.device)) if on_gpu else 0.0
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or is_oom_error(error)):
                raise
            return math.inf
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()  # what the step held ended with it, its error too

    def _step(self, count: int) -> None:
        batch = self.data.largest_batch(count)
        moved: Batch = {  # type: ignore[assignment]
            name: value.to(self.device) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        with self.module.trainer.precision_plugin.train_step_context():
            loss = self.module.compute_losses(moved)["loss"]
        loss.backward()
        self.optimizer.step()

    def end(self) -> None:
        """Leave the module as it was, and the memory empty."""
        self.module.network, self.module.replicas = self._before
        self.module.to("cpu")
        del self.optimizer
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
