"""Turns every validation into COCO metrics: logged, printed, and kept in ``metrics.json``."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from deepmac.evaluation import Evaluation, flatten_metrics, format_table
from deepmac.evaluation.average_precision import Backend
from deepmac.evaluation.results import ImageResult, write_results_json
from deepmac.files import write_atomically
from deepmac.lightning.console import terminal
from deepmac.lightning.xla import device as xla
from deepmac.nn.ranges import PositiveInt

T = TypeVar("T")
_FOUND = ("box/", "mask/")  # metrics of what a detector found


def monitored(metric: str = "mask/AP/all", *, detector: bool) -> str:
    """What a callback that watches ``metric`` watches in a network with or without a detector."""
    return metric if detector or not metric.startswith(_FOUND) else "mask_gt_box/mIoU/all"


_HEADLINES = {
    "box/AP/all": "box AP",
    "mask/AP/all": "mask AP",
    "mask_gt_box/mIoU/seen": "mIoU seen",
    "mask_gt_box/mIoU/unseen": "mIoU unseen",
}


class EvaluateCoco(Callback):
    """Scores the predictions of all replicas, every image once.

    Args:
        backend: library for COCO AP; all give the same numbers, ``auto`` takes the fastest
            installed.
        max_detections: COCO's maxDets.
    """

    def __init__(
        self,
        *,
        backend: Backend = "auto",
        max_detections: PositiveInt = 100,
    ) -> None:
        self.backend: Backend = backend
        self.max_detections = max_detections
        self.metrics: dict[str, Any] = {}
        self.step = -1
        self._evaluation: Evaluation | None = None

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start from nothing, with the checkpoint's own seen classes."""
        if self._evaluation is None:
            self._evaluation = Evaluation(
                trainer.datamodule.val_index,  # type: ignore[attr-defined]
                seen_category_ids=pl_module.class_map.masked_category_ids,  # type: ignore
                backend=self.backend,
                max_detections=self.max_detections,
                detector=pl_module.network.detector,  # type: ignore
            )
        self._evaluation.reset()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect."""
        assert self._evaluation is not None
        self._evaluation.merge([outputs["results"]])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather, score on the first replica, log everywhere."""
        assert self._evaluation is not None
        if trainer.sanity_checking:
            return
        states = gather(trainer, self._evaluation.state())
        flat: dict[str, float] = {}
        if trainer.is_global_zero:
            self._evaluation.merge(states)
            self.metrics = self._evaluation.compute()
            flat = {k: v for k, v in flatten_metrics(self.metrics).items() if v is not None}
        flat = trainer.strategy.broadcast(flat)
        self.step = trainer.global_step
        # Values are equal on all replicas already.
        on_host = {name: torch.tensor(value) for name, value in flat.items()}
        pl_module.log_dict(on_host, sync_dist=False, rank_zero_only=False)
        if trainer.is_global_zero:
            self._write(trainer)
            self._print(trainer, flat)

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def _write(self, trainer: pl.Trainer) -> None:
        path = Path(trainer.default_root_dir) / "metrics.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"step": self.step, "epoch": trainer.current_epoch, **self.metrics}
        write_atomically(path, json.dumps(content, indent=1) + "\n")

    def _print(self, trainer: pl.Trainer, flat: dict[str, float]) -> None:
        if trainer.state.fn == "fit":
            shown = (
                f"{said} {flat[name]:.3f}" for name, said in _HEADLINES.items() if name in flat
            )
            terminal.print(f"step {self.step}: {', '.join(shown)}")
            return
        terminal.print(format_table(self.metrics))
        if self.metrics["restricted"]:
            terminal.print(
                f"measured on {self.metrics['images']} of "
                f"{self.metrics['images_in_data_set']} validation images"
            )


class WriteResults(Callback):
    """``deepmac predict``: a COCO results json with the boxes and masks of every image.

    Args:
        filename: written into the run directory.
    """

    def __init__(self, *, filename: str = "predictions.json") -> None:
        self.filename = filename
        self._results: list[ImageResult] = []

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect."""
        self._results.extend(outputs)

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather and write, by image id."""
        everything = [r for part in gather(trainer, self._results) for r in part]
        self._results = []
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / self.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            everything.sort(key=lambda result: result["image_id"])
            index = getattr(trainer.datamodule, "predict_index", None)  # type: ignore[attr-defined]
            own_ids = None if index is None else index.text_ids
            count = write_results_json(path, everything, own_ids)
            terminal.print(f"{count} detections on {len(everything)} images written to {path}")


def gather(trainer: pl.Trainer, state: T) -> list[T]:
    """Every replica's value, on every replica."""
    if trainer.world_size == 1:
        return [state]
    if xla.runs_on(trainer):
        return [pickle.loads(part) for part in xla.gather_bytes(pickle.dumps(state))]
    states: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(states, state)
    return states
