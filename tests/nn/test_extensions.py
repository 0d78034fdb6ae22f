"""Heads and backbones of somebody else's: made from their path, never chosen by a file."""

import sys
import types

import pytest
import torch
from torch import nn

from deepmac.nn.backbones import IMAGENET, Backbone
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.deepmarc.model import DeepMARC
from deepmac.nn.extensions import VARIABLE, import_named, named_class
from deepmac.nn.mask_heads import MaskHead


class Plain(nn.Module):
    """No channels told: its one map is the mask."""

    def __init__(self, in_channels):
        super().__init__()
        self.layer = nn.Conv2d(in_channels, 1, 1)

    def forward(self, crops):
        return self.layer(crops)


class Whole(MaskHead):
    def __init__(self, *, in_channels, width, mask_size):
        super().__init__(in_channels=in_channels, trunk_channels=width)
        self.layer = nn.LazyConv2d(width, 1)

    def trunk(self, pixel, instance=None, valid=None):
        return self.layer(pixel)


class Stem(Backbone):
    def __init__(self, stride, pyramid_width):
        super().__init__()
        self.layer = nn.Conv2d(3, pyramid_width, stride, stride)
        self.out_channels, self.stride, self.num_outputs = pyramid_width, stride, 1
        self.size_divisor, self.normalization = stride, IMAGENET

    def forward(self, images):
        return [self.layer(images)]


class Levels(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Conv2d(3, width, 4, 4)
        self.out_channels, self.size_divisor, self.normalization = width, 64, IMAGENET

    def forward(self, images):
        level = self.layer(images)
        names = ("0", "1", "2", "3", "pool")
        return {name: level[..., :: 2**i, :: 2**i] for i, name in enumerate(names)}


class Forgetful(Backbone):
    def __init__(self):
        super().__init__()


HERE = __name__
SMALL = {"num_classes": 2, "head_channels": 8, "num_init_channels": 4, "pyramid_width": 8}
BOXES = torch.tensor([[[4.0, 4, 40, 30]]])


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, HERE, sys.modules.get(HERE) or types.ModuleType(HERE))
    for name, value in globals().items():
        if isinstance(value, type):
            monkeypatch.setattr(sys.modules[HERE], name, value, raising=False)


@pytest.mark.parametrize("name", ["Plain", "Whole"])
def test_own_mask_head__answers_in_deepmac_and_deepmarc(name):
    images = torch.zeros(1, 3, 64, 64)
    head = f"{HERE}.{name}"
    mac = DeepMAC(backbone="resnet18", mask_head=head, mask_size=16, **SMALL).eval()
    assert mac.mask_logits(mac(images)[-1], BOXES).shape == (1, 1, 16, 16)
    marc = DeepMARC(backbone="resnet18", mask_head=head, mask_size=16, **SMALL).eval()
    assert marc.mask_probabilities(marc(images)[-1], BOXES).shape == (1, 1, 16, 16)


def test_own_backbone__carries_deepmac_and_deepmarc():
    images = torch.zeros(1, 3, 64, 64)
    mac = DeepMAC(backbone=f"{HERE}.Stem", mask_head="resnet4", **SMALL).eval()
    assert mac(images)[-1].heatmap.shape == (1, 2, 16, 16)
    marc = DeepMARC(backbone=f"{HERE}.Levels", mask_head="resnet4", **SMALL).eval()
    assert marc.detect(marc(images)[-1]).boxes.shape == (1, 100, 4)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"mask_head": "nowhere_at_all.Head"}, r"not imported.*DEEPMAC_EXTENSIONS=nowhere_at_all"),
        ({"mask_head": "os.system"}, "no subclass"),
        ({"mask_head": "subprocess.Popen"}, "no subclass"),
        ({"backbone": f"{HERE}.Plain"}, "no subclass of deepmac.nn.backbones.Backbone"),
        ({"backbone": f"{HERE}.Forgetful"}, "has to set out_channels"),
    ],
)
def test_wrong_classes__are_refused_in_a_sentence(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        DeepMAC(**{"backbone": "resnet18", "mask_head": "resnet4", **SMALL, **setting})


def test_files__choose_no_module_and_people_do(tmp_path, monkeypatch):
    (tmp_path / "theirs_of_a_test.py").write_text("from torch import nn\nclass A(nn.Module): ...\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="not imported"):
        named_class("theirs_of_a_test.A", nn.Module, "a mask head")
    assert "theirs_of_a_test" not in sys.modules
    monkeypatch.setenv(VARIABLE, "other, theirs_of_a_test")
    named_class("theirs_of_a_test.A", nn.Module, "a mask head")
    import_named(["theirs_of_a_test.A", "hourglass52"])
    with pytest.raises(ValueError, match="cannot be imported"):
        import_named(["theirs_of_a_test_too.A"])
