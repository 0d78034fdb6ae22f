"""The Hydra tree: complete, typed, and one truth for both command lines."""

import functools
from dataclasses import asdict

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from pytorch_lightning import Trainer

from deepmac.errors import ConfigError
from deepmac.lightning.compose import compose, config_tree, lightning_config
from deepmac.lightning.datamodule import CocoDataModule
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.lightning.deepmarc_module import DeepMARCModule, MaskRCNNLossWeights
from deepmac.lightning.systems import SYSTEMS
from deepmac.losses.options import LossOptions
from deepmac.nn.deepmarc.mask_branch import ROI_MASK_HEADS
from deepmac.nn.deepmarc.model import DeepMARC

EXPERIMENTS = sorted(path.stem for path in (config_tree() / "experiment").glob("*.yaml"))
OFFICIAL = ("voc_to_nonvoc", "voc_to_nonvoc_1024", "nonvoc_to_voc_1024", "coco_1024")


def keys(name):
    return set(yaml.safe_load((config_tree() / name).read_text())) - {"defaults"}


@functools.cache
def signature(kind):
    """Arguments and defaults as the command line sees them: the network's own among a module's."""
    parser = ArgumentParser()
    parser.add_class_arguments(kind, "it", fail_untyped=False)
    return parser.get_defaults().it.as_dict()


def arguments(kind):
    return set(signature(kind))


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("model/deepmac.yaml", DeepMACModule),
        ("model/deepmarc.yaml", DeepMARCModule),
        ("data/coco.yaml", CocoDataModule),
        ("trainer/default.yaml", Trainer),
    ],
)
def test_yaml__lists_exactly_the_constructors_arguments(file, kind):
    assert keys(file) == arguments(kind)


@pytest.mark.parametrize(
    ("file", "module", "losses"),
    [
        ("model/deepmac.yaml", DeepMACModule, LossOptions),
        ("model/deepmarc.yaml", DeepMARCModule, MaskRCNNLossWeights),
    ],
)
def test_yaml__defaults_are_the_codes_defaults(file, module, losses):
    stored = yaml.safe_load((config_tree() / file).read_text())
    defaults = signature(module)
    del stored["defaults"]
    for name, value in stored.items():
        if value == "???" or name == "losses":
            continue
        assert value == defaults[name], name
    assert stored["losses"] == asdict(losses())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment__composes_and_its_header_gives_the_command(name):
    config, _ = compose([f"experiment={name}"])
    flat = lightning_config(config)
    assert "python train.py" in (config_tree() / f"experiment/{name}.yaml").read_text()
    assert set(flat["model"]) == arguments(SYSTEMS[flat["system"]])
    assert set(flat["data"]) == arguments(CocoDataModule)


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_experiments__are_the_papers(name):
    config, _ = compose([f"experiment={name}"])
    assert config.model.backbone == "hourglass_104"
    assert config.model.head_channels == 256
    assert config.trainer.max_steps == 50_000
    assert config.model.mask_head == ("hourglass100" if "1024" in name else "hourglass52")
    assert config.data.image_size == (1024 if "1024" in name else 512)
    assert config.model.compat is None


@pytest.mark.parametrize("group", ["mask_head", "backbone", "split", "trainer", "callbacks"])
def test_groups__every_choice_composes(group):
    for path in (config_tree() / group).glob("*.yaml"):
        overrides = [f"{group}={path.stem}"]
        if group == "split" and path.stem == "custom":
            overrides.append("data.masked_classes=[cat]")
        lightning_config(compose(overrides)[0])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_backbone__another_one_goes_with_every_experiment(name):
    """A backbone brings its own weights; the network is built without memory."""
    config = lightning_config(compose([f"experiment={name}", "backbone=resnet50"])[0])
    assert config["model"]["weights"] is None
    module = SYSTEMS[config["system"]](**config["model"])
    with torch.device("meta"):
        network = module.make_network(2)
    assert config["data"]["image_size"] % network.backbone.size_divisor == 0


def test_mask_heads__every_choice_builds():
    from deepmac.nn.deepmac import DeepMAC
    from deepmac.nn.mask_heads import MASK_HEADS

    choices = {p.stem for p in (config_tree() / "mask_head").glob("*.yaml")}
    assert choices == {*MASK_HEADS, "mask_rcnn"}  # the last for Deep-MARC alone
    for name in MASK_HEADS:
        model = compose(["experiment=voc_to_nonvoc", f"mask_head={name}"])[0].model
        if name not in ("cond_inst1", "cond_inst2", "cond_inst3"):
            model.num_init_channels = 4
        used = ("dim", "pixel_embedding_dim", "use_xy", "use_instance_embedding")
        settings = {k: model[k] for k in (*used, "num_init_channels", "mask_head")}
        settings |= {"dim": model.dim if name.startswith(("cond", "emb")) else 4}
        DeepMAC(num_classes=2, backbone="hourglass_tiny2", head_channels=8, **settings)


@pytest.mark.parametrize("name", ROI_MASK_HEADS)
def test_mask_heads__every_choice_of_deepmarc_builds(name):
    settings = compose(["experiment=deepmarc_small", f"mask_head={name}"])[0].model
    assert settings.mask_size == (28 if name == "mask_rcnn" else 64)
    module = DeepMARCModule(**{**settings, "num_init_channels": 2, "weights": None})
    assert isinstance(module.make_network(2), DeepMARC)


def test_custom__takes_either_system():
    config, _ = compose(["experiment=custom", "model=deepmarc", "data.root=HERE"])
    assert config.system == "deepmarc"
    assert set(config.model) == arguments(DeepMARCModule)


def test_deepmarcs_official_experiments__are_the_published_recipes():
    names = [name for name in EXPERIMENTS if name.startswith("deepmarc") and "small" not in name]
    assert len(names) == 6
    for name in names:
        config, _ = compose([f"experiment={name}"])
        assert config.system == "deepmarc"
        assert config.model.pyramid_width == 256
        assert config.model.train_boxes == ("proposals" if "proposals" in name else "gt")
        assert config.model.mask_head == ("mask_rcnn" if "mask_rcnn" in name else "hourglass52")
        assert config.model.mask_size == (28 if "mask_rcnn" in name else 64)
        if "convnext" not in name:
            assert config.data.image_size == 1024
            assert (config.model.lr, config.trainer.max_steps) == (0.12, 70_000)


def test_callbacks__set_to_null_are_dropped():
    config, _ = compose(["callbacks.pictures=null", "~callbacks.report"])
    kinds = [c["class_path"] for c in lightning_config(config)["trainer"]["callbacks"]]
    assert not any(kind.endswith(("Pictures", "RunReport")) for kind in kinds)
    assert any(kind.endswith("EvaluateCoco") for kind in kinds)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.haed=x", "haed"),
        ("experiment=nope", "nope"),
        ("experiment=null", "override"),
        ("model.lr=[1", "viable"),
    ],
)
def test_unknown_settings__get_one_sentence(override, words):
    with pytest.raises(ConfigError, match=words) as caught:
        compose([override])
    assert "\n" not in str(caught.value)


def test_run_directory__is_what_hydra_names(tmp_path, monkeypatch):
    monkeypatch.delenv("DEEPMAC_RUN_DIR", raising=False)
    _, directory = compose([f"hydra.run.dir={tmp_path}/here"])
    assert directory == tmp_path / "here"
