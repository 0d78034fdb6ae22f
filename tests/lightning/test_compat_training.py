"""Trainings that follow the original: one setting, from the files to the optimizer."""

import json
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from pytorch_lightning import Trainer

from converted import converted
from deepmac.data.shapes.data_set import ensure_shapes
from deepmac.data.shapes.outlines import SHAPES
from deepmac.errors import ConfigError
from deepmac.lightning.datamodule import CocoDataModule
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.lightning.optim.tensorflow_adam import TensorFlowAdam
from networks import TINY

NAMES = tuple(shape.name for shape in SHAPES)


class Recording(DeepMACModule):
    """Keeps what it was given and what came out."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.batches, self.losses = [], []

    def compute_losses(self, batch):
        losses = super().compute_losses(batch)
        self.batches.append(batch)
        self.losses.append(losses)
        return losses


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return ensure_shapes(
        tmp_path_factory.mktemp("shapes"), num_train=6, num_val=2, size=64, difficulty="default"
    )


def data_of(pictures, **changes):
    settings = {"batch_size": 2, "val_batch_size": 2, "num_workers": 0, "image_size": 64}
    return CocoDataModule(root=str(pictures), **{**settings, **changes})


def train(module, data, folder, **changes):
    settings = {"max_steps": 2, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        **{**settings, **changes},
    )
    trainer.fit(module, datamodule=data)
    return trainer


@pytest.mark.parametrize("compat", ["tf_release", "tf_latest"])
@pytest.mark.parametrize("whole", [False, True])
def test_the_models_setting__reaches_data_losses_and_optimizer(pictures, tmp_path, compat, whole):
    module = Recording(**TINY["deepmac"], compat=compat, predict_full_resolution_masks=whole)
    data = data_of(pictures)  # nothing is said about compat here
    trainer = train(module, data, tmp_path)
    assert trainer.global_step == 2
    batch = module.batches[0]
    assert batch["images"].dtype == torch.float32
    assert batch["boxes"].shape == (2, 100, 4)
    side = 64 if whole else 32
    assert batch["mask_targets"].shape == (2, 100, side, side)
    assert isinstance(trainer.optimizers[0], TensorFlowAdam)
    assert trainer.optimizers[0].param_groups[0]["steps"] == 2
    assert data.targets.conventions.compat == compat
    assert all(torch.isfinite(losses["loss"]) for losses in module.losses)


def test_full_resolution__makes_the_data_follow_without_a_second_setting(pictures, tmp_path):
    module = Recording(**TINY["deepmac"], predict_full_resolution_masks=True)
    train(module, data_of(pictures), tmp_path, max_steps=1)
    assert module.batches[0]["mask_targets"].shape[2:] == (16, 16)


def test_slots_of_the_weights__are_kept_with_compat_alone(pictures, tmp_path):
    stored = converted(tmp_path / "model", ("unused 1", *NAMES, "unused 12"))
    renumbered = renumber(pictures, tmp_path / "data")
    for compat, slots in (("tf_release", len(NAMES) + 2), (None, len(NAMES))):
        module = Recording(**TINY["deepmac"], compat=compat, init_from=str(tmp_path / "model"))
        data = data_of(pictures, train_json=str(renumbered), val_json=str(renumbered))
        trainer = train(module, data, tmp_path, max_steps=1, limit_val_batches=0)
        assert len(module.class_map) == module.network.num_classes == slots
        labels = module.batches[0]["labels"][module.batches[0]["valid"]]
        assert labels.min() >= (1 if compat else 0)
        found = {i for r in module.predict_results(evaluated(data)) for i in r["category_ids"]}
        assert found and found <= set(range(2, len(NAMES) + 2)), "no unused id is reported"
        assert trainer.global_step == 1
    assert stored["heads.0.heatmap.2.bias"].shape == (len(NAMES) + 2,)


def renumber(pictures: Path, folder: Path) -> Path:
    """The training annotations with category ids one higher."""
    folder.mkdir()
    content = json.loads((pictures / "annotations" / "instances_train.json").read_text())
    for category in content["categories"]:
        category["id"] += 1
    for annotation in content["annotations"]:
        annotation["category_id"] += 1
    path = folder / "train.json"
    path.write_text(json.dumps(content))
    return path


def evaluated(data):
    data.setup("validate")
    return next(iter(data.val_dataloader()))


def test_jitter__moves_the_targets_box_alone_in_the_original(pictures, tmp_path):
    for compat, moves_features in (("tf_latest", False), (None, True)):
        module = Recording(**TINY["deepmac"], compat=compat)
        data = data_of(pictures, max_roi_jitter_ratio=0.2, roi_jitter_mode="expand")
        train(module, data, tmp_path, max_steps=1, limit_val_batches=0)
        batch = module.batches[0]
        assert not torch.equal(batch["mask_boxes"], batch["boxes"])
        with patch.object(module.network, "mask_logits", wraps=module.network.mask_logits) as spy:
            module.compute_losses(batch)
        used = spy.call_args_list[0].args[1]
        assert torch.equal(used, batch["mask_boxes" if moves_features else "boxes"])


def test_points__teach_masks_of_classes_without_any(pictures, tmp_path):
    content = json.loads((pictures / "annotations" / "instances_train.json").read_text())
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["points"] = [[x + width / 2, y + height / 2, 1], [x + 0.5, y + 0.5, 0]]
    path = tmp_path / "points.json"
    path.write_text(json.dumps(content))
    still = {"batch_size": 6, "flip": 0.0, "color": False, "crop_scale": None}
    data = data_of(pictures, train_json=str(path), **still)
    others = ("heatmap_weight", "size_weight", "offset_weight", "mask_weight")
    options = {"point_supervision": {"weight": 1.0}, **dict.fromkeys(others, 0.0)}
    module = Recording(
        **TINY["deepmac"], losses=options, lr=5e-3, warmup_steps=0, lr_schedule="constant"
    )
    train(module, data, tmp_path, max_steps=6, max_epochs=-1, limit_val_batches=0)
    losses = [float(one["point_supervision"].detach()) for one in module.losses]
    assert losses[-1] < 0.7 * losses[0]
    with pytest.raises(ConfigError, match="no annotation has points"):
        train(Recording(**TINY["deepmac"], losses=options), data_of(pictures), tmp_path)


def test_augmentations_of_others__do_not_go_with_the_original(pictures, tmp_path):
    data = data_of(pictures, scale_jitter=(0.1, 2.0))
    with pytest.raises(ConfigError, match="no augmentation of the original"):
        train(Recording(**TINY["deepmac"], compat="tf_release"), data, tmp_path)
