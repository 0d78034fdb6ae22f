"""What people type reaches the settings as it was meant, through Hydra's grammar."""

import pytest

from deepmac.data.settings import data_folder
from deepmac.errors import ConfigError
from deepmac.lightning.compose import compose
from deepmac.lightning.overrides import prepared

NAMES = ["réseau", "a=b", "set (1)", "[old]", "{x}", "it's", "a\\'b", "x, y", "100%", "end\\", "#1"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("setting", ["data.root", "ckpt_path", "model.init_from"])
def test_paths__need_no_quotes(setting, name):
    config, _ = compose(["data=coco", f"{setting}=/data/{name}"])
    for part in setting.split("."):
        config = config[part]
    assert config == f"/data/{name}"


def test_paths__at_home_are_found(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert prepared(["data.root=~/coco", "data=coco"])[0] == "data.root='/home/someone/coco'"


@pytest.mark.parametrize(
    "word", ["ckpt_path=null", "data.root='/quoted already'", "model.lr=1e-3", "data.root=", "-m"]
)
def test_other_words__stay(word):
    assert prepared([word, "experiment=custom"])[0] == word


def test_paths__swept_over_are_the_sweepers():
    assert prepared(["-m", "data=coco", "data.root=a,b"])[-1] == "data.root=a,b"


def test_prepared_twice__is_prepared_once():
    once = prepared(["data.root=it's (1)", "ckpt_path=epoch=3-step=5.ckpt"])
    assert prepared(once) == once


def test_own_data__without_an_experiment_is_the_custom_one():
    config, _ = compose(["data.root=/mine"])
    assert config.data.source == "coco"
    config, _ = compose(["data.root=/mine", "experiment=shapes"])
    assert config.data.source == "shapes"


def test_shapes__are_never_drawn_into_somebodys_folder(tmp_path):
    (tmp_path / "annotations").mkdir()
    settings = compose(["experiment=shapes", f"data.root={tmp_path}"])[0].data
    with pytest.raises(ConfigError, match="experiment=custom"):
        data_folder(settings)
    assert [entry.name for entry in tmp_path.iterdir()] == ["annotations"]
