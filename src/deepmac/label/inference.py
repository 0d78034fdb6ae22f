"""Masks of all parts that are not on disk yet, by Lightning's ``predict`` on any devices."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator, XLAAccelerator
from torch.utils.data import DataLoader

from deepmac.errors import DataError, UserError
from deepmac.label.loading import BatchDataset, LabelBatch
from deepmac.label.masks.records import Floats, MaskOptions, mask_records
from deepmac.label.masks.turned import Turned
from deepmac.label.parts import Parts, writable
from deepmac.label.plan import OnError, Plan
from deepmac.label.progress import Progress
from deepmac.label.stopping import leave_quietly
from deepmac.nn.inference import resolved
from deepmac.nn.network import SegmentationNetwork
from deepmac.predict.letterbox import InputSpec
from deepmac.predict.masks import PictureMasks, box_probabilities
from deepmac.predict.runtime import Runtime, prepared_network

STAGES = ("decode", "backbone", "heads", "paste", "write")


@dataclass
class Stopwatch:
    """Seconds by stage; a stage on an accelerator is waited for only where ``exact``."""

    exact: bool = False
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def laps(self) -> Callable[[str], None]:
        """A function that books the time since its last call on a stage."""
        last = time.perf_counter()

        def lap(stage: str) -> None:
            nonlocal last
            if self.exact and torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.perf_counter()
            self.seconds[stage] += now - last
            last = now

        return lap


class PartWriter:
    """Pastes masks and writes parts, batch after batch."""

    def __init__(
        self,
        parts: Parts,
        plan: Plan,
        options: MaskOptions,
        network: SegmentationNetwork,
        on_error: OnError,
        spec: InputSpec,
    ) -> None:
        self.spec = spec
        self.parts, self.plan, self.options = parts, plan, options
        self.network, self.on_error = network, on_error
        self._file: IO[str] | None = None
        self._stack = ExitStack()
        self._failed = False

    def write(self, batch: LabelBatch, probabilities: Floats, watch: Stopwatch) -> tuple[int, int]:
        """Add a batch to its part; returns how many images and masks it held.

        Raises:
            DataError: a picture could not be read and ``on_error`` is ``stop``.
        """
        if self._failed:  # batches behind a failed one would make parts with a gap
            return 0, 0
        self._failed = True
        with writable(self.parts.folder):
            done = self._write(batch, probabilities, watch)
        self._failed = False
        return done

    def _write(self, batch: LabelBatch, probabilities: Floats, watch: Stopwatch) -> tuple[int, int]:
        if batch.errors and self.on_error == "stop":
            sentence = batch.errors[0][2]
            raise DataError(
                f"{sentence[:-1]}; finished work is kept: mend it and start again, or give "
                "--on-error skip"
            )
        lap = watch.laps()
        if self._file is None:
            tasks = self.plan.parts[batch.part]
            self._file = self._stack.enter_context(self.parts.writing(batch.part, tasks))
        for task, kind, sentence in batch.errors:
            _write_line(self._file, {"rows": task.rows.tolist(), "kind": kind, "error": sentence})
        found = batch_records(self.network, batch, probabilities, self.options, self.spec)
        for row, record in found:
            lap("paste")
            _write_line(self._file, {"row": row, **record})
            lap("write")
        if batch.last:
            self._file = None
            self._stack.pop_all().close()
            lap("write")
        return batch.finished, len(probabilities)

    def abandon(self, error: BaseException) -> None:
        """Drop an unfinished part."""
        self._failed, self._file = True, None
        with suppress(Exception):
            self._stack.pop_all().__exit__(type(error), error, None)


def batch_records(
    network: SegmentationNetwork,
    batch: LabelBatch,
    probabilities: Floats,
    options: MaskOptions,
    spec: InputSpec,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The row and the record of every box of a batch.

    Args:
        network: that was asked.
        batch: what about.
        probabilities: (M, P, P) its answers.
        options: of the masks.
        spec: how it was shown pictures.
    """
    start = 0
    for number, (task, boxes) in enumerate(zip(batch.tasks, batch.asked, strict=True)):
        mine = probabilities[start : start + len(boxes)]
        start += len(boxes)
        masks = PictureMasks.of(
            network,
            mine,
            boxes,
            task.size[::-1],
            threshold=options.threshold,
            about=str(task.path),
            refine=options.refine,
            picture=batch.pictures[number] if batch.pictures else None,
            places=batch.places[number] if batch.pictures else None,
            spec=spec,
            points=batch.clicks[number] if network.takes_clicks else None,
        )
        turned = Turned(boxes, task.degrees) if task.degrees.any() else None
        yield from zip(task.rows.tolist(), mask_records(masks, options, turned), strict=True)


