"""Deep-MARC under Lightning: the same glue, data, files and doors as Deep-MAC."""

import json

import numpy as np
import pytest
import torch
import yaml
from torchvision.models.detection import fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn

from deepmac.class_map import ClassMap
from deepmac.errors import ConfigError
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.lightning.deepmarc_module import DeepMARCModule, targets_of
from deepmac.lightning.optim.optimizer import build_optimizer
from deepmac.lightning.systems import chosen_system
from deepmac.models.files import card_of, load_model
from deepmac.nn.deepmarc.model import DeepMARC
from deepmac.predict.predictor import Predictor
from networks import CLASSES, TINY
from tiny import TINY as RUN
from tiny import deepmac, run, train_py


def module(**changes):
    torch.manual_seed(0)
    built = DeepMARCModule(**{**TINY["deepmarc"], **changes})
    built.build(CLASSES)
    return built


def batch():
    """Three pictures of 64 pixels: two objects of which one has a mask, one box, nothing."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.zeros(3, 2, 4)
    boxes[0] = torch.tensor([[8.0, 8, 40, 40], [20.0, 10, 60, 50]])
    boxes[1, 0] = torch.tensor([5.0, 6, 50, 60])
    targets = torch.zeros(3, 2, 16, 16)
    targets[0, 0, 4:12] = 1
    return {
        "images": torch.randint(0, 256, (3, 3, 64, 64), generator=generator).to(torch.uint8),
        "boxes": boxes,
        "mask_boxes": boxes,
        "labels": torch.tensor([[0, 2], [2, 0], [0, 0]]),
        "valid": torch.tensor([[True, True], [True, False], [False, False]]),
        "mask_valid": torch.tensor([[True, False], [False, False], [False, False]]),
        "mask_targets": targets,
        "true_sizes": torch.tensor([[64, 64], [64, 56], [64, 64]]),
        "ignore": torch.zeros(3, 16, 16, dtype=torch.bool),
        "image_ids": torch.tensor([1, 2, 3]),
        "filler": torch.zeros(3, dtype=torch.bool),
        "annotation_ids": torch.tensor([[10, 11], [12, -1], [-1, -1]]),
        "geometry": torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).expand(3, 2, 3),
        "original_sizes": torch.tensor([[64, 64], [64, 56], [64, 64]]),
    }


def checkpoint_of(built):
    content = {
        "state_dict": built.state_dict(),
        "hyper_parameters": dict(built.hparams),
        "datamodule_hyper_parameters": {"image_size": 64},
    }
    built.on_save_checkpoint(content)
    return content


def test_training_step__a_partially_supervised_batch_has_finite_losses_by_name():
    built = module().train()
    losses = built.compute_losses(batch())
    names = ["loss", "objectness", "proposal_box", "classifier", "box", "mask"]
    assert sorted(losses) == sorted(names)
    assert all(value.isfinite() for value in losses.values())
    parts = sum(value for name, value in losses.items() if name != "loss")
    torch.testing.assert_close(losses["loss"], parts)
    losses["loss"].backward()
    assert all(p.grad is not None for p in built.parameters())


def test_training_step__weighs_its_losses():
    built = module(losses={"mask_weight": 3.0}).train()
    torch.manual_seed(0)
    losses = built.compute_losses(batch())
    parts = sum(value for name, value in losses.items() if name != "loss")
    torch.testing.assert_close(losses["loss"], parts + 2 * losses["mask"])


@pytest.mark.parametrize("field", ["mask_valid", "valid"])
def test_training_step__a_batch_without_masks_or_objects_has_gradients_for_replicas(field):
    built = module().train()
    empty = {**batch(), field: torch.zeros(3, 2, dtype=torch.bool)}
    losses = built.compute_losses(empty)
    losses["loss"].backward()
    assert losses["loss"].isfinite()
    assert losses["mask"] == 0
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
    assert built.network.rpn.head.cls_logits.weight.grad.any()
    assert built.network.roi_heads.box_predictor.cls_score.weight.grad.any()
    mask = (p for name, p in built.named_parameters() if "mask_" in name)
    assert not any(parameter.grad.any() for parameter in mask)


def test_targets__hold_the_objects_alone_and_count_classes_from_one():
    targets = targets_of(batch())
    assert [len(target["boxes"]) for target in targets] == [2, 1, 0]
    assert [target["labels"].tolist() for target in targets] == [[1, 3], [3], []]


@pytest.mark.parametrize("settings", [{}, {"class_agnostic": False}, {"outer_boxes_scale": 1.3}])
def test_validation__one_picture_at_a_time_is_the_batch(settings):
    built = module(**settings).eval()
    whole = built.validation_step(batch(), 0)["results"]
    assert [result["image_id"] for result in whole] == [1, 2, 3]
    assert [len(result["gt_box_masks"]) for result in whole] == [2, 1, 0]
    for row, result in enumerate(whole):
        one = {name: value[row : row + 1] for name, value in batch().items()}
        (alone,) = built.validation_step(one, 0)["results"]
        for name in ("boxes", "scores"):
            np.testing.assert_allclose(alone[name], result[name], rtol=1e-4, atol=1e-4)
        assert list(alone["category_ids"]) == list(result["category_ids"])
        assert alone["masks"] == result["masks"]
        assert alone["gt_box_masks"] == result["gt_box_masks"]


def test_half_precision__places_boxes_to_the_pixel():
    built = module().eval()
    with torch.no_grad():
        stage = built.network(batch()["images"])[-1]
        exact = built.network.detect(stage)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            stage = built.network(batch()["images"])[-1]
            rough = built.network.detect(stage)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = built.train().compute_losses(batch())["loss"]
    loss.backward()
    assert all(level.dtype == torch.float32 for level in stage.values())
    assert rough.boxes.dtype == torch.float32
    distance = (exact.boxes[:, :1, None] - rough.boxes[:, None]).abs().amax(-1)
    assert distance.min() < 0.5


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_optimizer__is_the_one_asked_for(kind):
    built = module(optimizer=kind, weight_decay=4e-5)
    optimizer = build_optimizer([{"params": list(built.parameters())}], built.hparams)
    assert isinstance(optimizer, {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[kind])
    assert optimizer.param_groups[0].get("decoupled_weight_decay", True)
    assert optimizer.defaults["weight_decay"] == 4e-5


def test_checkpoint__becomes_a_model_that_gives_masks_to_any_box(tmp_path):
    built = module().eval()
    torch.save(checkpoint_of(built), tmp_path / "a.ckpt")
    model = load_model(tmp_path / "a.ckpt")
    assert isinstance(model, DeepMARC)
    assert card_of(model).system == "deepmarc"
    for name, value in built.network.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    predictor = Predictor(model)
    predictor.set_image(np.full((50, 64, 3), 90, dtype=np.uint8))
    masks, scores = predictor.predict([[5, 6, 30, 40], [0, 0, 64, 50]])
    assert masks.shape == (2, 50, 64)
    assert scores.shape == (2,)
    found = predictor.detect()
    assert set(found.labels) <= set(CLASSES.category_ids)
    assert len(found.masks) == len(found.boxes) > 0


def test_checkpoint__of_the_other_system_is_refused():
    other = DeepMACModule(backbone="hourglass_tiny2", head_channels=8, num_init_channels=4)
    other.build(CLASSES)
    with pytest.raises(ConfigError, match=r"'deepmac', not of 'deepmarc'"):
        module().on_load_checkpoint(checkpoint_of(other))


def torchvision_weights(path, make, **changes):
    """A file as torchvision publishes them, with the names of its first releases."""
    plain = make(weights=None, weights_backbone=None, num_classes=4, **changes)
    old = {}
    for name, value in plain.state_dict().items():
        name = name.replace("_blocks.0.0.", "_blocks.0.").replace("head.conv.0.0.", "head.conv.")
        old[name.replace("mask_head.0.0.", "mask_head.mask_fcn1.")] = value
    torch.save(old, path)


def test_init_from__torchvisions_faster_rcnn_fits_but_for_the_masks(tmp_path, capsys):
    torchvision_weights(tmp_path / "a.pth", fasterrcnn_resnet50_fpn)
    settings = {"backbone": "resnet50", "pyramid_width": 256, "head_channels": 1024}
    module(**settings, init_from=str(tmp_path / "a.pth"))
    said = capsys.readouterr().out
    assert "start fresh (roi_heads.mask_" in said
    assert "; 0 of the file unused" in said
    assert "warning" not in said


@pytest.mark.parametrize("masked", [{3, 7}, {3, 7, 11}])
def test_init_from__mask_rcnn_in_a_partially_supervised_run_is_warned_of(tmp_path, capsys, masked):
    torchvision_weights(tmp_path / "a.pth", maskrcnn_resnet50_fpn)
    settings = {"backbone": "resnet50", "pyramid_width": 256, "mask_head": "mask_rcnn"}
    built = DeepMARCModule(**{**TINY["deepmarc"], **settings, "init_from": str(tmp_path / "a.pth")})
    built.build(ClassMap(CLASSES.category_ids, CLASSES.names, frozenset(masked)))
    said = capsys.readouterr().out
    assert ("warning" in said) == (len(masked) == 2)
    assert not said.count("warning") or "1 classes that have no masks in this run" in said


@pytest.mark.parametrize(
    ("config", "options", "system"),
    [
        ({"system": "deepmarc"}, [], "deepmarc"),
        ({}, [], "deepmac"),
        (None, ["--config", "run.yaml"], "deepmarc"),
        (None, ["--config=run.yaml", "--trainer.max_steps=2"], "deepmarc"),
        (None, ["--config=old.yaml"], "deepmac"),
        (None, ["-c", "old.yaml", "--system", "deepmarc"], "deepmarc"),
    ],
)
def test_system__is_read_from_wherever_it_is_said(tmp_path, monkeypatch, config, options, system):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("system: deepmarc\nmodel: {}\n")
    (tmp_path / "old.yaml").write_text("model: {}\n")
    assert chosen_system(config, options) == system


def test_system__that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match="no system 'deepmark'"):
        chosen_system({"system": "deepmark"}, [])


WORDS = (
    "experiment=deepmarc_small",
    "data=shapes",
    "split=annotated",
    *RUN,
    "model.backbone=resnet10t",
    "model.weights=null",
    "model.pyramid_width=8",
    "model.mask_size=16",
    "model.min_score=0",
    "trainer.max_steps=2",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One run of seconds through Hydra's door."""
    folder = tmp_path_factory.mktemp("deepmarc")
    out = succeed(train_py(*WORDS, "hydra.run.dir=first"), folder)
    return folder, out


