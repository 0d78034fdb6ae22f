"""Callbacks and what they are made of, each on the smallest real thing that it works on."""

import json
import os
import signal

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader

from deepmac.data.shapes.data_set import write_shapes
from deepmac.lightning.callbacks.evaluation import EvaluateCoco
from deepmac.lightning.callbacks.final_evaluation import FinalEvaluation
from deepmac.lightning.callbacks.pictures import Pictures, draw_result
from deepmac.lightning.callbacks.progress import Progress
from deepmac.lightning.callbacks.report import RunReport
from deepmac.lightning.datamodule import CocoDataModule
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.lightning.prediction import predict_batch, to_original
from deepmac.lightning.xla import preemption
from networks import TINY


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "set"
    write_shapes(folder, num_train=6, num_val=4, size=64)
    return folder


def data(root, **changes):
    settings = {"image_size": 64, "batch_size": 3, "val_batch_size": 2, "num_workers": 0}
    return CocoDataModule(source="coco", root=str(root), **{**settings, **changes})


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """Two steps and one evaluation, with the callbacks that write."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    module, content = DeepMACModule(**TINY["deepmac"]), data(root)
    callbacks = [EvaluateCoco(), Pictures(num_images=2, min_score=0.0), RunReport()]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[*callbacks, Progress(line_seconds=0.0), FinalEvaluation()],
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=content)
    return trainer, module, content, folder


def test_evaluation__writes_metrics_of_the_last_step(trained):
    trainer, _, _, folder = trained
    scored = trainer.callbacks[0]
    assert scored.step == trainer.global_step == 2
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["images"] == 4 and set(metrics["mask_gt_box"]["mIoU"]) >= {"all", "seen"}


def test_pictures__show_three_columns_of_each_chosen_image(trained):
    folder = trained[3]
    (path,) = (folder / "pictures").glob("*.png")
    width, height = Image.open(path).size
    assert path.name == "step_0000002.png" and width > 6 * 256 and height >= 256


def test_draw_result__paints_true_masks_and_nothing_below_the_score(trained):
    _, module, content, _ = trained
    image = content.val_index.images[0]
    nothing = {
        "image_id": image.id, "boxes": [[1.0, 1, 20, 20]], "scores": [0.1], "category_ids": [1],
        "masks": None, "gt_box_masks": None,
    }  # fmt: skip
    truth, given, found = draw_result(image, nothing, module.class_map, min_score=0.5)
    assert truth.shape == given.shape == found.shape == (256, 256, 3)
    assert len(np.unique(truth - given)) > 1, "the masks are in the first alone"
    plain = np.asarray(Image.open(image.path).convert("RGB")).repeat(4, 0).repeat(4, 1)
    assert np.array_equal(found, plain)


def test_report__says_what_was_run(trained):
    folder = trained[3]
    page = (folder / "report.html").read_text()
    assert "hourglass_tiny2, hourglass10" in page and "6 images in" in page


def test_progress__ends_with_steps_and_pace(root, tmp_path, capsys):
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=2, logger=False, enable_checkpointing=False,
        enable_model_summary=False, limit_val_batches=0, callbacks=[Progress(line_seconds=0.0)],
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(DeepMACModule(**TINY["deepmac"]), datamodule=data(root))
    said = capsys.readouterr().out.splitlines()
    assert sum("step " in line and "loss" in line for line in said) == 2
    assert "2 steps in 0:00:0" in said[-1] and "images/s" in said[-1]


def test_final_evaluation__scores_weights_that_were_not_and_says_the_table_once(trained, capsys):
    trainer, module, _, _ = trained
    before = trainer.callbacks[0].step
    FinalEvaluation().on_train_end(trainer, module)  # they were: only the table
    assert capsys.readouterr().out.count("Masks from ground-truth boxes") == 1
    assert trainer.callbacks[0].step == before


def test_prediction__gives_each_image_its_masks_in_its_own_pixels(trained):
    _, module, content, _ = trained
    loader: DataLoader = content.val_dataloader()
    batch = next(iter(loader))
    with torch.no_grad():
        stage = module.network.eval().last_stage(batch["images"])
    results = predict_batch(module.network, stage, batch, module.class_map)
    assert [r["image_id"] for r in results] == batch["image_ids"].tolist()
    for result, image in zip(results, content.val_index.images, strict=False):
        assert result["gt_box_masks"].keys() == {one.id for one in image.instances}
        for rle in result["gt_box_masks"].values():
            assert rle["size"] == [image.height, image.width]


def test_to_original__undoes_scale_and_shift_and_clips():
    geometry = torch.tensor([[0.5, 0.0, 3.0], [0.0, 0.25, 1.0]])
    boxes = torch.tensor([[3.0, 1.0, 13.0, 6.0], [-9.0, 0.0, 99.0, 99.0]])
    assert to_original(boxes, geometry, 30, 40).tolist() == [[0, 0, 20, 20], [0, 0, 40, 30]]


def test_data_module__follows_the_model_and_counts_its_batches(root):
    content = data(root)
    module = DeepMACModule(**{**TINY["deepmac"], "mask_size": 16})
    trainer = pl.Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    content.trainer = trainer
    content.prepare_data()
    content.setup("fit")
    assert content.batches_per_epoch == 2
    batch = next(iter(content.train_dataloader()))
    assert batch["images"].shape == (3, 3, 64, 64)
    assert batch["mask_targets"].shape[-2:] == (16, 16)
    assert len(content.class_map) == 10


def test_sigterm__is_remembered_within_and_handled_as_before_without():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with preemption.noticed():
            assert not preemption.requested()
            os.kill(os.getpid(), signal.SIGTERM)
            assert preemption.requested() and not heard
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [1]
    finally:
        signal.signal(signal.SIGTERM, before)
        preemption._received.clear()
