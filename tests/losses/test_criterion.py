"""The criterion: what counts, what does not, and how it is normalised."""

import math

import numpy as np
import pytest
import torch

from deepmac.losses.center_targets import center_targets
from deepmac.losses.criterion import DeepMACCriterion, supervised_cells
from deepmac.losses.options import LossOptions
from deepmac.nn.replicas import Replicas
from deepmac.nn.stages import StageOutput

B, N, C, SIDE, S = 2, 3, 4, 16, 8


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(B, N, 2, generator=generator) * 30
    boxes = torch.cat([corner, corner + 8 + torch.rand(B, N, 2, generator=generator) * 20], -1)
    return {
        "boxes": boxes,
        "mask_boxes": boxes,
        "labels": torch.randint(0, C, (B, N), generator=generator),
        "valid": torch.tensor([[True, True, True], [True, False, False]]),
        "mask_valid": torch.tensor([[True, False, True], [False, False, False]]),
        "mask_targets": torch.rand(B, N, S, S, generator=generator),
        "true_sizes": torch.tensor([[64, 64], [40, 64]]),
        "ignore": torch.zeros(B, SIDE, SIDE, dtype=torch.bool),
    }


@pytest.fixture
def stages():
    generator = torch.Generator().manual_seed(1)

    def rand(channels):
        return torch.randn(B, channels, SIDE, SIDE, generator=generator).requires_grad_()

    return [StageOutput(rand(C), rand(2), rand(2), rand(16), rand(8)) for _ in range(2)]


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(B, N, S, S, generator=generator).requires_grad_() for _ in range(2)]


def run(stages, logits, batch, options=None):
    return DeepMACCriterion(options or LossOptions())(stages, logits, batch, stride=4)


def test_loss__is_the_weighted_sum_of_its_named_parts(stages, logits, batch):
    losses = run(stages, logits, batch)
    assert set(losses) == {"loss", "heatmap", "size", "offset", "mask"}
    expected = losses["heatmap"] + 0.1 * losses["size"] + losses["offset"] + 5 * losses["mask"]
    assert torch.allclose(losses["loss"], expected)


def test_without_a_detector__there_is_the_mask_loss_alone(stages, logits, batch):
    alone = [stage._replace(heatmap=None, size=None, offset=None) for stage in stages]
    losses = run(alone, logits, batch)
    assert set(losses) == {"loss", "mask"}
    assert losses["mask"] == run(stages, logits, batch)["mask"]
    assert torch.allclose(losses["loss"], 5 * losses["mask"])


def test_mask_loss__ignores_boxes_without_masks(stages, logits, batch):
    before = run(stages, logits, batch)["mask"]
    targets = batch["mask_targets"].clone()
    targets[~batch["mask_valid"]] = 0.123
    assert run(stages, logits, {**batch, "mask_targets": targets})["mask"] == before
    before.backward()
    for stage in logits:
        assert stage.grad[~batch["mask_valid"]].abs().max() == 0
        assert stage.grad[batch["mask_valid"]].abs().min() > 0


def test_mask_loss__counts_a_models_mask_by_the_trust_in_it(stages, logits, batch):
    sure = run(stages, logits, {**batch, "mask_weights": batch["mask_valid"].float()})["mask"]
    assert sure == run(stages, logits, batch)["mask"]
    weights = torch.zeros(batch["mask_valid"].shape)
    weights[0, 0], weights[0, 2] = 1.0, 0.25
    parts = []
    for row in (0, 2):
        alone = torch.zeros_like(batch["mask_valid"])
        alone[0, row] = True
        parts.append(run(stages, logits, {**batch, "mask_valid": alone})["mask"])
    mixed = run(stages, logits, {**batch, "mask_weights": weights})["mask"]
    assert torch.allclose(mixed, (parts[0] + 0.25 * parts[1]) / 2)


def test_mask_loss__is_the_mean_over_pixels_then_instances_then_stages(stages, logits, batch):
    expected = []
    for stage in logits:
        for place in batch["mask_valid"].nonzero().tolist():
            own, target = stage[tuple(place)], batch["mask_targets"][tuple(place)]
            expected.append(
                torch.nn.functional.binary_cross_entropy_with_logits(own, target).item()
            )
    assert run(stages, logits, batch)["mask"].item() == pytest.approx(np.mean(expected))


def test_mask_loss__per_image_weighs_images_alike(stages, logits, batch):
    batch["mask_valid"][1, 0] = True
    options = LossOptions(mask_normalization="image")
    one_by_one = []
    for i in range(B):
        part = {k: v[i : i + 1] for k, v in batch.items()}
        own = [StageOutput(*(t[i : i + 1] for t in stage)) for stage in stages]
        one_by_one.append(run(own, [one[i : i + 1] for one in logits], part)["mask"])
    assert torch.allclose(run(stages, logits, batch, options)["mask"], sum(one_by_one) / B)


