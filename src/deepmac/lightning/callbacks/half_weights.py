"""A model folder in half precision that keeps up with the checkpoints of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import Callback

from deepmac.files import sweep_drafts
from deepmac.models.files import card_of, load_model, write_model


class HalfWeights(Callback):
    """Writes ``model.safetensors`` and ``config.yaml`` anew whenever ``last.ckpt`` was.

    The folder can be loaded at any moment, half as large as a float32 one and a sixth of a
    checkpoint: for ``load_model``, ``deepmac label`` and ``model.init_from``.

    Args:
        folder: relative to the run directory.
        checkpoint: the file that it follows.
    """

    def __init__(
        self, *, folder: str = "weights", checkpoint: str = "checkpoints/last.ckpt"
    ) -> None:
        self.folder, self.checkpoint = folder, checkpoint
        self._seen = 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What a resumed run finds has been written already."""
        self._seen = _changed(self._source(trainer))

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """The step before may have saved."""
        self._follow(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """After the last checkpoint of a training."""
        if stage == "fit":
            self._follow(trainer)

    def _source(self, trainer: pl.Trainer) -> Path:
        return Path(trainer.default_root_dir) / self.checkpoint

    def _follow(self, trainer: pl.Trainer) -> None:
        source = self._source(trainer)
        changed = _changed(source)
        if not trainer.is_global_zero or changed == self._seen:
            return
        self._seen = changed
        write_half(source, Path(trainer.default_root_dir) / self.folder)


def _changed(path: Path) -> float:
    return path.stat().st_mtime if path.is_file() else 0.0


def write_half(checkpoint: Path, folder: Path) -> None:
    """The network of a checkpoint as a model folder in half precision; an old one is replaced."""
    model = load_model(checkpoint)
    card = card_of(model)
    assert card is not None  # load_model gives one to every network
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    sweep_drafts(folder)
    write_model(folder, state, card)
