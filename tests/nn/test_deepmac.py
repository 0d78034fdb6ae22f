"""The whole network: shapes, padding, packing, and what masks may depend on."""

import pytest
import torch

from deepmac.errors import UserError
from deepmac.nn import deepmac as deepmac_module
from networks import tiny_network


def build(**changes):
    small = {"backbone": "hourglass_10", "head_channels": 16, "max_detections": 10}
    return tiny_network(**{**small, **changes}).train()


@pytest.fixture(scope="module")
def network():
    return build().eval()


@pytest.fixture
def images():
    return torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(3)).byte()


BOXES = torch.tensor(
    [
        [[4.0, 8, 40, 50], [0, 0, 64, 64], [20, 20, 30, 28]],
        [[1.0, 2, 20, 60], [0, 0, 0, 0], [0, 0, 0, 0]],
    ]
)
VALID = torch.tensor([[True, False, True], [True, False, False]])


def test_forward__gives_every_head_on_the_stride_4_map(network, images):
    (stage,) = network(images)
    assert stage.heatmap.shape == (2, 3, 16, 16)
    assert stage.size.shape == stage.offset.shape == (2, 2, 16, 16)
    assert stage.pixel_embedding.shape == stage.instance_embedding.shape == (2, 4, 16, 16)
    assert network.mask_logits(stage, BOXES).shape == (2, 3, 32, 32)


def test_heatmap__starts_near_probability_one_tenth(network, images):
    (stage,) = network(images)
    assert 0.02 < stage.heatmap.sigmoid().mean() < 0.4


def test_batch_of_one__equals_batch_of_many(network, images):
    (many,) = network(images)
    (one,) = network(images[1:])
    assert torch.allclose(one.heatmap[0], many.heatmap[1], atol=1e-5)
    logits = network.mask_logits(many, BOXES)
    alone = network.mask_logits(one, BOXES[1:, :1])
    assert torch.allclose(alone[0, 0], logits[1, 0], atol=1e-4)


def test_mask_logits__rows_that_are_not_valid_are_zero_and_change_nothing(images):
    network = build().train()
    (stage,) = network(images)
    logits = network.mask_logits(stage, BOXES, VALID)
    assert logits[~VALID].abs().max() == 0
    moved = BOXES.clone()
    moved[~VALID] = 13.0
    again = build().train()
    assert torch.allclose(again.mask_logits(again(images)[0], moved, VALID), logits, atol=1e-5)


def test_packed_and_masked_rows__give_equal_logits_gradients_and_statistics(images, monkeypatch):
    results = []
    for static in (False, True):
        monkeypatch.setattr(deepmac_module, "static_shapes", lambda _, on=static: on)
        network = build().train()
        logits = network.mask_logits(network(images)[0], BOXES, VALID)
        (logits * torch.linspace(-1, 1, 32)).square().sum().backward()
        gradients = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        buffers = {n: b.clone() for n, b in network.named_buffers()}
        results.append((logits.detach(), gradients, buffers))
    (packed, gradients, buffers), (masked, gradients_, buffers_) = results
    assert torch.allclose(packed, masked, atol=1e-4)
    assert gradients.keys() == gradients_.keys()
    for name, value in gradients.items():
        scale = max(1.0, value.abs().max().item())
        assert torch.allclose(gradients_[name], value, atol=1e-3 * scale), name
    for name, value in buffers.items():
        assert torch.allclose(buffers_[name], value, atol=1e-4), name


def test_no_mask_in_the_batch__still_gives_every_parameter_a_gradient(images):
    network = build().train()
    (stage,) = network(images)
    logits = network.mask_logits(stage, BOXES, torch.zeros_like(VALID))
    total = logits.sum() + sum(t.sum() for t in stage[:3])
    total.backward()
    missing = [n for n, p in network.named_parameters() if p.grad is None]
    assert not missing, "DistributedDataParallel would wait for these"
    assert all(p.grad.abs().max() == 0 for p in network.mask_head.parameters())


def test_full_resolution__answers_with_crops_of_the_asked_size(images):
    network = build(predict_full_resolution_masks=True, postprocess_crop_size=40).eval()
    (stage,) = network(images)
    assert network.mask_logits(stage, BOXES).shape == (2, 3, 16, 16)
    assert network.mask_probabilities(stage, BOXES).shape == (2, 3, 40, 40)


