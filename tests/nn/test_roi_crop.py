"""Crops: our two forms equal torchvision's operator; the original's crop equals the original."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_align

from deepmac.nn import roi_crop as module
from deepmac.nn.roi_crop import (
    corner_aligned_crop,
    gathered_roi_align,
    roi_crop,
    separable_roi_align,
    torchvision_roi_align,
)

HEIGHT, WIDTH = 13, 17

# Inside, fractional, partly and fully outside, zero area, inverted, tiny, padding, on the border.
AWKWARD_BOXES = torch.tensor(
    [
        [2.0, 3.0, 9.0, 11.0],
        [1.3, 0.7, 8.9, 5.1],
        [-6.0, -4.0, 5.0, 6.0],
        [10.0, 8.0, 25.0, 20.0],
        [0.0, 0.0, 17.0, 13.0],
        [40.0, 40.0, 60.0, 50.0],
        [-30.0, -30.0, -10.0, -5.0],
        [4.0, 5.0, 4.0, 5.0],
        [9.0, 11.0, 2.0, 3.0],
        [12.0, 2.0, 3.0, 9.0],
        [6.2, 6.1, 6.4, 6.3],
        [0.0, 0.0, 0.0, 0.0],
        [-1.0, -1.0, 17.0, 13.0],
        [-0.5, -0.5, 17.5, 13.5],
    ]
)


def oracle(
    features: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    scale: float,
    samples: int,
    aligned: bool,
) -> Tensor:
    """torchvision's operator called with a plain list of boxes."""
    crops = roi_align(features, list(boxes), size, scale, samples, aligned)
    return crops.reshape(*boxes.shape[:2], *crops.shape[1:])


def random_features(dtype: torch.dtype, seed: int = 0, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, channels, HEIGHT, WIDTH, generator=generator, dtype=dtype) * 2 - 1


def two_images(boxes: Tensor) -> Tensor:
    return torch.stack([boxes, boxes.flip(0)])


OURS = pytest.mark.parametrize("crop", [separable_roi_align, gathered_roi_align])


@OURS
@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_our_crops__equal_torchvision_on_awkward_boxes(
    crop: Callable[..., Tensor], dtype: torch.dtype, tolerance: float, aligned: bool, samples: int
) -> None:
    features, boxes = random_features(dtype), two_images(AWKWARD_BOXES).to(dtype)
    for scale, size in ((1.0, (7, 5)), (0.25, (4, 4))):
        ours = crop(features, boxes / scale, size, scale, samples, aligned)
        theirs = oracle(features, boxes / scale, size, scale, samples, aligned)
        assert ours.shape == theirs.shape and ours.dtype == dtype
        assert (ours - theirs).abs().max() <= tolerance


@OURS
@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_our_crops__have_torchvisions_feature_gradient(
    crop: Callable[..., Tensor], dtype: torch.dtype, tolerance: float, aligned: bool, samples: int
) -> None:
    boxes = two_images(AWKWARD_BOXES).to(dtype)
    gradients = []
    for form in (crop, oracle):
        features = random_features(dtype).requires_grad_()
        crops = form(features, boxes, (7, 7), 1.0, samples, aligned)
        weight = torch.linspace(-1, 1, crops.numel(), dtype=dtype).view_as(crops)
        (crops * weight).sum().backward()
        assert features.grad is not None
        gradients.append(features.grad)
    ours, theirs = gradients
    assert (ours - theirs).abs().max() <= tolerance * max(1.0, float(theirs.abs().max()))


coordinate = st.floats(-40.0, 60.0, allow_nan=False, width=32)
box = st.tuples(coordinate, coordinate, coordinate, coordinate)


@OURS
@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(box, min_size=1, max_size=6),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    samples=st.sampled_from([1, 2, 4]),
    aligned=st.booleans(),
    scale=st.sampled_from([1.0, 0.5, 0.25]),
    seed=st.integers(0, 100),
)
def test_our_crops__equal_torchvision_on_any_boxes(
    crop: Callable[..., Tensor],
    boxes: list[tuple[float, float, float, float]],
    size: tuple[int, int],
    samples: int,
    aligned: bool,
    scale: float,
    seed: int,
) -> None:
    features = random_features(torch.float64, seed).requires_grad_()
    stacked = two_images(torch.tensor(boxes, dtype=torch.float64))
    ours = crop(features, stacked, size, scale, samples, aligned)
    theirs = oracle(features, stacked, size, scale, samples, aligned)
    assert (ours - theirs).abs().max() <= 1e-12
    (our_gradient,) = torch.autograd.grad(ours.square().sum(), features)
    (their_gradient,) = torch.autograd.grad(theirs.square().sum(), features)
    limit = 1e-10 * max(1.0, float(their_gradient.abs().max()))
    assert (our_gradient - their_gradient).abs().max() <= limit


