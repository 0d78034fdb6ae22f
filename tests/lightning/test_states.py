"""A checkpoint whose states have other types is refused before a step is taken."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from deepmac.lightning.callbacks.resumption import Resumption
from deepmac.lightning.states import check_callbacks, check_training

ADAM = ("optimizer_states", 0)
DAMAGES: list[tuple[tuple[Any, ...], Any]] = [
    (("global_step",), "3"),
    (("epoch",), -1),
    (("loops",), 5),
    (("loops", "fit_loop", "epoch_loop.batch_progress", "total", "ready"), "a"),
    (("loops", "fit_loop", "epoch_progress", "current", "completed"), 0.5),
    (("loops", "fit_loop", "epoch_progress", "total", "started"), 10**30),
    ((*ADAM, "param_groups", 0, "betas"), 5),
    ((*ADAM, "param_groups", 0, "lr"), 10**400),
    ((*ADAM, "param_groups", 0, "lr"), 1e300),
    ((*ADAM, "param_groups", 0), {"params": [0, 1]}),
    ((*ADAM, "param_groups", 0, "amsgrad"), None),
    ((*ADAM, "state"), []),
    ((*ADAM, "state", 0, "exp_avg"), 5),
    ((*ADAM, "state", 1, "step"), None),
    ((*ADAM, "state", 1), []),
    (("lr_schedulers", 0, "last_epoch"), "a"),
    (("lr_schedulers", 0, "base_lrs"), []),
    (("callbacks", ModelCheckpoint(monitor="x").state_key, "best_k_models"), 5),
    (("callbacks", ModelCheckpoint(monitor="x").state_key, "best_model_score"), "a"),
    (("callbacks",), []),
]


class Line(LightningModule):
    """A line through points, with an optimizer and a schedule."""

    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = self.line(batch).square().mean()
        self.log("x", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class Checks(Callback):
    """Holds a checkpoint's states against a trainer's at the moments at which they are."""

    def __init__(self, checkpoint: dict[str, Any]) -> None:
        self.checkpoint = checkpoint

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_callbacks(trainer, self.checkpoint.get("callbacks"))
        check_training(trainer, self.checkpoint)


def trained(folder: Any, *callbacks: Callback, epochs: int = 1) -> Trainer:
    data = torch.utils.data.DataLoader(torch.ones(2, 1))
    best = ModelCheckpoint(folder, monitor="x", save_top_k=1)
    trainer = Trainer(
        max_epochs=epochs, callbacks=[best, *callbacks], logger=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(Line(), data)
    return trainer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("run")
    trained(folder).save_checkpoint(folder / "last.ckpt")
    content: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
    return content


def test_sound_states__are_taken(checkpoint, tmp_path):
    trained(tmp_path, Checks(checkpoint))


@pytest.mark.parametrize(
    ("place", "value"), DAMAGES, ids=[".".join(map(str, p)) for p, _ in DAMAGES]
)
def test_other_types__are_named(checkpoint, tmp_path, place, value):
    content = copy.deepcopy(checkpoint)
    holder: Any = content
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    named = next((str(key) for key in reversed(place) if isinstance(key, str)), "")
    named = "optimizer_states.state" if "state" in place else named
    with pytest.raises(ValueError, match=named):
        trained(tmp_path, Checks(content))


@pytest.mark.parametrize(
    "told", [5, {}, {"rows": "a", "pending": None}, {"rows": 1, "pending": "a", "scored": True}]
)
def test_rows_of_the_table__are_a_number_and_a_row(told):
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.state.fn = "fit"
    with pytest.raises(ValueError, match="deepmac_metrics is"):
        Resumption().on_load_checkpoint(trainer, Line(), {"deepmac_metrics": told})
