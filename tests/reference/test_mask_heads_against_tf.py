"""The seventeen mask heads give the numbers of the TensorFlow original.

A fixture is what one original head answered to random input, in TensorFlow layout; three small
ones travel with the tests.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from deepmac.convert import convert_variables
from deepmac.errors import UserError
from deepmac.nn.conventions import Compat, conventions_of
from deepmac.nn.mask_heads import MASK_HEADS, MaskHead, build_mask_head

FIXTURES = Path(__file__).parent / "fixtures" / "heads"
INSIDE = sorted(path.stem for path in FIXTURES.glob("*.npz"))


class Fixture:
    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            self.arrays = dict(arrays)
        meta = json.loads(str(self.arrays["meta"]))
        pixel = self.arrays["pixel_embedding"]  # coordinates, where used, are already in it
        self.pixel = torch.from_numpy(pixel.transpose(0, 3, 1, 2).copy())
        self.instance = torch.from_numpy(self.arrays["instance_embedding"])
        in_channels = self.pixel.shape[1]
        if meta["use_instance_embedding"]:
            in_channels += self.instance.shape[1]
        self.arguments = (
            meta["network_type"],
            in_channels,
            meta["num_init_channels"],
            self.pixel.shape[-1],
        )

    def head(self, compat: Compat = "tf_latest") -> MaskHead:
        head = build_mask_head(*self.arguments, conventions=conventions_of(compat))
        head.load_state_dict(convert_variables(self.under("w::")), strict=True)
        return head

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}


# At 32x32 and three rows these end in 1x1 maps: batch statistics of three numbers, one norm
# after the other, which blow rounding up until training-mode logits mean little.
ILL_CONDITIONED = ("hourglass52", "hourglass100")
BEHIND_1X1_MAPS = re.compile(r"\.up\.|outputs|(inner\.0\.){4}(down|inner)")


def deviation(ours: Tensor, theirs: Tensor | np.ndarray) -> float:
    """The largest difference, relative to the largest number."""
    theirs = torch.as_tensor(theirs)
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def check(fixture: Fixture, compat: Compat = "tf_latest") -> None:
    head = fixture.head(compat)
    with torch.no_grad():
        eval_logits = head.eval()(fixture.pixel, fixture.instance)
        assert deviation(eval_logits, fixture.arrays["logits"]) <= 1e-4
        if "logits_training_mode" not in fixture.arrays:
            assert not list(head.buffers())  # no norm: training changes nothing
            return
        training_logits = head.train()(fixture.pixel, fixture.instance)
    name = fixture.arguments[0]
    ill = name in ILL_CONDITIONED
    allowed = 3 * effect_of_rounding(fixture) if ill else 1e-4
    assert deviation(training_logits, fixture.arrays["logits_training_mode"]) <= allowed
    after = convert_variables(fixture.under("w::") | fixture.under("after_train::"))
    # The original's hourglass norms take E[x2] - E[x]2, which rounds to some 1e-6.
    tolerance = 3e-5 if ill else 1e-6 if name.startswith("resnet") else 5e-6
    for key, ours in head.named_buffers():
        if not (ill and BEHIND_1X1_MAPS.search(key)):
            assert deviation(ours, after[key]) <= tolerance, key


def effect_of_rounding(fixture: Fixture) -> float:
    """How far float64 training-mode logits move when the input is off by one in a million."""
    head = fixture.head().double().train()
    pixel, instance = fixture.pixel.double(), fixture.instance.double()
    noise = torch.randn(pixel.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = head(pixel, instance)
        return deviation(head(pixel * (1 + 1e-6 * noise), instance), exact)


@pytest.mark.parametrize("name", INSIDE)
def test_mask_head__gives_the_originals_numbers(name: str) -> None:
    check(Fixture(FIXTURES / f"{name}.npz"))


@pytest.mark.parametrize("name", sorted(set(MASK_HEADS) - set(INSIDE)))
def test_mask_head__gives_the_originals_numbers__all_the_rest(name: str, shared: Path) -> None:
    check(Fixture(shared / "reference_fixtures" / "heads" / f"{name}.npz"))


def test_mask_head__norms_of_both_originals_are_the_same() -> None:
    check(Fixture(FIXTURES / "resnet4.npz"), compat="tf_release")


@pytest.mark.parametrize("name", ["hourglass10", "resnet4"])
def test_mask_head__masked_rows_leave_the_originals_numbers_alone(name: str) -> None:
    fixture = Fixture(FIXTURES / f"{name}.npz")
    head = fixture.head().train()
    junk = torch.full_like(fixture.pixel, 1e3)
    pixel = torch.cat([junk, fixture.pixel])
    instance = torch.cat([fixture.instance, fixture.instance])
    valid = torch.arange(len(pixel)) >= len(junk)
    with torch.no_grad():
        logits = head(pixel, instance, valid)[len(junk) :]
    assert deviation(logits, fixture.arrays["logits_training_mode"]) <= 1e-4


def test_convert_variables__accepts_keys_as_checkpoints_spell_them() -> None:
    fixture = Fixture(FIXTURES / "resnet4.npz")
    plain = convert_variables(fixture.under("w::"))
    spelled = convert_variables(
        {f"{k}/.ATTRIBUTES/VARIABLE_VALUE": v for k, v in fixture.under("w::").items()}
    )
    assert plain.keys() == spelled.keys()
    assert all(torch.equal(plain[name], spelled[name]) for name in plain)


def test_convert_variables__swaps_rows_of_size_and_offset_heads() -> None:
    kernel = np.stack([np.full((1, 1, 5), 1.0), np.full((1, 1, 5), 2.0)], axis=-1)
    state = convert_variables(
        {
            "model/_prediction_head_dict/box.Sscale/1/layer_with_weights-1/kernel": kernel,
            "model/_prediction_head_dict/box.Soffset/0/layer_with_weights-1/bias": np.arange(2.0),
            "model/_prediction_head_dict/object_center/0/layer_with_weights-0/bias": np.arange(2.0),
        }
    )
    assert state["heads.1.size.2.weight"][:, 0, 0, 0].tolist() == [2.0, 1.0]
    assert state["heads.0.offset.2.bias"].tolist() == [1.0, 0.0]
    assert state["heads.0.heatmap.0.bias"].tolist() == [0.0, 1.0]


def test_convert_variables__leaves_out_what_is_no_weight_of_the_model() -> None:
    state = convert_variables(
        {
            "optimizer/iter/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(()),
            "step": np.zeros(()),
            "save_counter/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(()),
            "_CHECKPOINTABLE_OBJECT_GRAPH": np.zeros(()),
            "model/_mask_net/project_out/bias/.OPTIMIZER_SLOT/optimizer/m": np.zeros(1),
            "model/_self_supervised_rng/_state_var/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(3),
        }
    )
    assert state == {}
    assert convert_variables({}) == {}


@pytest.mark.parametrize(
    "key",
    [
        "model/_something/kernel",
        "model/_mask_net/_net/new_layer/kernel",
        "model/_mask_net/_net/conv_input/conv_block/norm/renorm",
        "model/_prediction_head_dict/box.Sdepth/0/layer_with_weights-0/kernel",
        "generator/kernel",
    ],
)
def test_convert_variables__names_what_it_does_not_know(key: str) -> None:
    with pytest.raises(UserError, match=key.replace(".", r"\.")):
        convert_variables({key: np.zeros((1, 1, 1, 1))})


def test_convert_variables__gives_memory_of_its_own() -> None:
    bias = np.zeros(1, dtype=np.float32)
    state = convert_variables({"mask_net/project_out/bias": bias})
    bias += 1
    assert state["project_out.bias"].item() == 0


def test_convert_variables__refuses_half_a_residual_head() -> None:
    variables = Fixture(FIXTURES / "resnet4.npz").under("w::")
    norms = {key: value for key, value in variables.items() if "kernel" not in key}
    with pytest.raises(UserError, match="all variables of a residual mask head"):
        convert_variables(norms)
