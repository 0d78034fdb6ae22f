"""A damaged checkpoint is answered with one sentence, whatever part of it is of another type."""

import pytest
import torch

from deepmac.errors import UserError
from deepmac.models.checkpoint import read_checkpoint
from deepmac.models.files import load_model
from deepmac.models.weights import read_weight_file

MAP = {"category_ids": [1], "names": ["a"], "masked_category_ids": [1]}
PIXELS = {"mean": [0.0] * 3, "std": [1.0] * 3, "bgr": False}
GOOD = {
    "state_dict": {"network.a": torch.zeros(1)},
    "hyper_parameters": {"lr": 1.0},
    "datamodule_hyper_parameters": {"image_size": 64},
    "deepmac_class_map": MAP,
    "deepmac_normalization": PIXELS,
    "deepmac_system": "deepmac",
    "global_step": 3,
}
DAMAGED = [
    {"state_dict": 5},
    {"state_dict": {"network.a": "x"}},
    {"state_dict": {1: torch.zeros(1)}},
    {"hyper_parameters": []},
    {"datamodule_hyper_parameters": "x"},
    {"deepmac_class_map": 7},
    {"deepmac_class_map": {**MAP, "names": 5}},
    {"deepmac_class_map": {**MAP, "category_ids": [[1]]}},
    {"deepmac_class_map": {**MAP, "category_ids": [1, 2]}},
    {"deepmac_normalization": None},
    {"deepmac_normalization": {**PIXELS, "mean": "abc"}},
    {"deepmac_system": ["deepmac"]},
    {"global_step": "three"},
]


def test_read_checkpoint__gives_the_parts(tmp_path):
    torch.save(GOOD, tmp_path / "a.ckpt")
    found = read_checkpoint(tmp_path / "a.ckpt")
    assert (found.system, found.step, found.class_map.names) == ("deepmac", 3, ("a",))
    assert list(found.state) == ["a"] and found.data_settings["image_size"] == 64


@pytest.mark.parametrize("change", DAMAGED, ids=str)
@pytest.mark.parametrize("read", [read_checkpoint, load_model, read_weight_file])
def test_damaged_parts__one_sentence(tmp_path, change, read):
    torch.save({**GOOD, **change}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt") as caught:
        read(str(tmp_path / "a.ckpt"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("content", [[], 3, {1: 2}, "text"], ids=str)
def test_foreign_files__one_sentence(tmp_path, content):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_deep_marc__keeps_its_own_settings(tmp_path):
    own = {"deepmac_system": "deepmarc", "hyper_parameters": {"mask_head": "x", "lr": 1.0}}
    torch.save({**GOOD, **own}, tmp_path / "a.ckpt")
    assert dict(read_weight_file(str(tmp_path / "a.ckpt")).settings) == {"mask_head": "x"}
