"""``data.batch_size=auto``: how the largest batch is found, and that trying leaves no trace."""

import math

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepmac.data.shapes.data_set import write_shapes
from deepmac.lightning.batch_size import Trial, largest
from deepmac.lightning.datamodule import CocoDataModule
from deepmac.lightning.deepmac_module import DeepMACModule


@given(room=st.floats(0.5, 5000), most=st.integers(0, 3000))
def test_largest__is_within_the_room_and_two_thirds_of_it_or_more(room, most):
    asked = []
    size = largest(lambda count: asked.append(count) or count <= room, most=most)
    assert 1 <= size <= max(1, most) and size <= max(1, room)
    assert 2 * size >= min(math.floor(room), most) and 3 * size >= 2 * min(room, most) - 3
    assert sum(count > room for count in asked) <= 1, "one batch that does not fit is enough"


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A module and its data as they are when a trainer sets them up."""
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, num_train=12, num_val=2, size=64)
    data = CocoDataModule(root=str(folder), image_size=64, batch_size="auto", num_workers=0)
    module = DeepMACModule(
        backbone="hourglass_10", mask_head="hourglass10", head_channels=8, num_init_channels=4
    )
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, limit_val_batches=0, default_root_dir=folder,
        enable_model_summary=False,
    )  # fmt: skip
    return trainer, module, data


def test_auto__trains_on_a_cpu_with_eight_and_says_so(ready, capsys):
    trainer, module, data = ready
    trainer.fit(module, datamodule=data)
    assert data.hparams["batch_size"] == 8 and trainer.global_step == 1
    assert "data.batch_size=auto: 8" in capsys.readouterr().out


def test_trial__steps_on_the_fullest_picture_and_leaves_the_module_alone(ready, monkeypatch):
    trainer, module, data = ready
    if not trainer.global_step:  # where this test runs alone
        trainer.fit(module, datamodule=data)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    network, replicas = module.network, module.replicas
    trial = Trial(module, data, torch.device("cpu"))
    assert module.network is not network
    counts = data.train_index.table.objects_per_image()
    assert data.largest_batch(3)["images"].shape[0] == 3
    assert data.largest_batch(1)["boxes"].shape[1] <= counts.max()
    assert trial.peak(2) == 0.0  # a CPU's memory is not measured

    def no_room(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(module, "compute_losses", no_room)
    assert trial.peak(2) == math.inf
    trial.end()
    assert module.network is network and module.replicas is replicas
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