def batch_crops(
    network: SegmentationNetwork,
    batch: LabelBatch,
    batch_size: int,
    device: torch.device,
    laps: Callable[[], Callable[[str], None]] = lambda: lambda stage: None,
) -> Floats:
    """(M, P, P) probabilities of all boxes of a batch.

    Views whose inputs have one shape go through the network together, ``batch_size`` at most.
    """
    counts = batch.valid.sum(dim=1).tolist()
    found: dict[int, Floats] = {}
    for some in _of_one_shape(batch.images, batch_size):
        longest = max(counts[view] for view in some)
        if not longest:
            continue
        crops = box_probabilities(
            network,
            torch.cat([batch.images[view] for view in some]).to(device),
            batch.boxes[some, :longest].to(device),
            batch.valid[some, :longest].to(device),
            laps(),
            _clicks(network, batch, some, longest, device),
        )
        ends = np.cumsum([counts[view] for view in some])[:-1]
        found |= zip(some, np.split(crops, ends), strict=True)
    if not found:
        return np.zeros((0, 1, 1), dtype=np.float32)
    whole: Floats = np.concatenate([found[view] for view in sorted(found)])
    return whole


def _of_one_shape(images: Sequence[torch.Tensor], most: int) -> Iterator[list[int]]:
    """The numbers of images, those of one shape together."""
    by_shape: dict[torch.Size, list[int]] = {}
    for number, image in enumerate(images):
        by_shape.setdefault(image.shape, []).append(number)
    for numbers in by_shape.values():
        yield from (numbers[i : i + most] for i in range(0, len(numbers), most))


def _clicks(
    network: SegmentationNetwork,
    batch: LabelBatch,
    some: list[int],
    boxes: int,
    device: torch.device,
) -> torch.Tensor | None:
    """Those of some views, of a network that takes any."""
    if batch.points is None or not network.takes_clicks:
        return None
    return batch.points[some, :boxes].to(device)


