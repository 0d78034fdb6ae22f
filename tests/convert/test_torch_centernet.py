"""PyTorch CenterNet and ExtremeNet weights find their place in the hourglass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from deepmac.convert import convert
from deepmac.convert.torch_centernet import convert_torch_centernet
from deepmac.errors import UserError
from deepmac.nn.hourglass import HOURGLASS_BACKBONES, HourglassSpec, hourglass_backbone

TINY, FULL = HOURGLASS_BACKBONES["hourglass_tiny2"], HOURGLASS_BACKBONES["hourglass_104"]


class TheirBlock(nn.Module):
    """Convolution, norm and ReLU under CenterNet's names."""

    def __init__(self, kernel: int, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class TheirResidual(nn.Module):
    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        changes = stride != 1 or before != after
        self.skip = projection(before, after, stride) if changes else nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (out + self.skip(x)).relu()


def projection(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


class TheirLevel(nn.Module):
    def __init__(self, channels: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        outer, inner, count = channels[0], channels[1], blocks[0]
        self.up1 = nn.Sequential(*(TheirResidual(outer, outer) for _ in range(count)))
        self.low1 = nn.Sequential(
            TheirResidual(outer, inner, 2), *(TheirResidual(inner, inner) for _ in range(count - 1))
        )
        if len(channels) > 2:
            self.low2: nn.Module = TheirLevel(channels[1:], blocks[1:])
        else:
            self.low2 = nn.Sequential(*(TheirResidual(inner, inner) for _ in range(blocks[1])))
        self.low3 = nn.Sequential(
            *(TheirResidual(inner, inner) for _ in range(count - 1)), TheirResidual(inner, outer)
        )

    def forward(self, x: Tensor) -> Tensor:
        low = self.low3(self.low2(self.low1(x)))
        return self.up1(x) + nn.functional.interpolate(low, scale_factor=2)


class TheirNetwork(nn.Module):
    """The network of ``ctdet_coco_hg.pth``, at any size."""

    def __init__(self, spec: HourglassSpec) -> None:
        super().__init__()
        width, stacks = spec.channels[0], range(spec.stacks)
        joints = stacks[:-1]
        self.pre = nn.Sequential(
            TheirBlock(7, 3, spec.input_channels, 2), TheirResidual(spec.input_channels, width, 2)
        )
        self.kps = nn.ModuleList(TheirLevel(spec.channels, spec.blocks) for _ in stacks)
        self.cnvs = nn.ModuleList(TheirBlock(3, width, width) for _ in stacks)
        self.inters = nn.ModuleList(TheirResidual(width, width) for _ in joints)
        self.inters_ = nn.ModuleList(projection(width, width) for _ in joints)
        self.cnvs_ = nn.ModuleList(projection(width, width) for _ in joints)

    def forward(self, image: Tensor) -> list[Tensor]:
        x, outputs = self.pre(image), []
        for i, (level, output) in enumerate(zip(self.kps, self.cnvs, strict=True)):
            outputs.append(output(level(x)))
            if i + 1 < len(self.kps):
                x = self.inters[i]((self.inters_[i](x) + self.cnvs_[i](outputs[-1])).relu())
        return outputs


def test_torch_centernet__same_weights_give_the_same_maps() -> None:
    torch.manual_seed(0)
    theirs = TheirNetwork(TINY).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    state, unknown = convert_torch_centernet(theirs.state_dict())
    assert not unknown
    ours = hourglass_backbone("hourglass_tiny2").eval()
    prefix = "backbone.network."
    ours.load_state_dict({k.removeprefix(prefix): v for k, v in state.items()}, strict=True)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(ours(image), theirs(image), strict=True):
            torch.testing.assert_close(a, b)


def test_torch_centernet__heads_keep_their_order_of_channels() -> None:
    names = ["hm.1.0.conv.weight", "wh.0.1.bias", "reg.0.0.conv.bias", "t_heats.0.1.bias"]
    state, unknown = convert_torch_centernet({name: torch.zeros(1) for name in names})
    assert list(state) == [
        "heads.1.heatmap.0.weight",
        "heads.0.size.2.bias",
        "heads.0.offset.0.bias",
    ]
    assert unknown == ["t_heats.0.1.bias"]


@pytest.mark.parametrize(
    "name",
    [
        "pre",
        "pre.2.conv.weight",
        "kps.0.weight",
        "kps.0.up1.weight",
        "kps.0.up9.0.conv1.weight",
        "kps.0.low2.low2.weight",
        "cnvs.weight",
        "inters_.0.7.weight",
        "hm.0.9.weight",
    ],
)
def test_torch_centernet__names_it_does_not_know(name: str) -> None:
    assert convert_torch_centernet({name: torch.zeros(1)}) == ({}, [name])


def test_convert__takes_a_pth_of_hourglass_104(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[str, torch.Size] = {}

    def save(tensors: dict[str, Tensor], metadata: object) -> bytes:
        written.update({name: tensor.shape for name, tensor in tensors.items()})
        return b""

    monkeypatch.setattr("safetensors.torch.save", save)
    monkeypatch.setattr(Tensor, "contiguous", lambda self: self)  # 750 MB of zeros otherwise
    with torch.device("meta"):
        theirs = TheirNetwork(FULL).state_dict()
        ours = hourglass_backbone("hourglass_104").state_dict()
    stored = {f"module.{k}": torch.zeros(()).expand(v.shape) for k, v in theirs.items()}
    path = tmp_path / "ctdet_coco_hg.pth"
    torch.save({"epoch": 50, "state_dict": stored}, path)
    report = convert(path, tmp_path / "out")
    assert not report.missing and not report.unused
    assert {f"backbone.network.{k}": v.shape for k, v in ours.items()} == written


def test_convert__other_pytorch_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="holds no hourglass of CenterNet or ExtremeNet"):
        convert(path, tmp_path / "out")
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match="cannot be read as weights"):
        convert(path, tmp_path / "out")
