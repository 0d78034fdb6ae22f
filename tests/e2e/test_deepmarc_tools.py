"""What works with a Deep-MAC works with a Deep-MARC: the tools for masks in given boxes."""

import json

import numpy as np
import pytest
import torch

from deepmac import Predictor, load_model
from deepmac.class_map import ClassMap
from deepmac.cli import main
from deepmac.data.shapes.data_set import write_shapes
from deepmac.errors import ConfigError, UserError
from deepmac.models.files import card_of, write_model
from networks import TINY, tiny_card, tiny_model


def saved(folder, **changes):
    """The folder of a network whose masks are the whole box."""
    card = tiny_card("deepmarc", classes=ClassMap((1, 2), ("a", "b"), frozenset({1})), **changes)
    network = tiny_model(card)
    with torch.no_grad():
        network.roi_heads.mask_predictor.logits.bias.fill_(100.0)
    folder.mkdir()
    write_model(folder, network.state_dict(), card)
    return folder


def test_load_model__gives_back_the_system_of_the_folder(tmp_path):
    model = load_model(saved(tmp_path / "model"))
    assert card_of(model).system == "deepmarc"
    assert card_of(model).network == TINY["deepmarc"]


def test_load_model__of_an_unknown_system_is_one_sentence(tmp_path):
    path = saved(tmp_path / "model") / "config.yaml"
    path.write_text(path.read_text().replace("deepmarc", "deepmark"))
    with pytest.raises(ConfigError, match="system 'deepmark'"):
        load_model(path.parent)


@pytest.mark.parametrize(("scale", "area"), [(1.0, 20 * 10), (1.5, 30 * 15)])
def test_predictor__masks_fill_the_frame_of_the_box(tmp_path, scale, area):
    predictor = Predictor(load_model(saved(tmp_path / "model", outer_boxes_scale=scale)))
    predictor.set_image(np.zeros((40, 60, 3), dtype=np.uint8))
    masks, _ = predictor.predict([[20, 10, 40, 20]])
    assert masks[0].sum() == pytest.approx(area, rel=0.1)


def test_predictor__one_mask_per_class_needs_classes(tmp_path):
    predictor = Predictor(load_model(saved(tmp_path / "model", class_agnostic=False)))
    predictor.set_image(np.zeros((40, 60, 3), dtype=np.uint8))
    with pytest.raises(UserError, match="class_agnostic=true"):
        predictor.predict([[20, 10, 40, 20]])


def test_label__turns_boxes_into_masks(tmp_path):
    write_shapes(tmp_path / "set", num_train=4, num_val=2, size=64)
    boxes = tmp_path / "set/annotations/instances_train.json"
    content = json.loads(boxes.read_text())
    for entry in content["annotations"]:
        entry["segmentation"] = []
    boxes.write_text(json.dumps(content))
    words = ["--model", str(saved(tmp_path / "model")), "--images", str(tmp_path / "set/images")]
    words += ["--boxes", str(boxes), "--out", str(tmp_path / "out.json"), "--workers", "0"]
    assert main(["label", *words, "--accelerator", "cpu"]) == 0
    made = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert all(entry["segmentation"] and entry["area"] > 0 for entry in made)
