"""What ``trainer=tpu`` and ``tpu_pod`` hand to Lightning: devices, precision, strategies."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning_fabric.plugins import XLACheckpointIO
from pytorch_lightning.accelerators import XLAAccelerator
from pytorch_lightning.plugins import XLAPrecision
from pytorch_lightning.strategies import SingleDeviceXLAStrategy
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor

from deepmac.errors import ConfigError
from deepmac.lightning.checkpoint_files import CheckpointFiles
from deepmac.lightning.private import LaunchedStrategy, XLALauncher
from deepmac.lightning.xla import device as xla
from deepmac.lightning.xla import preemption


class XLADevices(XLAAccelerator):
    """TPU cores; where ``PJRT_DEVICE=CPU`` is set, the CPU through the same compiler.

    Raises:
        ConfigError: torch_xla is not installed, or there is no such device.
    """

    def __init__(self) -> None:
        require_xla()
        super().__init__()

    @staticmethod
    def parse_devices(devices: int | str | list[int]) -> int | list[int]:
        """One device, all of them, or one by its index.

        Raises:
            ConfigError: any other number.
        """
        count = xla.device_count()
        text = str(devices).strip(" []")
        if text.isdigit():
            number = int(text)
            if isinstance(devices, list) and number < count:
                return [number]
            if not isinstance(devices, list) and number in (1, count):
                return number
        raise ConfigError(
            f"trainer.devices={devices}: XLA takes 1, all {count} devices of this machine (auto), "
            "or one by its index ([0])"
        )

    @staticmethod
    def get_parallel_devices(devices: int | list[int]) -> list[torch.device]:
        """Placeholders: the real ones exist only within the processes of the run."""
        chosen = range(devices) if isinstance(devices, int) else devices
        return [torch.device("xla", index) for index in chosen]

    @staticmethod
    def auto_device_count() -> int:  # type: ignore[override]
        """See ``xla.device_count``."""
        return xla.device_count()

    @staticmethod
    def is_available() -> bool:  # type: ignore[override]
        """Whether there is any."""
        return xla.device_count() > 0


def require_xla() -> None:
    """Stop where nothing could run.

    Raises:
        ConfigError: torch_xla is not installed, or there is no device for it.
    """
    if not xla.installed():
        raise ConfigError(
            "trainer=tpu needs torch_xla: install deepmac[tpu] (deepmac[xla] for trials on a CPU) "
            "into an environment of its own, it goes with torch 2.9 alone"
        )
    if not xla.device_count():
        raise ConfigError(
            "this machine has no TPU: start the run on a TPU host, or set PJRT_DEVICE=CPU for a "
            "trial on the CPU"
        )


def take_precision(trainer: Namespace) -> None:
    """Turn ``precision: bf16-mixed`` of a trainer on XLA into ours: Lightning knows none there.

    Args:
        trainer: settings about to be built, changed in place.

    Raises:
        ConfigError: another precision, or nothing to run on.
    """
    accelerator = trainer.get("accelerator")
    if accelerator == "tpu":
        raise ConfigError("trainer.accelerator=tpu alone lacks what a TPU needs: use trainer=tpu")
    if getattr(accelerator, "class_path", None) != f"{__name__}.{XLADevices.__name__}":
        return
    require_xla()
    precision = trainer.get("precision")
    if precision == "bf16-mixed":
        ours = Namespace(class_path=f"{__name__}.{XLAMixedPrecision.__name__}")
        trainer.precision = None
        trainer.plugins = [*(trainer.get("plugins") or []), ours]
    elif precision not in (None, "32-true", "32"):
        raise ConfigError(precision_refused(precision))


class XLAMixedPrecision(XLAPrecision):
    """bfloat16 convolutions and products; weights, boxes, targets and losses stay float32.

    Lightning's own ``bf16-true`` keeps everything in bfloat16, where pixel coordinates above 256
    lose their last digits.
    """

    def __init__(self) -> None:
        super().__init__("32-true")
        self.precision = "bf16-mixed"  # type: ignore[assignment]

    def forward_context(self) -> torch.autocast:  # type: ignore[override]
        """Around every step; the criterion leaves it by itself."""
        return torch.autocast("xla", dtype=torch.bfloat16)


class XLACheckpointFiles(CheckpointFiles, XLACheckpointIO):
    """Plain CPU tensors, which any torch reads."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """As on other devices."""
        super().save_checkpoint(xla.host_tensors(checkpoint), path, storage_options)


class OneXLADevice(SingleDeviceXLAStrategy):
    """A single core, fed ahead of time.

    Args:
        device: its index.
        cache_dir: keep compiled graphs in this folder, where the backend can.
    """

    def __init__(self, device: int = 0, cache_dir: str | None = None) -> None:
        require_xla()
        super().__init__(device=device, checkpoint_io=XLACheckpointFiles())
        self.cache_dir = cache_dir

    def setup_environment(self) -> None:
        """Before anything is compiled."""
        keep_graphs(self.cache_dir)
        super().setup_environment()

    def setup(self, trainer: Any) -> None:
        """See ``settle_precision``."""
        settle_precision(self.precision_plugin)
        super().setup(trainer)

    def process_dataloader(self, dataloader: object) -> Any:
        """Read ahead and upload while the device computes."""
        return _on_device(dataloader, self.root_device)


class XLAReplicas(LaunchedStrategy):
    """One process per core, on every host of a pod slice; the same command runs on each host.

    Args:
        cache_dir: keep compiled graphs in this folder, where the backend can.
    """

    def __init__(self, cache_dir: str | None = None) -> None:
        require_xla()
        super().__init__(checkpoint_io=XLACheckpointFiles())
        self.cache_dir = cache_dir

    def setup_environment(self) -> None:
        """Before anything is compiled, Lightning's first barrier included."""
        keep_graphs(self.cache_dir)
        super().setup_environment()

    def setup(self, trainer: Any) -> None:
        """See ``settle_precision``."""
        settle_precision(self.precision_plugin)
        super().setup(trainer)

    def setup_distributed(self) -> None:
        """Lightning refuses one device here; it works, and is how the path is tried on a CPU."""
        rank_zero_only.rank = self.global_rank  # type: ignore[attr-defined]

    def process_dataloader(self, dataloader: object) -> Any:
        """Read ahead and upload while the device computes."""
        return _on_device(dataloader, self.root_device)

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """Objects may be of different sizes on different replicas (Lightning's must not)."""
        if isinstance(obj, Tensor) or not self.has_launched or self.world_size == 1:
            return super().broadcast(obj, src) if isinstance(obj, Tensor) else obj
        payload = pickle.dumps(obj) if self.global_rank == src else b""
        return pickle.loads(xla.gather_bytes(payload)[src])

    def make_launcher(self) -> XLALauncher:
        """One that knows what stops a run."""
        return _Launcher(self)