class LabelModule(pl.LightningModule):
    """The network with its loader and writer; each process does every n-th part.

    Args:
        network: in eval mode.
        plan: what is to be done.
        parts: where it goes.
        writer: of the records.
        progress: told of every batch.
        watch: times the stages.
        loader: arguments of :class:`BatchDataset`.
        workers: processes that decode.
        restart: see :meth:`Parts.open`.
        shard: (i, n): every n-th part, from the i-th on.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        plan: Plan,
        parts: Parts,
        writer: PartWriter,
        progress: Progress,
        watch: Stopwatch,
        *,
        loader: dict[str, Any],
        workers: int,
        restart: bool,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__()
        # A process may have nothing to do: few images, or a job that goes on.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.shard = shard
        self.network = network
        self.plan, self.parts, self.writer = plan, parts, writer
        self.progress, self.watch = progress, watch
        self.loader, self.workers, self.restart = loader, workers, restart
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[Future[tuple[int, int]]] = []

    def setup(self, stage: str) -> None:
        """The first process opens the folder before any other looks into it."""
        if self.trainer.is_global_zero:
            self.parts.open(restart=self.restart, shard=self.shard)
        self.trainer.strategy.barrier()

    def predict_dataloader(self) -> DataLoader[LabelBatch]:
        """This process's unfinished parts."""
        rank, world = self.trainer.global_rank, self.trainer.world_size
        first, every = self.shard[0] + self.shard[1] * rank, self.shard[1] * world
        mine = {n: self.plan.parts[n] for n in sorted(self.plan.parts)[first::every]}
        left = {n: tasks for n, tasks in mine.items() if not self.parts.is_done(n, tasks)}
        self.progress.start(mine, left)
        dataset = BatchDataset(left, **self.loader)
        workers = min(self.workers, len(dataset))
        return DataLoader(
            dataset,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            collate_fn=None,
            worker_init_fn=leave_quietly,
        )

    def transfer_batch_to_device(self, batch: LabelBatch, *_: Any, **__: Any) -> LabelBatch:
        """Its tensors go to the device where they are used."""
        return batch

    @torch.inference_mode()
    def predict_step(self, batch: LabelBatch, batch_idx: int) -> None:
        """Run the network; masks are pasted meanwhile, one batch behind."""
        self.watch.seconds["decode"] += batch.seconds
        crops = batch_crops(
            self.network, batch, self.loader["batch_size"], self.device, self.watch.laps
        )
        self._finish(2)
        self._waiting.append(self._thread.submit(self.writer.write, batch, crops, self.watch))

    def on_predict_end(self) -> None:
        """What this process had to do is on disk."""
        self._finish(0)
        self.progress.stop()

    def teardown(self, stage: str) -> None:
        """Everything is on disk, everywhere; a process without batches comes here alone."""
        self.trainer.strategy.barrier()

    def close(self, error: BaseException | None = None) -> None:
        """Stop the thread; after an error drop the part at hand."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        if error is not None:
            self.writer.abandon(error)
        self.progress.stop()

    def _finish(self, leave: int) -> None:
        while len(self._waiting) > leave:
            self.progress.advance(*self._waiting.pop(0).result())


def label_precision(trainer: Mapping[str, Any]) -> str:
    """What the convolutions compute in: ``32-true``, ``bf16`` or another name of Lightning's.

    Args:
        trainer: as of ``label_parts``.
    """
    given = str(trainer.get("precision") or "32")
    if given in ("bf16", "bf16-true", "bf16-mixed"):
        return "bf16"
    if given == "auto":
        accelerator = str(trainer.get("accelerator", "cpu"))
        on_card = accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available()
        given = resolved("auto", torch.device("cuda" if on_card else "cpu"))
        return "bf16" if given == "bf16" else "32-true"
    return "32-true" if given in ("32", "32-true") else given


def device_of(trainer: pl.Trainer) -> torch.device:
    """Which kind of device a trainer will move its module to."""
    kinds = {CUDAAccelerator: "cuda", MPSAccelerator: "mps", XLAAccelerator: "xla"}
    for accelerator, kind in kinds.items():
        if isinstance(trainer.accelerator, accelerator):
            return torch.device(kind)
    return torch.device("cpu")


def label_parts(
    network: SegmentationNetwork,
    plan: Plan,
    parts: Parts,
    options: MaskOptions,
    *,
    spec: InputSpec,
    batch_size: int = 4,
    workers: int = 0,
    on_error: OnError = "stop",
    restart: bool = False,
    shard: tuple[int, int] = (0, 1),
    tiles: bool = False,
    runtime: Runtime = "torch",
    trainer: dict[str, Any] | None = None,
    watch: Stopwatch | None = None,
    quiet: bool = False,
) -> bool:
    """Bring every part onto disk.

    Args:
        network: in eval mode.
        plan: what is to be done.
        parts: where it goes.
        options: of the masks.
        spec: how the network is shown pictures.
        batch_size: images that go through the backbone together, where their inputs have one shape.
        workers: processes that decode pictures; 0 decodes in this one.
        on_error: what an unreadable picture does.
        restart: see :meth:`Parts.open`.
        shard: (i, n): every n-th part, from the i-th on.
        tiles: see :func:`deepmac.label.views.views_of`.
        runtime: what computes the backbone; see :func:`deepmac.predict.runtime.prepared_network`.
        trainer: arguments of Lightning's ``Trainer`` (devices and the like); ``precision`` may also
            be one of ``deepmac.nn.inference.Precision``.
        watch: gets the seconds of each stage.
        quiet: no progress.

    Returns:
        Whether this process is the first, the one that goes on to merge.

    Raises:
        DataError, UserError: what was wrong with a picture, the folder or the model.
    """
    _quiet_lightning()
    watch = watch or Stopwatch()
    settings: dict[str, Any] = {"accelerator": "cpu", "devices": 1, **(trainer or {})}
    precision = label_precision(settings)
    if precision in ("32-true", "bf16"):
        settings.pop("precision", None)
    runner = pl.Trainer(
        **settings,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=str(parts.folder),
    )
    network = prepared_network(
        network, "bf16" if precision == "bf16" else "32", runtime, runs_on=device_of(runner)
    )
    if device_of(runner).type == "xla":
        spec = spec.squared()
    module = LabelModule(
        network,
        plan,
        parts,
        PartWriter(parts, plan, options, network, on_error, spec),
        Progress(quiet=quiet),
        watch,
        loader={
            "batch_size": batch_size,
            "spec": spec,
            "box_margin": options.box_margin,
            "keep_pictures": options.refine != "none",
            "tiles": tiles,
        },
        workers=workers,
        restart=restart,
        shard=shard,
    )
    try:
        runner.predict(module, return_predictions=False)
    except BaseException as error:
        module.close(error)
        parts.release()
        if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
            raise UserError(
                "a process that decodes pictures was killed, usually because the memory is full: "
                "give fewer --workers; finished work is kept, start again to go on"
            ) from error
        raise
    module.close()
    return bool(runner.is_global_zero)


def _write_line(file: IO[str], record: dict[str, Any]) -> None:
    file.write(json.dumps(record, separators=(",", ":")) + "\n")


def _quiet_lightning() -> None:
    """Its notes on devices and loaders are about training."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        for part in ("", ".utilities.rank_zero", ".utilities.distributed"):
            logging.getLogger(name + part).setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*DataLoader.*zero.*",
        ".*predict returned None.*",
        ".*isinstance.treespec, LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message=message)