def test_padding_rows__never_change_a_loss(stages, logits, batch):
    before = run(stages, logits, batch)
    wider = {**batch}
    for name, fill in (("boxes", 5.0), ("labels", 0), ("valid", 0), ("mask_valid", 0)):
        pad = torch.full_like(batch[name][:, :1], fill)
        wider[name] = torch.cat([batch[name], pad], 1)
    wider["mask_targets"] = torch.cat([batch["mask_targets"], torch.ones(B, 1, S, S)], 1)
    more = [torch.cat([one, torch.full((B, 1, S, S), 9.0)], 1) for one in logits]
    after = run(stages, more, wider)
    for name, value in before.items():
        assert torch.allclose(after[name], value, rtol=1e-6), name


def test_heatmap_loss__is_silent_in_crowds_and_outside_the_image(stages, logits, batch):
    batch["ignore"][0, :4, :4] = True
    run(stages, logits, batch)["heatmap"].backward()
    gradient = stages[0].heatmap.grad
    assert gradient[0, :, :4, :4].abs().max() == 0
    assert gradient[1, :, 10:].abs().max() == 0  # 40 pixels high: rows 10.. are padding
    assert gradient[1, :, :10].abs().min() > 0


def test_heatmap_gradient__is_zero_exactly_where_an_unmarked_object_may_be(stages, logits, batch):
    open_classes = torch.zeros(B, C, dtype=torch.bool)
    open_classes[0, 1] = open_classes[0, int(batch["labels"][0, 0])] = True
    heatmap = stages[-1].heatmap.detach().clone().requires_grad_()
    stage = [stages[-1]._replace(heatmap=heatmap)]
    options = LossOptions(size_weight=0, offset_weight=0, mask_weight=0)
    run(stage, logits[-1:], batch, options)["loss"].backward()
    whole = heatmap.grad.clone()
    heatmap.grad = None
    marked = {**batch, "open_classes": open_classes}
    run(stage, logits[-1:], marked, options)["loss"].backward()
    targets = center_targets(
        batch["boxes"], batch["labels"], batch["valid"],
        num_classes=C, map_size=(SIDE, SIDE), stride=4,
    )  # fmt: skip
    may_hold = open_classes[:, :, None, None] & (targets.heatmap < math.exp(-4.5))
    assert (heatmap.grad[may_hold] == 0).all() and may_hold.any()
    assert (heatmap.grad[~may_hold] == whole[~may_hold]).all()
    inside = supervised_cells(batch["true_sizes"], batch["ignore"], 4).bool().expand_as(whole)
    assert (whole[may_hold & inside] != 0).all()
    known = open_classes[:, :, None, None] & (targets.heatmap == 1.0)
    assert known.any() and (heatmap.grad[known] != 0).all()


def test_focal_loss__clipped_and_stable_forms_agree_for_ordinary_logits(stages, logits, batch):
    stable = run(stages, logits, batch)["heatmap"]
    clipped = run(stages, logits, batch, LossOptions(probability_clip=1e-4))["heatmap"]
    assert torch.allclose(stable, clipped, rtol=1e-5)


def test_losses__are_finite_without_objects_and_with_extreme_logits(batch):
    batch["valid"][:] = batch["mask_valid"][:] = False
    huge = torch.full((B, C, SIDE, SIDE), 80.0, requires_grad=True)
    two = torch.zeros(B, 2, SIDE, SIDE, requires_grad=True)
    stage = StageOutput(huge, two, two, two, None)
    losses = run([stage], [torch.zeros(B, N, S, S)], batch)
    assert all(math.isfinite(value) for value in losses.values())
    assert losses["mask"] == losses["size"] == losses["offset"] == 0
    losses["loss"].backward()
    assert huge.grad.isfinite().all()


def test_normalisation__averaging_replicas_equals_one_large_batch(stages, logits, batch):
    whole = run(stages, logits, batch)
    total = {name: 0.0 for name in whole}
    counts = {"valid": batch["valid"].sum(), "mask_valid": batch["mask_valid"].sum()}
    for i in range(B):
        part = {k: v[i : i + 1] for k, v in batch.items()}
        criterion = DeepMACCriterion(LossOptions())
        own = [StageOutput(*(t[i : i + 1] for t in stage)) for stage in stages]
        answers = iter([counts["valid"].float(), *[counts["mask_valid"].float()] * 2])
        criterion.replicas = Replicas(B, lambda value, answers=answers: next(answers))
        for name, value in criterion(
            own, [one[i : i + 1] for one in logits], part, stride=4
        ).items():
            total[name] += value / B
    for name, value in whole.items():
        assert torch.allclose(total[name], value, rtol=1e-5), name


def test_supervised_cells__round_the_image_up_to_whole_cells():
    counted = supervised_cells(torch.tensor([[5, 8]]), torch.zeros(1, 4, 4, dtype=torch.bool), 4)
    assert counted[0, 0].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_against_tf__focal_loss(reference_file):
    reference = np.load(reference_file("targets.npz"))
    logits = torch.tensor(reference["focal_logits"]).permute(0, 2, 1).unsqueeze(-1)
    target = torch.tensor(reference["focal_targets"]).permute(0, 2, 1).unsqueeze(-1)
    weight = torch.tensor(reference["focal_weights"]).permute(0, 2, 1).unsqueeze(-1)
    criterion = DeepMACCriterion(LossOptions(probability_clip=1e-4))
    ours = criterion._focal(logits, target, weight)
    assert ours.item() == pytest.approx(reference["focal_loss"].sum(), rel=1e-4)