@OURS
@settings(max_examples=30, deadline=None)
@given(
    boxes=st.lists(box, min_size=1, max_size=6),
    samples=st.sampled_from([1, 2, 4]),
    aligned=st.booleans(),
)
def test_our_crops__equal_torchvision_in_float32(
    crop: Callable[..., Tensor],
    boxes: list[tuple[float, float, float, float]],
    samples: int,
    aligned: bool,
) -> None:
    features, stacked = random_features(torch.float32), two_images(torch.tensor(boxes))
    ours = crop(features, stacked, 7, 1.0, samples, aligned)
    assert (ours - oracle(features, stacked, (7, 7), 1.0, samples, aligned)).abs().max() <= 1e-5


def test_torchvision_form__crops_each_image_with_its_own_boxes() -> None:
    features, boxes = random_features(torch.float32), two_images(AWKWARD_BOXES)
    ours = torchvision_roi_align(features, boxes, (6, 4))
    assert torch.equal(ours, oracle(features, boxes, (6, 4), 1.0, 2, True))


@pytest.mark.parametrize("crop", [separable_roi_align, gathered_roi_align, torchvision_roi_align])
def test_crops__keep_half_precision_features_and_full_precision_boxes(
    crop: Callable[..., Tensor],
) -> None:
    features = torch.linspace(0, 1, 400).expand(1, 1, 4, 400).to(torch.bfloat16)
    boxes = torch.tensor([[[300.25, 0.0, 304.25, 4.0]]])
    crops = crop(features, boxes, 4)
    assert crops.dtype == torch.bfloat16
    # In bfloat16 300.25 would become 300 or 302.
    expected = oracle(features.float(), boxes, (4, 4), 1.0, 2, True)
    assert (crops.float() - expected).abs().max() < 8e-3


@pytest.mark.parametrize("impl", ["auto", "torchvision", "gathered", "separable", "corner_aligned"])
def test_crops__of_no_boxes_are_empty(impl: module.CropImpl) -> None:
    crops = roi_crop(random_features(torch.float32), torch.zeros(2, 0, 4), 5, impl=impl)
    assert crops.shape == (2, 0, 3, 5, 5)


@pytest.mark.parametrize("impl", ["torchvision", "gathered", "separable", "corner_aligned"])
def test_crops__send_no_gradient_to_the_boxes(impl: module.CropImpl) -> None:
    features = random_features(torch.float32).requires_grad_()
    boxes = two_images(AWKWARD_BOXES).requires_grad_()
    roi_crop(features, boxes, 5, impl=impl).sum().backward()
    assert features.grad is not None and boxes.grad is None


@pytest.mark.parametrize("ratio", [0, -1])
@pytest.mark.parametrize("impl", ["auto", "torchvision", "gathered", "separable"])
def test_roi_crop__refuses_adaptive_sampling(impl: module.CropImpl, ratio: int) -> None:
    with pytest.raises(ValueError, match="sampling_ratio must be at least 1"):
        roi_crop(random_features(torch.float32), torch.zeros(2, 1, 4), 5, 1.0, impl, ratio)


def test_roi_crop__refuses_unknown_forms_and_shapes() -> None:
    features = random_features(torch.float32)
    with pytest.raises(ValueError, match="impl 'bilinear' is unknown"):
        roi_crop(features, torch.zeros(2, 1, 4), 5, impl="bilinear")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="boxes of 3"):
        roi_crop(features, torch.zeros(3, 1, 4), 5)
    with pytest.raises(ValueError, match=r"boxes \(B, N, 4\)"):
        roi_crop(features, torch.zeros(2, 4), 5)
    with pytest.raises(ValueError, match="at least one cell"):
        roi_crop(features, torch.zeros(2, 1, 4), 0)


def test_gathered__takes_many_boxes_in_turns() -> None:
    features = random_features(torch.float32)
    boxes = torch.rand(2, 150, 4, generator=torch.Generator().manual_seed(3)) * 30
    ours = gathered_roi_align(features, boxes, 4)
    assert (ours - oracle(features, boxes, (4, 4), 1.0, 2, True)).abs().max() < 1e-5


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::FutureWarning")
def test_auto__is_what_is_soonest_when_eager_and_separable_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    def spy(name: str) -> None:
        real = getattr(module, name)

        def record(*arguments: Any) -> Tensor:
            calls.append(name)
            return real(*arguments)

        monkeypatch.setattr(module, name, record)

    spy("torchvision_roi_align")
    spy("gathered_roi_align")
    spy("separable_roi_align")
    features, boxes = random_features(torch.float32), two_images(AWKWARD_BOXES)
    eager = roi_crop(features, boxes, 5)
    roi_crop(features.clone().requires_grad_(), boxes, 5)
    roi_crop(torch.zeros(2, 1, 161, 8, requires_grad=True), boxes, 5)
    torch.jit.trace(lambda f, b: roi_crop(f, b, 5), (features, boxes), check_trace=False)
    roi_crop(features.to("meta"), boxes.to("meta"), 5)
    # Nothing learns; something does, on a small map and on a large one.
    eagerly = ["gathered_roi_align", "separable_roi_align", "torchvision_roi_align"]
    assert calls == [*eagerly, "separable_roi_align", "separable_roi_align"]
    assert (eager - separable_roi_align(features, boxes, 5)).abs().max() < 1e-5


