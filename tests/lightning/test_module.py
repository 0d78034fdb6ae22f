"""The LightningModule: what stops it, what it stores, what it refuses."""

import pytest
import torch

from deepmac.errors import ConfigError, UserError
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.models.initial_weights import load_initial_weights
from deepmac.nn.backbones import CENTERNET_BGR, IMAGENET
from networks import CLASSES, TINY


def module(**changes):
    torch.manual_seed(0)
    built = DeepMACModule(**{**TINY["deepmac"], **changes})
    built.build(CLASSES)
    return built


def checkpoint_of(built):
    content = {"state_dict": built.state_dict(), "hyper_parameters": dict(built.hparams)}
    built.on_save_checkpoint(content)
    return content


def test_hyperparameters__are_plain_so_that_checkpoints_load_without_running_code(tmp_path):
    torch.save(checkpoint_of(module()), tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content["deepmac_class_map"]["category_ids"] == [3, 7, 11]
    assert content["hyper_parameters"]["losses"]["mask_weight"] == 5.0


def test_checkpoint__brings_its_classes_to_a_fresh_module(tmp_path):
    content = checkpoint_of(module())
    fresh = DeepMACModule(**TINY["deepmac"])
    fresh.on_load_checkpoint(content)
    fresh.load_state_dict(content["state_dict"])
    assert fresh.class_map == CLASSES


def test_checkpoint__of_other_classes_is_refused():
    content = checkpoint_of(module())
    content["deepmac_class_map"]["category_ids"][0] = 99
    with pytest.raises(ConfigError, match="knows 3 classes"):
        module().on_load_checkpoint(content)


def test_checkpoint__that_does_not_fit_names_the_settings_that_differ():
    content = checkpoint_of(module())
    with pytest.raises(ConfigError, match=r"mask_head .hourglass10. -> .resnet4."):
        module(mask_head="resnet4").on_load_checkpoint(content)


def test_checkpoint__explicit_settings_win_and_are_told(capsys):
    content = checkpoint_of(module())
    changed = module(lr=0.5)
    changed.on_load_checkpoint(content)
    assert changed.hparams["lr"] == 0.5
    assert "lr 0.001 -> 0.5" in capsys.readouterr().out


def test_checkpoint_with_a_detector__opens_without_it(tmp_path, capsys):
    content = checkpoint_of(module())
    masks_only = module(detector=False)
    masks_only.on_load_checkpoint(content)
    masks_only.load_state_dict(content["state_dict"])
    assert "detector True -> False" in capsys.readouterr().out
    assert not any(".heatmap." in name for name in masks_only.state_dict())
    path = tmp_path / "whole.ckpt"
    torch.save(checkpoint_of(module()), path)
    begun = module(detector=False, init_from=str(path))
    assert "0 start fresh" in capsys.readouterr().out
    assert masks_only.state_dict().keys() == begun.state_dict().keys()


def test_num_classes__that_disagrees_with_the_data_is_an_error():
    with pytest.raises(ConfigError, match=r"model.num_classes=4"):
        module(num_classes=4)


def test_mask_threshold__is_a_probability():
    with pytest.raises(ConfigError, match=r"model.mask_threshold=1.5 is out of its range"):
        module(mask_threshold=1.5)


def test_hourglass__normalises_as_centernet_does_by_default():
    assert module(backbone="hourglass_10").network.normalize.normalization == CENTERNET_BGR


def test_init_from__brings_the_normalisation_of_its_weights(tmp_path, capsys):
    first = module(normalization="imagenet")
    torch.save(checkpoint_of(first), tmp_path / "a.ckpt")
    second = module(init_from=str(tmp_path / "a.ckpt"))
    assert second.network.normalize.normalization == IMAGENET
    assert "0 start fresh" in capsys.readouterr().out
    for name, value in first.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value)


def test_init_from__refuses_a_normalisation_that_contradicts_the_weights(tmp_path):
    torch.save(checkpoint_of(module(normalization="imagenet")), tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match="contradicts"):
        module(init_from=str(tmp_path / "a.ckpt"), normalization="centernet_bgr")


def test_init_from__reports_what_did_not_fit(tmp_path):
    torch.save(checkpoint_of(module()), tmp_path / "a.ckpt")
    other = module(mask_head="resnet4")
    path = str(tmp_path / "a.ckpt")
    (said,) = load_initial_weights(other.network, path, normalization=None)
    assert "start fresh (mask_head." in said and "of the file unused (mask_head." in said


@pytest.mark.parametrize("content", [b"not a weight file", b""])
def test_init_from__an_unreadable_file_is_one_sentence(tmp_path, content):
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a readable weight file"):
        module(init_from=str(path))


def test_loss_that_is_not_finite__stops_with_names_and_image_ids():
    built = module()
    with torch.no_grad():
        built.network.heads[0].heatmap[2].bias.fill_(float("nan"))
    batch = {
        "images": torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
        "boxes": torch.tensor([[[8.0, 8, 40, 40]], [[8.0, 8, 40, 40]]]),
        "mask_boxes": torch.tensor([[[8.0, 8, 40, 40]], [[8.0, 8, 40, 40]]]),
        "labels": torch.zeros(2, 1, dtype=torch.long),
        "valid": torch.ones(2, 1, dtype=torch.bool),
        "mask_valid": torch.ones(2, 1, dtype=torch.bool),
        "mask_targets": torch.zeros(2, 1, 32, 32),
        "true_sizes": torch.tensor([[64, 64], [64, 64]]),
        "ignore": torch.zeros(2, 16, 16, dtype=torch.bool),
        "image_ids": torch.tensor([139, 285]),
    }
    with pytest.raises(UserError, match=r"heatmap nan.*images 139, 285"):
        built.training_step(batch, 0)


def test_frozen_backbone__keeps_its_weights_and_statistics_while_its_pyramid_learns():
    built = module(backbone="tf_efficientnet_lite0", freeze="backbone", pyramid_width=8)
    assert built.training  # as Lightning finds and leaves it
    network = built.network
    frozen = network.backbone.network
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not any(part.training for part in frozen.modules())
    assert network.backbone.laterals.training and network.mask_head.training
    network(torch.randint(0, 255, (2, 3, 64, 64)).float())[-1].heatmap.sum().backward()
    assert all(torch.equal(before[n], v) for n, v in frozen.state_dict().items())
    assert all(p.grad is not None for p in network.backbone.laterals.parameters())
