"""What version 249d993 wrote is read: tests/written_by_249d993, whose README says how it was made.

The files lie packed there; tensors were rounded so that they pack well.
"""

import json
import lzma
import shutil
from pathlib import Path

import pytest
import torch

from deepmac import load_model
from deepmac.cli import main
from deepmac.data.shapes.data_set import write_shapes
from deepmac.models.files import card_of

WRITTEN = Path(__file__).resolve().parents[1] / "written_by_249d993"
DATA = [
    "data.shapes_train=16",
    "data.shapes_val=4",
    "data.shapes_size=64",
    "data.image_size=64",
    "data.batch_size=4",
    "data.val_batch_size=3",
    "data.num_workers=0",
    "trainer.accelerator=cpu",
]
NETWORK = [
    "model.backbone=test_efficientnet",
    "model.weights=null",
    "model.pyramid_width=8",
    "model.head_channels=4",
    "model.num_init_channels=1",
    "model.pixel_embedding_dim=4",
    "model.dim=4",
    "model.max_detections=5",
]
SHAPES = ("disk", "ring", "heart", "gear", "star", "triangle", "arrow", "elbow", "cross")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    (folder / "model").mkdir()
    for packed, path in (("last.ckpt", "last.ckpt"), ("model.safetensors", "model")):
        target = folder / path
        target = target / packed if target.is_dir() else target
        target.write_bytes(lzma.decompress((WRITTEN / f"{packed}.xz").read_bytes()))
    shutil.copy(WRITTEN / "model.yaml", folder / "model" / "config.yaml")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, place, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPMAC_CACHE", str(place))
    monkeypatch.delenv("DEEPMAC_RUN_DIR", raising=False)


@pytest.mark.parametrize("name", ["last.ckpt", "model"])
def test_its_models__open(place, name):
    model = load_model(place / name)
    card = card_of(model)
    assert card.class_map.names[: len(SHAPES)] == SHAPES
    assert card.image_size == 64 and card.normalization.mean[0] == 123.675
    with torch.no_grad():
        stage = model.last_stage(torch.zeros(1, 3, 64, 64))
        crops = model.mask_probabilities(stage, torch.tensor([[[4.0, 5, 30, 40]]]))
    assert crops.shape == (1, 1, 32, 32) and bool(torch.isfinite(crops).all())


def test_its_checkpoint__is_evaluated_by_its_own_settings_and_goes_on(
    place, tmp_path, monkeypatch, capsys
):
    words = [f"ckpt_path={place / 'last.ckpt'}", *DATA]
    for command, more in (
        ("validate", []),
        ("fit", [*NETWORK, "trainer.max_epochs=2", "trainer.log_every_n_steps=1"]),
    ):
        out = tmp_path / command
        monkeypatch.delenv("DEEPMAC_RUN_DIR", raising=False)  # of the command before
        assert main([command, *words, *more, f"hydra.run.dir={out}"]) == 0
        assert json.loads((out / "metrics.json").read_text())["mask_gt_box"]["mIoU"]
    differing = [li for li in capsys.readouterr().out.splitlines() if "differ from the check" in li]
    assert differing and all("losses.box_consistency.weight 0.5 -> 0.0" in li for li in differing)
    assert all(len(line) < 200 for line in differing)
    steps = [
        line.split(",") for line in (tmp_path / "fit" / "metrics.csv").read_text().splitlines()
    ]
    at = steps[0].index("step")
    assert {int(row[at]) for row in steps[1:]} >= {5, 6, 7}, "its steps are counted on"


def test_its_config_yaml__runs_again(tmp_path, capsys):
    fewer = ["--trainer.max_steps=2", "--trainer.limit_val_batches=0"]
    assert main(["fit", f"--config={WRITTEN / 'config.yaml'}", *fewer]) == 0
    assert "is of an older version and is read by today's names" in capsys.readouterr().out
    (written,) = tmp_path.rglob("config.yaml")
    text = written.read_text()
    assert "box_consistency:" in text and "box_consistency_weight" not in text


def test_its_unfinished_label_job__is_told_in_one_sentence(place, tmp_path, capsys):
    write_shapes(tmp_path / "set", num_train=20, num_val=2, size=64)
    shutil.copytree(WRITTEN / "parts", tmp_path / ".masks.json.parts")
    code = main(
        [
            "label",
            *("--model", str(place / "model")),
            *("--images", str(tmp_path / "set/images")),
            *("--boxes", str(tmp_path / "set/annotations/instances_train.json")),
            *("--out", str(tmp_path / "masks.json")),
        ]
    )
    errors = capsys.readouterr().err.splitlines()
    (said,) = [line for line in errors if line.startswith("deepmac:")]
    assert code == 1 and "holds an unfinished job with another" in said
    assert "--restart to drop it" in said and not (tmp_path / "masks.json").exists()