def test_detect__boxes_lie_in_the_image(network, images):
    sizes = torch.tensor([[64, 64], [40, 64]])
    found = network.detect(network(images)[0], sizes)
    assert found.boxes.shape == (2, 10, 4)
    assert (found.boxes >= 0).all()
    assert (found.boxes[1, :, 3] <= 40).all()
    assert (found.scores.diff(dim=1) <= 0).all()


def test_box_margin__crops_and_masks_reach_beyond_the_box(images):
    wide, plain = build(box_margin=0.25), build()
    wide.load_state_dict(plain.state_dict())
    boxes = torch.tensor([[[16.0, 16, 48, 48]], [[8.0, 20, 40, 44]]])
    grown = wide.mask_frames(boxes)
    assert torch.equal(grown[0, 0], torch.tensor([8.0, 8, 56, 56]))
    assert torch.equal(plain.mask_frames(boxes), boxes)
    with torch.no_grad():
        stage = wide.eval()(images)[-1]
        ours = wide._pixel_inputs(stage, boxes)
        theirs = plain.eval()._pixel_inputs(stage, grown)
    assert torch.allclose(ours[:, :, 2:], theirs[:, :, 2:])
    # Coordinates say where the box is: 1 lies on its edge, further out is more.
    assert ours[0, 0, 0].amax() == pytest.approx(1.5)


def test_without_a_detector__masks_of_boxes_are_the_same_and_detecting_is_refused(images):
    whole, masks = build().eval(), build(detector=False).eval()
    masks.load_state_dict(whole.state_dict(), strict=False)
    assert not any("heatmap" in name or "size" in name for name in masks.state_dict())
    boxes = torch.tensor([[[16.0, 16, 48, 48]], [[8.0, 20, 40, 44]]])
    with torch.no_grad():
        stage = masks(images)[-1]
        assert stage.heatmap is None
        expected = whole.mask_logits(whole(images)[-1], boxes)
        assert torch.allclose(masks.mask_logits(stage, boxes), expected)
    with pytest.raises(UserError, match="no detector"):
        masks.detect(stage)


def test_two_stacks__share_one_mask_head_and_have_own_prediction_heads(images):
    network = build(backbone="hourglass_tiny2", checkpoint_activations=True)
    stages = network(torch.cat([images, images], 3)[..., :64])
    assert len(stages) == len(network.heads) == 2
    network.mask_logits(stages[0], BOXES).sum().backward()


def test_options__change_the_mask_heads_input(images):
    for changes, channels in (
        ({}, 10),
        ({"use_xy": False}, 8),
        ({"use_instance_embedding": False}, 6),
    ):
        network = build(**changes)
        assert network.mask_head.in_channels == channels
        network.mask_logits(network(images)[0], BOXES)


def test_bad_settings__are_refused_with_a_sentence(network):
    with pytest.raises(ValueError, match="use_instance_embedding=false"):
        build(mask_head="cond_inst3")
    with pytest.raises(ValueError, match="multiples of"):
        network(torch.zeros(1, 3, 65, 64))


def test_crop_that_does_not_exist__is_refused_before_anything_is_built() -> None:
    with pytest.raises(ValueError, match="crop_impl=9223372036854775808 is none of auto"):
        tiny_network(crop_impl=1 << 63)


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_stages__that_are_read_at_cells_teach_what_whole_maps_do(count, precision):
    torch.manual_seed(0)
    network = tiny_network(mask_size=8).train()
    images = torch.rand(2, 3, 64, 64) * 255
    boxes = torch.tensor([[0.0, 0, 8, 8], [20, 10, 60, 50], [40, 50, 64, 64]])[:count].expand(
        2, -1, 4
    )
    y, x = ((boxes[..., at] / network.stride).long() for at in (1, 0))
    found = []
    for kind in (network.stages, network):
        network.zero_grad()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            stage = kind(images)[-1]
            masks = network.mask_logits(stage, boxes)
        values = [masks, stage.heatmap, stage.at("size", y, x), stage.at("offset", y, x)]
        sum(value.float().square().sum() for value in values).backward()
        used = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        found.append((values, used))
    (ours, learned), (theirs, expected) = found
    assert learned.keys() == expected.keys()
    if precision == torch.float32:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(learned, expected, rtol=1e-3, atol=1e-3)
    else:
        assert [value.dtype for value in ours] == [value.dtype for value in theirs]