class Crop(torch.nn.Module):
    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        return roi_crop(features, boxes, 6, 0.25)


def test_auto__exports_with_any_number_of_boxes_and_no_custom_operator() -> None:
    features, boxes = random_features(torch.float32), two_images(AWKWARD_BOXES) * 4
    count, batch = torch.export.Dim("boxes"), torch.export.Dim("batch")
    program = torch.export.export(
        Crop(), (features, boxes), dynamic_shapes=({0: batch}, {0: batch, 1: count})
    )
    assert not any("torchvision" in str(node.target) for node in program.graph.nodes)
    for images, number in ((1, 1), (2, 14), (1, 3)):
        arguments = features[:images], boxes[:images, :number]
        difference = program.module()(*arguments) - Crop()(*arguments)
        assert difference.abs().max() < 1e-5


@pytest.fixture(scope="module")
def reference(reference_file) -> dict[str, np.ndarray]:
    return dict(np.load(reference_file("crop.npz")))


@pytest.mark.parametrize(
    ("key", "size"),
    [("crop_7x7", 7), ("crop_32x32", 32), ("crop_1x1", 1), ("crop_5x9", (5, 9))],
)
def test_corner_aligned__equals_the_original(
    reference: dict[str, np.ndarray], key: str, size: module.OutputSize
) -> None:
    features = torch.from_numpy(reference["feature"]).permute(0, 3, 1, 2)
    height, width = features.shape[2:]
    boxes = torch.from_numpy(reference["boxes"])[..., [1, 0, 3, 2]]
    for scale in (1.0, 0.25):
        pixels = boxes * torch.tensor([width, height, width, height]) / scale
        crops = corner_aligned_crop(features, pixels, size, scale)
        expected = torch.from_numpy(reference[key]).permute(0, 1, 4, 2, 3)
        assert (crops - expected).abs().max() <= 1e-4


def test_corner_aligned__puts_the_box_corners_on_pixel_centres_and_flips_inverted_boxes() -> None:
    features = torch.arange(12.0).view(1, 1, 3, 4)
    whole = torch.tensor([[[0.0, 0.0, 4.0, 3.0]]])
    assert torch.equal(corner_aligned_crop(features, whole, (3, 4))[0, 0], features[0])
    inverted = whole[..., [2, 3, 0, 1]]
    flipped = corner_aligned_crop(features, inverted, (3, 4))[0, 0]
    assert torch.allclose(flipped, features[0].flip(1, 2), atol=1e-6)
    assert corner_aligned_crop(features, whole, 1).item() == 5.5


def test_corner_aligned__counts_neighbours_outside_the_map_as_zero() -> None:
    boxes = torch.tensor([[[-2.5, 0.0, 7.5, 5.0], [-0.625, 0.0, 5.0, 5.0]]])
    crops = corner_aligned_crop(torch.ones(1, 1, 5, 5), boxes, 5)[0, :, 0]
    assert torch.allclose(crops[0, 2], torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0]))
    # The first sample lies half a pixel outside: one neighbour counts, the other is zero.
    assert torch.allclose(crops[1, 2], torch.tensor([0.5, 1.0, 1.0, 1.0, 1.0]))


@pytest.mark.parametrize("impl", ["torchvision", "gathered", "separable", "corner_aligned"])
def test_roi_crop__takes_boxes_that_are_not_finite(impl) -> None:
    """torchvision's operator reads outside its memory on them."""
    nan, inf = float("nan"), float("inf")
    wild = torch.tensor([[nan] * 4, [0, 0, inf, inf], [-inf, nan, 1e39, 5], [1e30, 0, 2e30, 9]])
    usual = torch.tensor([[1.0, 2, 20, 25]])
    features = torch.randn(1, 3, 16, 16)
    boxes = torch.cat([wild, usual])[None]
    crops = roi_crop(features, boxes, 8, impl=impl, spatial_scale=0.5)
    assert torch.isfinite(crops).all()
    alone = roi_crop(features, usual[None], 8, impl=impl, spatial_scale=0.5)
    torch.testing.assert_close(crops[:, -1:], alone, atol=1e-6, rtol=0)
