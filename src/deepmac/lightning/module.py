"""What every system shares under Lightning: classes, optimizer, evaluation, checkpoints."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

import pytorch_lightning as pl
import timm
import torch
from torch import Tensor, nn

from deepmac.class_map import ClassMap
from deepmac.data.batch import Batch
from deepmac.data.mask_targets import TargetSpec
from deepmac.errors import ConfigError
from deepmac.evaluation.results import ImageResult
from deepmac.lightning import position
from deepmac.lightning.arguments import check_arguments
from deepmac.lightning.batch_size import choose_batch_size
from deepmac.lightning.callbacks.evaluation import gather
from deepmac.lightning.checkpoint_files import NotFinite, not_finite_part
from deepmac.lightning.console import say
from deepmac.lightning.datamodule import CocoDataModule
from deepmac.lightning.flat import leaves
from deepmac.lightning.optim.optimizer import optimizer_path
from deepmac.lightning.private import trainer_of
from deepmac.lightning.xla import device as xla
from deepmac.lightning.xla.step_watch import LossNotFinite, StepWatch, not_finite, refuse_on_xla
from deepmac.losses.options import nested_names
from deepmac.models.checkpoint import parse_checkpoint
from deepmac.models.initial_weights import load_initial_weights
from deepmac.nn.allocator import keep_freed_memory
from deepmac.nn.backbones import CENTERNET_BGR, IMAGENET
from deepmac.nn.extensions import import_named
from deepmac.nn.inference import require_finite_weights
from deepmac.nn.network import SegmentationNetwork
from deepmac.nn.replicas import ALONE, Replicas, distributed_sum, share

NORMALIZATIONS = {"imagenet": IMAGENET, "centernet_bgr": CENTERNET_BGR}


class SegmentationModule(pl.LightningModule, ABC):
    """Thin glue between a network that makes masks and the trainer.

    A subclass keeps its constructor's arguments in ``hparams``, hands those that it does not know
    to its network (jsonargparse reads their names, types and defaults there), and says three
    things: which network they describe, what its losses on a batch are, and what it answers on a
    batch. Settings read here: ``num_classes, normalization, init_from, freeze, channels_last,
    compile``; those of the optimizer are read by :class:`~deepmac.lightning.training.Training`.

    Attributes:
        system: the name under which configurations and checkpoints know the subclass.
        network_arguments: of the network's constructor.
        tells_classes_apart: its detector learns background class by class.
        resamples_masks: mask targets need not have the size of the masks.
    """

    system: str
    tells_classes_apart = True
    resamples_masks = False
    network_arguments: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.network: SegmentationNetwork | None = None
        self.class_map: ClassMap | None = None
        self._fresh_weights = True
        self._watch: StepWatch | None = None
        self.replicas: Replicas = ALONE

    def keep_network_arguments(self, kind: type[SegmentationNetwork]) -> None:
        """Complete ``hparams`` by the arguments that the network's constructor fills in.

        Raises:
            ConfigError: a number out of its range.
            TypeError: it does not take one of those given.
        """
        parameters = inspect.signature(kind).parameters
        if unknown := self.network_arguments.keys() - parameters.keys():
            raise TypeError(f"{kind.__name__} takes no argument {', '.join(sorted(unknown))}")
        defaults = {name: entry.default for name, entry in parameters.items()}
        self.save_hyperparameters({**defaults, **self.hparams})
        # A subclass may hand everything on.
        kinds = [k for k in type(self).__mro__ if issubclass(k, SegmentationModule)]
        own = {name for k in kinds for name in inspect.signature(k).parameters}
        check_arguments("model", self.hparams, *kinds)
        check_arguments("model", {n: v for n, v in self.hparams.items() if n not in own}, kind)

    def import_extensions(self) -> None:
        """Import the classes that the settings name; for settings that a person typed.

        Raises:
            ConfigError: one cannot be imported.
        """
        names = (self.hparams["mask_head"], optimizer_path(self.hparams["optimizer"]))
        backbone = self.hparams["backbone"]
        try:
            import_named([*names, *([] if timm.is_model(backbone) else [backbone])])
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @abstractmethod
    def make_network(self, num_classes: int) -> SegmentationNetwork:
        """The network of ``network_arguments``.

        Raises:
            ValueError: settings that do not go together.
        """

    @property
    @abstractmethod
    def targets(self) -> TargetSpec:
        """What ``hparams`` want of the data, before there is a network."""

    @abstractmethod
    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Scalar losses of a batch; ``loss`` is what is minimised."""

    @abstractmethod
    def predict_results(self, batch: Batch) -> list[ImageResult]:
        """Detections of every image of a batch, and masks of the boxes it gives."""

    # Building the network: only once the classes are known.

    def configure_model(self) -> None:
        """Build the network for the trainer's data set; a checkpoint brings its own classes."""
        if self.network is None and trainer_of(self) is not None:
            self.build(self._data.class_map)
            check_image_size(self._built, self.hparams, self._data.hparams["image_size"])
            if self._data.hparams["mask_oversampling"] != 1 and not self.resamples_masks:
                raise ConfigError(
                    "data.mask_oversampling is for Deep-MARC: Deep-MAC learns from masks of its "
                    "own size, so set it to 1"
                )

    def build(self, class_map: ClassMap) -> None:
        """Create the network with one class slot per entry of ``class_map``."""
        settings = self.hparams
        if settings["num_classes"] not in (None, len(class_map)):
            raise ConfigError(
                f"model.num_classes={settings['num_classes']}, but the annotations define "
                f"{len(class_map)} categories: set model.num_classes=null to follow the data"
            )
        self.class_map = class_map
        try:
            with torch.device("cpu"):  # the same initial weights on every device
                network = self.make_network(len(class_map))
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if settings["init_from"] and self._fresh_weights:
            for line in load_initial_weights(
                network,
                settings["init_from"],
                normalization=settings["normalization"],
                class_map=class_map,
            ):
                say(line)
        _freeze(network, settings["freeze"])
        if settings["channels_last"]:
            network = network.to(memory_format=torch.channels_last)
        if settings["compile"]:
            self.compile_network(network)
        self.network = network
        self.train(self.training)  # Lightning leaves modes as they are: what is frozen says so

    def train(self, mode: bool = True) -> Self:
        """As every module's; the norms of what is frozen keep their statistics."""
        super().train(mode)
        if self.network is not None and self.hparams["freeze"] == "backbone":
            _pretrained_part(self._built).eval()
        elif self.network is not None and self.hparams["freeze"] in _HEADS:
            self._built.eval()
            _only_head(self._built, self.hparams["freeze"]).train(mode)
        return self

    def compile_network(self, network: SegmentationNetwork) -> None:
        """Put the parts that gain from it through ``torch.compile``."""
        network.backbone.compile()

    # Training.

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Losses of one batch; a loss that is not finite stops the run.

        Raises:
            LossNotFinite: it is not, on some replica, and on which images (on XLA: up to
                ``log_every_n_steps`` later).
        """
        losses = self.compute_losses(batch)
        if self._watch is not None:
            self._watch.step(losses, batch["image_ids"])
            return losses["loss"]
        finite = torch.isfinite(losses["loss"].detach())
        if self.replicas.count > 1:  # all replicas stop, or the others wait for this one
            finite = self.replicas.sum((~finite).float()) == 0
        if not finite:
            values = {name: value.item() for name, value in losses.items()}
            raise LossNotFinite(not_finite(values, batch["image_ids"].tolist(), self.global_step))
        self._show(losses, batch)
        return losses["loss"]

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        """Log what a look at the device brought, where not every step is looked at."""
        if self._watch is not None and (seen := self._watch.take()) is not None:
            # CPU tensors: Lightning would send plain numbers to the device and read them back.
            self._show({name: torch.tensor(value) for name, value in seen.items()}, batch)

    def _show(self, losses: Mapping[str, Tensor], batch: Batch) -> None:
        shown = {f"train/{name}": value.detach() for name, value in losses.items()}
        total = shown.pop("train/loss")
        size = len(batch["images"])
        self.log("train/loss", total, prog_bar=True, batch_size=size)
        self.log_dict(shown, prog_bar=True, batch_size=size)

    # Devices: several replicas, and XLA, where a step is not to be waited for.

    def setup(self, stage: str) -> None:
        """Refuse what XLA cannot do; there, watch the steps from the device."""
        self._watch = None
        self.replicas = ALONE
        if xla.runs_on(trainer_of(self)):
            self.replicas = Replicas(self.trainer.world_size, xla.all_reduce_sum, xla.recompute)
            refuse_on_xla(self.trainer, self.hparams)
            if stage == "fit":
                self._watch = StepWatch(self.trainer)
        elif trainer_of(self) is not None and self.trainer.world_size > 1:
            self.replicas = Replicas(self.trainer.world_size, distributed_sum)
        if stage == "fit" and self._has_data and self._data.hparams["batch_size"] == "auto":
            self._data.hparams["batch_size"] = self._batch_size()

    def _batch_size(self) -> int:
        """The same on every device; the first one tries it out."""
        trainer, size = self.trainer, 1
        images = len(self._data.train_index.images) // trainer.world_size  # type: ignore[union-attr]
        device = trainer.strategy.root_device
        if trainer.is_global_zero or device.type != "cuda":
            size = choose_batch_size(self, self._data, device, images)
        return size if trainer.world_size == 1 else int(trainer.strategy.broadcast(size))

    def on_fit_start(self) -> None:
        """Normalise losses and the statistics of our batch norms over all replicas."""
        share(self, self.replicas)
        if self.device.type == "cpu":
            keep_freed_memory()
        if self._built.detector and (about := self._unmarked()):
            say(about)
        norms = (part for part in self._built.modules() if isinstance(part, nn.BatchNorm2d))
        if self._watch is not None and self.replicas.count > 1 and any(norms):
            say("the timm backbone's own batch norms keep to the images of each XLA core")

    def _unmarked(self) -> str:
        """What images that are not exhaustive mean for a detector; "" where all are."""
        if not self._has_data:
            return ""
        table = self._data.train_index.table  # type: ignore[union-attr]
        number, missing = len(table.exhaustive), int((table.exhaustive == 0).sum())
        if not missing:
            return ""
        text = f"{missing} of {number} training images are not exhaustive: the detector learns "
        if missing < number or (self.tells_classes_apart and table.neg_count.any()):
            return text + "nothing from places on them where an unmarked object may be"
        return text + (
            "no background and will find too much; add exhaustive images, take unmarked places "
            "for background (data.exhaustive=true), or ask for masks in given boxes alone"
        )

    # Evaluation and prediction; callbacks turn the returned predictions into metrics and files.

    def on_validation_start(self) -> None:
        """Answers of weights that are not finite would mean nothing, or crash."""
        if self.device.type != "xla":  # where reading every weight costs graphs of its own
            require_finite_weights(self._built)

    def on_test_start(self) -> None:
        """As before validation."""
        self.on_validation_start()

    def on_predict_start(self) -> None:
        """As before validation."""
        self.on_validation_start()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, list[ImageResult]]:
        """``results`` for every image of the batch, masks of the given boxes included."""
        return {"results": self.predict_results(batch)}

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, list[ImageResult]]:
        """As validation."""
        return {"results": self.predict_results(batch)}

    def predict_step(self, batch: Batch, batch_idx: int) -> list[ImageResult]:
        """As validation; the batch may have no boxes."""
        return self.predict_results(batch)

    # Checkpoints carry the classes beside the weights.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store which category every class slot means, in plain values."""
        if self._watch is not None:
            self._watch.check()
            checkpoint.update(xla.host_tensors(dict(checkpoint)))
        self._refuse_not_finite(checkpoint)
        if (pace := self._pace()) is not None:
            checkpoint[position.KEY] = pace._asdict()
        checkpoint["deepmac_system"] = self.system
        # Loaders have no state, and a resumed run may have other loaders (on XLA).
        loops = checkpoint.get("loops", {}).get("fit_loop", {})
        loops.get("state_dict", {}).pop("combined_loader", None)
        if self.class_map is not None:
            checkpoint["deepmac_class_map"] = self.class_map.to_dict()
            checkpoint["deepmac_normalization"] = asdict(self._built.normalize.normalization)

    def _refuse_not_finite(self, checkpoint: dict[str, Any]) -> None:
        """What every replica does before the first of them writes a file."""
        part = not_finite_part(checkpoint)
        if self.replicas.count > 1:
            parts = gather(self.trainer, part)
            part = next((other for other in parts if other is not None), None)
        if part is not None:
            raise NotFinite(
                f"after step {self.global_step} the network is not finite ({part}): nothing was "
                "saved, earlier checkpoints stay as they are; lower model.lr and start anew, or go "
                "on from one of them"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the checkpoint's classes, or refuse those of another data set."""
        found = parse_checkpoint(checkpoint, source="this checkpoint")
        if found.system != self.system:
            raise ConfigError(
                f"this checkpoint is of the system {found.system!r}, not of {self.system!r}: "
                f"choose model={found.system}, or an experiment that does"
            )
        stored = found.class_map
        used = tuple(i for i in stored.category_ids if i not in stored.unused_category_ids)
        wider = (
            stored.unused_category_ids and self.class_map and self.class_map.category_ids == used
        )
        if self.network is None or wider:
            self._fresh_weights = False
            self.network_arguments["weights"] = None  # the checkpoint brings them
            self.build(stored)
        assert self.class_map is not None
        if stored.category_ids != self.class_map.category_ids:
            raise ConfigError(
                f"the checkpoint knows {len(stored)} classes (ids {_short(stored.category_ids)}), "
                f"the data set {len(self.class_map)} (ids {_short(self.class_map.category_ids)}): "
                "use the data set it was trained on, or start anew with model.init_from"
            )
        renamed = [
            (own, other)
            for own, other in zip(stored.names, self.class_map.names, strict=True)
            if own.strip().casefold() != other.strip().casefold()
        ]
        if renamed:
            own, other = renamed[0]
            raise ConfigError(
                f"{len(renamed)} classes of the checkpoint have other names in the data set, such "
                f'as "{own}", which is "{other}" there: use the data set it was trained on, or '
                "start anew with model.init_from"
            )
        self.class_map = stored
        self._built.normalize.set(found.normalization)
        self._check_shapes(checkpoint)
        pace = self._pace()
        if pace is not None and position.KEY in checkpoint and "loops" in checkpoint:
            position.moved(checkpoint["loops"], checkpoint[position.KEY], pace)

    def _check_shapes(self, checkpoint: dict[str, Any]) -> None:
        """Explicit settings win over a checkpoint's; say what differs, stop where it cannot fit."""
        told = _by_name(checkpoint.get("hyper_parameters", {}))
        ours = _by_name(self.hparams)
        differing = [
            f"{name} {told[name]!r} -> {value!r}"
            for name, value in ours.items()
            if name in told and told[name] != value and not name.startswith("_")
        ]
        state = self.state_dict()
        stored = checkpoint["state_dict"]
        fits = state.keys() == stored.keys() and all(
            state[key].shape == value.shape for key, value in stored.items()
        )
        if not fits:
            raise ConfigError(
                "the checkpoint's weights do not fit this network; settings that differ from "
                f"its own: {', '.join(differing) or 'none'}"
            )
        if differing:
            say(f"settings that differ from the checkpoint's: {', '.join(differing)}")

    def _pace(self) -> position.Pace | None:
        """While training."""
        if trainer_of(self) is None or self.trainer.state.fn != "fit":
            return None
        images = self._data.hparams["batch_size"] * self.trainer.world_size
        return position.Pace(images, self._data.batches_per_epoch)

    @property
    def _data(self) -> CocoDataModule:
        return self.trainer.datamodule  # type: ignore[attr-defined, no-any-return]

    @property
    def _has_data(self) -> bool:
        """Somebody's own trainer may bring loaders alone."""
        return isinstance(getattr(trainer_of(self), "datamodule", None), CocoDataModule)

    @property
    def _built(self) -> SegmentationNetwork:
        assert self.network is not None, "configure_model has not run"
        return self.network

    def _images(self, batch: Batch) -> Tensor:
        images = batch["images"]
        if self.hparams["channels_last"] and images.device.type != "xla":
            images = images.contiguous(memory_format=torch.channels_last)
        return images


def _by_name(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names; losses of an older version have today's."""
    losses = settings.get("losses")
    nested = {"losses": nested_names(losses)} if isinstance(losses, Mapping) else {}
    return dict(leaves({**settings, **nested}))


def check_image_size(network: SegmentationNetwork, settings: Mapping[str, Any], size: int) -> None:
    """Pictures of which the backbone can make whole maps.

    Raises:
        ConfigError: it cannot.
    """
    divisor = network.backbone.size_divisor
    if size % divisor:
        raise ConfigError(
            f"data.image_size={size} does not fit {settings['backbone']}: it must be one of the "
            f"multiples of {divisor}"
        )


def _pretrained_part(network: SegmentationNetwork) -> Any:
    """What a backbone's weights are for; a pyramid on it starts fresh and has to learn."""
    backbone = network.backbone
    return getattr(backbone, "body", getattr(backbone, "network", backbone))


_HEADS = {
    "all_but_click_head": ("a click head", "model.click_head=hourglass20"),
    "all_but_edge_head": ("an edge head", "model.edge_channels=16"),
}
"""Values of ``freeze`` that leave one head to learn: what it is, and the setting that makes it."""


def _only_head(network: SegmentationNetwork, freeze: str) -> nn.Module:
    what, setting = _HEADS[freeze]
    head = getattr(network, freeze.removeprefix("all_but_"), None)
    if head is None:
        raise ConfigError(
            f"model.freeze={freeze} leaves nothing to learn without {what}: set {setting}, say"
        )
    return head  # type: ignore[no-any-return]


def _freeze(network: SegmentationNetwork, part: str | None) -> None:
    if part == "backbone":
        _pretrained_part(network).requires_grad_(False)
    elif part in _HEADS:
        network.requires_grad_(False)
        _only_head(network, part).requires_grad_(True)


def _short(ids: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, ids[:6]))
    return f"{shown}, ..." if len(ids) > 6 else shown
