"""Models load from converted folders, weight files and training checkpoints; nothing else does."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepmac import load_model
from deepmac.class_map import ClassMap
from deepmac.errors import ConfigError, UserError
from deepmac.models.card import ModelCard
from deepmac.models.files import (
    card_of,
    network_arguments,
    own_threshold,
    write_model,
)
from deepmac.models.hub import save_pretrained
from deepmac.nn.backbones import IMAGENET
from deepmac.nn.deepmac import DeepMAC
from networks import tiny_card, tiny_model

CARD = tiny_card(
    classes=ClassMap((3, 9), ("ant", "bee"), frozenset({9})),
    about={"mask_threshold": 0.45},
    mask_head="resnet4",
)


@pytest.fixture(scope="module")
def model() -> DeepMAC:
    return tiny_model(CARD)


@pytest.fixture
def folder(model: DeepMAC, tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    write_model(path, model.state_dict(), CARD)
    return path


def same(loaded: DeepMAC, model: DeepMAC) -> bool:
    state, expected = loaded.state_dict(), model.state_dict()
    return state.keys() == expected.keys() and all(
        torch.equal(state[name], expected[name]) for name in expected
    )


def checkpoint(model: DeepMAC) -> dict[str, Any]:
    """What the training writes, as far as loading goes."""
    settings = {"lr": 1e-3, "losses": {"mask_weight": 5.0}, "weights": "timm", **CARD.network}
    settings["mask_threshold"] = CARD.mask_threshold
    return {
        "state_dict": {f"network.{k}": v for k, v in model.state_dict().items()},
        "hyper_parameters": settings,
        "datamodule_hyper_parameters": {"image_size": 64, "root": "somewhere"},
        "deepmac_class_map": CARD.class_map.to_dict(),
        "deepmac_normalization": IMAGENET.to_dict(),
        "optimizer_states": [],
    }


def test_load_model__takes_folder_file_and_checkpoint(
    folder: Path, model: DeepMAC, tmp_path: Path
) -> None:
    torch.save(checkpoint(model), tmp_path / "last.ckpt")
    for source in (folder, str(folder), folder / "model.safetensors", tmp_path / "last.ckpt"):
        loaded = load_model(source, device="cpu")
        assert same(loaded, model)
        assert not loaded.training
        assert card_of(loaded) == CARD


def test_load_model__leaves_the_detector_out_when_asked_to(
    folder: Path, model: DeepMAC, tmp_path: Path
) -> None:
    torch.save(checkpoint(model), tmp_path / "last.ckpt")
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    boxes = torch.tensor([[[4.0, 6, 50, 40], [20, 2, 60, 60]]])
    whole = load_model(folder)
    for source in (folder, tmp_path / "last.ckpt"):
        masks_only = load_model(source, detector=False)
        assert not masks_only.detector and not card_of(masks_only).network["detector"]
        left_out = whole.state_dict().keys() - masks_only.state_dict().keys()
        assert {name.split(".")[2] for name in left_out} == {"heatmap", "size", "offset"}
        expected, found = (
            network.mask_logits(network.last_stage(images), boxes)
            for network in (whole, masks_only)
        )
        assert torch.equal(found, expected)
        out = save_pretrained(masks_only, tmp_path / f"masks-{Path(source).name}")
        assert same(load_model(out), masks_only) and same(
            load_model(out, detector=False), masks_only
        )


def test_load_model__a_detector_of_two_stages_stays(tmp_path: Path) -> None:
    card = replace(CARD, system="deepmarc", network={"backbone": "resnet10t", "pyramid_width": 8})
    write_model(tmp_path, tiny_model(card).state_dict(), card)
    with pytest.raises(UserError, match="cannot be left out"):
        load_model(tmp_path, detector=False)


def test_write_model__others_may_read_it(folder: Path) -> None:
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.yaml").stat().st_mode


def test_mask_threshold__of_older_files_is_one_half(model: DeepMAC, tmp_path: Path) -> None:
    older = checkpoint(model)
    del older["hyper_parameters"]["mask_threshold"]
    torch.save(older, tmp_path / "last.ckpt")
    assert own_threshold(load_model(tmp_path / "last.ckpt")) == 0.5
    assert own_threshold(model) == 0.45
    values = {name: value for name, value in CARD.to_dict().items() if name != "mask_threshold"}
    assert ModelCard.from_dict(values, source="here").mask_threshold == 0.5
    for wrong in (0, 1, "a", float("nan")):
        with pytest.raises(ConfigError, match="no usable model"):
            ModelCard.from_dict({**values, "mask_threshold": wrong}, source="here")


def test_load_model__a_lone_file_carries_its_description(folder: Path, model: DeepMAC) -> None:
    (folder / "config.yaml").unlink()
    loaded = load_model(folder / "model.safetensors")
    assert same(loaded, model)
    assert card_of(loaded) == CARD


def test_load_model__reads_a_trainings_checkpoint_without_lightning(
    model: DeepMAC, tmp_path: Path
) -> None:
    torch.save(checkpoint(model), tmp_path / "last.ckpt")
    code = (
        "import sys, deepmac; deepmac.load_model(sys.argv[1]); "
        "assert not {'pytorch_lightning', 'lightning'} & set(sys.modules)"
    )
    path = str(tmp_path / "last.ckpt")
    subprocess.run([sys.executable, "-c", code, path], check=True, timeout=120)


def test_load_model__never_runs_what_a_checkpoint_holds(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"state_dict": Hostile()}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="not a readable weight file"):
        load_model(tmp_path / "a.ckpt")
    assert not (tmp_path / "executed").exists()


def test_load_model__missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no model"):
        load_model(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        load_model(tmp_path)


def test_load_model__weights_of_another_network_are_refused(folder: Path) -> None:
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("resnet4", "resnet8"))
    with pytest.raises(UserError, match="do not fit the network"):
        load_model(folder)
    (folder / "config.yaml").write_text(text.replace("head_channels", "head_chanels"))
    with pytest.raises(UserError, match="head_chanels"):
        load_model(folder)


@pytest.mark.parametrize(
    "text",
    [
        "format: deepmac-model-1",
        "format: deepmac-model-1\nnetwork: 3\nnormalization: {}\nclass_map: []\nimage_size: x",
        "format: [",
        "\0",
    ],
)
def test_load_model__a_damaged_description_is_refused(folder: Path, text: str) -> None:
    (folder / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml"):
        load_model(folder)


def test_load_model__files_at_random_are_refused(folder: Path, model: DeepMAC) -> None:
    """Cut, overwritten and junk files give one sentence, never another exception."""
    random = np.random.default_rng(5)
    torch.save(checkpoint(model), folder / "last.ckpt")
    (folder / "config.yaml").unlink()
    for name in ("model.safetensors", "last.ckpt"):
        whole = (folder / name).read_bytes()
        for _ in range(30):
            at = int(random.integers(0, 4096))
            raw = bytearray(whole)
            raw[at : at + 4] = random.integers(0, 256, 4, dtype=np.uint8).tobytes()
            if random.random() < 0.3:
                del raw[int(random.integers(0, len(raw))) :]
            (folder / name).write_bytes(raw)
            try:
                load_model(folder / name)
            except UserError as error:
                assert "\n" not in str(error)


def test_network_arguments__are_those_of_the_network() -> None:
    names = network_arguments()
    assert {"backbone", "mask_head", "compat"} <= set(names)
    assert not {"weights", "normalization", "num_classes"} & set(names)


def test_model_card__survives_json() -> None:
    stored = json.loads(json.dumps(CARD.to_dict()))
    assert ModelCard.from_dict(stored, source="a test") == CARD