def succeed(command, folder):
    done = run(command, cwd=folder, cache=folder / "cache")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_train__leaves_the_same_run_directory_as_deepmac(trained):
    folder, out = trained
    for name in ("metrics.csv", "report.html", "checkpoints/last.ckpt", "pictures"):
        assert (folder / "first" / name).exists(), name
    metrics = json.loads((folder / "first/metrics.json").read_text())
    assert metrics["step"] == 2
    assert metrics["instances"]["missing_gt_box_masks"] == 0
    assert {"box", "mask", "mask_gt_box", "filled_box"} <= metrics.keys()
    assert yaml.safe_load((folder / "first/config.yaml").read_text())["system"] == "deepmarc"
    assert "mIoU" in out


def test_fit__runs_again_from_the_flat_file(trained):
    folder, _ = trained
    out = succeed(deepmac("fit", "--config", "first/config.yaml", "--trainer.max_steps=1"), folder)
    (line,) = [line for line in out.splitlines() if line.startswith("run directory: ")]
    again = yaml.safe_load((folder / line.split()[-1] / "config.yaml").read_text())
    first = yaml.safe_load((folder / "first/config.yaml").read_text())
    assert again["model"] == first["model"]


def test_validate__takes_system_and_model_from_the_checkpoint_when_nothing_is_said(trained):
    folder, _ = trained
    data = [word for word in RUN if word.startswith("data.")]
    words = [*data, "ckpt_path=first/checkpoints/last.ckpt"]
    succeed(deepmac("validate", *words, "hydra.run.dir=second"), folder)
    first, second = (
        json.loads((folder / name / "metrics.json").read_text()) for name in ("first", "second")
    )
    assert second["mask_gt_box"] == first["mask_gt_box"]
    assert second["box"] == first["box"]