class _Launcher(XLALauncher):
    """Passes SIGTERM on to the processes it starts, and lets them react to what stops them."""

    def launch(self, function: Any, *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        if self.num_processes > 1:
            function = _Reacting(function)
        with preemption.noticed():
            return super().launch(function, *args, trainer=trainer, **kwargs)


class _Reacting:
    """A trainer's function whose callbacks hear of an exception where it happened.

    Lightning tells only the process that was started, which has neither network nor optimizer.
    """

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.function(*args, **kwargs)
        except BaseException as error:
            trainer = self.function.__self__
            for callback in trainer.callbacks:
                callback.on_exception(trainer, trainer.lightning_module, error)
            raise


def keep_graphs(folder: str | None) -> None:
    """Read and write compiled graphs in a folder of this process's own: they name its device."""
    if folder is not None:
        path = Path(os.path.expanduser(folder)).absolute() / f"process_{xla.process_index()}"
        path.mkdir(parents=True, exist_ok=True)
        xla.initialize_cache(str(path))


def settle_precision(plugin: XLAPrecision) -> None:
    """Say what float32 means.

    Raises:
        ConfigError: a precision that would ruin coordinates.
    """
    if plugin.precision not in ("32-true", "bf16-mixed"):
        raise ConfigError(precision_refused(plugin.precision))
    if plugin.precision == "32-true":
        xla.exact_float32_products()


def precision_refused(precision: str) -> str:
    """One sentence about a precision that XLA does not get."""
    return (
        f"trainer.precision={precision} on XLA would round box coordinates, targets and weights, "
        "not only the convolutions: use bf16-mixed or 32-true"
    )


class DeviceLoader:
    """A loader whose batches are uploaded ahead, and whose errors reach the reader.

    torch_xla's reading thread ends an epoch quietly when the data set raises; here the error
    comes out where the batch was asked for.

    Args:
        loader: a torch DataLoader.
        device: where batches go.
    """

    def __init__(self, loader: Any, device: torch.device) -> None:
        self._source = _Remembering(loader)
        self._prefetched = xla.prefetched(self._source, device)
        self.dataset = loader.dataset
        self.batch_sampler = getattr(loader, "batch_sampler", None)  # Lightning sets its epoch

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Any]:
        self._source.error = None
        yield from self._prefetched
        if self._source.error is not None:
            raise self._source.error


class _Remembering:
    """A loader that keeps what it raised."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.error: BaseException | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.loader
        except Exception as error:  # ends the reading thread in peace
            self.error = error


def _on_device(loader: Any, device: torch.device) -> Any:
    return loader if isinstance(loader, DeviceLoader) else DeviceLoader(loader, device)
