"""``model.init_from``: what it takes, what it says, and which slots the classes get."""

import pytest
import torch
import yaml
from safetensors.torch import save_file

from converted import converted
from deepmac.class_map import ClassMap
from deepmac.errors import ConfigError
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.models.weights import read_weight_file
from deepmac.nn.backbones import IMAGENET
from networks import TINY

STORED = ("unused 1", "Cat", "dog", "unused 4", "cow")
OURS = ClassMap((10, 20, 30), ("dog", "cat", "bee"), frozenset({10, 20, 30}))


def module(classes=OURS, **changes):
    torch.manual_seed(0)
    built = DeepMACModule(**{**TINY["deepmac"], **changes})
    built.build(classes)
    return built


def test_a_converted_folder__is_taken_whole_where_everything_fits(tmp_path, capsys):
    stored = converted(tmp_path / "model", STORED, normalization=IMAGENET)
    classes = ClassMap((1, 2, 3, 4, 5), STORED, frozenset({2}))
    for source in ("model", "model/model.safetensors"):
        built = module(classes, init_from=str(tmp_path / source), compat="tf_release")
        assert built.network.normalize.normalization == IMAGENET
        for name, value in built.network.state_dict().items():
            assert torch.equal(value, stored[name]), name
    said = capsys.readouterr().out
    assert "0 start fresh" in said and "compat" not in said


def test_classes__take_the_slots_of_their_names(tmp_path, capsys):
    stored = converted(tmp_path, STORED)
    built = module(init_from=str(tmp_path), compat="tf_release").network
    fresh = module(compat="tf_release").network
    for stage in (0, 1):
        for name in (f"heads.{stage}.heatmap.2.weight", f"heads.{stage}.heatmap.2.bias"):
            ours = built.state_dict()[name]
            assert torch.equal(ours[0], stored[name][2]), "dog"
            assert torch.equal(ours[1], stored[name][1]), "cat, whatever its case"
            assert torch.equal(ours[2], fresh.state_dict()[name][2]), "bee is new"
    assert "2 of 3 classes are known to the weights by their names" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stored", "ours", "advice"),
    [
        ("tf_release", None, "model.compat=tf_release goes on"),
        (None, "tf_release", "model.compat=null goes on"),
    ],
)
def test_another_compat__is_told(tmp_path, capsys, stored, ours, advice):
    converted(tmp_path, STORED, compat=stored)
    built = module(init_from=str(tmp_path), compat=ours)
    assert built.network.conventions.compat == ours, "the run's own setting stays"
    assert advice in capsys.readouterr().out


def test_a_converted_backbone__brings_its_normalisation(tmp_path):
    state = converted(tmp_path / "model", STORED)
    backbone = {k: v for k, v in state.items() if k.startswith("backbone.")}
    folder = tmp_path / "start"
    folder.mkdir()
    save_file(backbone, folder / "model.safetensors")
    described = {
        "format": "deepmac-initialisation-1",
        "backbone": "hourglass_tiny2",
        "normalization": IMAGENET.to_dict(),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(described))
    built = module(init_from=str(folder))
    assert built.network.normalize.normalization == IMAGENET
    loaded = built.network.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in backbone.items())
    (folder / "config.yaml").write_text("format: deepmac-initialisation-1\n")
    with pytest.raises(ConfigError, match=r"config\.yaml does not say how pixels"):
        module(init_from=str(folder))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder", "holds no model.safetensors"),
        ("gone.pth", "no such file"),
        ("some/where", "no such file"),
        ("deepmac-nowhere", "no model 'deepmac-nowhere'"),
    ],
)
def test_nothing_there__is_one_sentence(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=words) as caught:
        read_weight_file(name)
    assert f"model.init_from={name}" in str(caught.value) and "\n" not in str(caught.value)


def test_a_checkpoint_with_unused_slots__evaluates_on_the_data_that_lacks_them():
    wide = ClassMap((1, 2, 3), ("none", "dog", "cat"), frozenset({2}), frozenset({1}))
    trained = module(wide)
    content = {"state_dict": trained.state_dict(), "hyper_parameters": dict(trained.hparams)}
    trained.on_save_checkpoint(content)
    narrow = module(ClassMap((2, 3), ("dog", "cat"), frozenset({2})))
    narrow.on_load_checkpoint(content)
    narrow.load_state_dict(content["state_dict"])
    assert narrow.class_map == wide
