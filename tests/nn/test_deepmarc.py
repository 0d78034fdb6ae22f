"""Deep-MARC: what it shares with torchvision's Mask R-CNN, and what it changes."""

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn
from torchvision.ops import MultiScaleRoIAlign

from deepmac.errors import UserError
from deepmac.nn.deepmarc.mask_branch import ROI_MASK_HEADS, build_roi_mask_head
from deepmac.nn.deepmarc.model import DeepMARC
from deepmac.nn.deepmarc.roi_heads import PyramidRoIAlign, grow_boxes, resample_masks
from deepmac.nn.replicas import Replicas

SIZE = 128
SMALL = {
    "num_classes": 3,
    "backbone": "resnet10t",
    "pyramid_width": 16,
    "mask_head": "hourglass10",
    "num_init_channels": 4,
    "mask_size": 16,
    "head_channels": 32,
    "anchor_scale": 4.0,
    "proposals": 50,
    "rois_per_image": 32,
    "min_score": 0.0,
    "max_detections": 20,
}
MASK_RCNN = {
    "mask_head": "mask_rcnn",
    "num_init_channels": 64,
    "mask_size": 28,
    "class_agnostic": False,
    "train_boxes": "proposals",
    "head_channels": 1024,
    "anchor_scale": 8.0,
}


def network(**changes):
    torch.manual_seed(0)
    return DeepMARC(**{**SMALL, **changes})


def pictures(batch=2):
    return torch.randint(
        0, 256, (batch, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(1)
    ).to(torch.uint8)


def ground_truth():
    """Two images: two objects, then one."""
    boxes = [
        torch.tensor([[10.0, 12, 60, 70], [40.0, 30, 120, 100]]),
        torch.tensor([[5.0, 60, 80, 126]]),
    ]
    labels = [torch.tensor([1, 3]), torch.tensor([2])]
    targets = []
    for own, label in zip(boxes, labels, strict=True):
        masks = torch.zeros(len(own), SIZE, SIZE, dtype=torch.uint8)
        for mask, (x0, y0, x1, y1) in zip(masks, own.int().tolist(), strict=True):
            mask[y0 : (y0 + 2 * y1) // 3, x0:x1] = 1
        targets.append({"boxes": own, "labels": label, "masks": masks})
    return targets


def with_grids(targets, size=16):
    """The same masks as grids over their own boxes."""
    result = []
    for t in targets:
        grids = torch.zeros(len(t["boxes"]), size, size)
        grids[:, : 2 * size // 3] = 1
        kept = {"boxes": t["boxes"], "labels": t["labels"]}
        result.append({**kept, "mask_boxes": t["boxes"], "mask_targets": grids})
    return result


def losses_of(net, targets, draw=0):
    seed(draw)  # proposals are sampled
    return net.losses(net(pictures())[-1], targets)


def seed(number):
    torch.manual_seed(number)


def twin(net):
    """Plain torchvision with the same weights and numbers of boxes, for normalised images.

    Its own normalisation differs in the last bit, enough to suppress and sample other boxes.
    """
    plain = MaskRCNN(
        copy.deepcopy(net.backbone),
        4,
        min_size=SIZE,
        max_size=SIZE,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_pre_nms_top_n_train=100,
        rpn_pre_nms_top_n_test=50,
        rpn_post_nms_top_n_train=100,
        rpn_post_nms_top_n_test=50,
        box_batch_size_per_image=32,
        box_score_thresh=0.0,
        box_detections_per_img=20,
    )
    plain.load_state_dict(net.state_dict())
    return plain


# The original, and the same in torchvision's words.


def test_mask_rcnn_settings__give_torchvisions_losses():
    net = network(**MASK_RCNN)
    plain = twin(net).train()
    # Its transform draws a scale; what follows is to draw the same boxes.
    plain.rpn.register_forward_pre_hook(lambda *_: seed(0))
    ours = losses_of(net.train(), ground_truth())
    theirs = plain(list(net.normalize(pictures())), ground_truth())
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-5)


def test_mask_rcnn_settings__give_torchvisions_detections():
    net = network(**MASK_RCNN).eval()
    plain = twin(net).eval()
    inside = {}
    plain.roi_heads.register_forward_hook(
        lambda module, inputs, out: inside.update(found=[dict(image) for image in out[0]])
    )
    with torch.no_grad():
        plain(list(net.normalize(pictures())))
        stage = net(pictures())[-1]
        found = net.detect(stage)
        masks = net.mask_probabilities(stage, found.boxes, found.scores > 0, found.labels)
    for row, theirs in enumerate(inside["found"]):
        count = len(theirs["scores"])
        assert count > 10
        assert (found.scores[row] > 0).sum() == count
        torch.testing.assert_close(found.scores[row, :count], theirs["scores"])
        torch.testing.assert_close(found.boxes[row, :count], theirs["boxes"], rtol=1e-5, atol=1e-5)
        assert torch.equal(found.labels[row, :count] + 1, theirs["labels"])
        torch.testing.assert_close(masks[row, :count], theirs["masks"][:, 0], rtol=0, atol=1e-5)


def test_region_heads__fit_into_torchvisions_own_model():
    net = network(**MASK_RCNN).eval()
    plain = twin(net).eval()
    with torch.no_grad():
        before = plain(list(net.normalize(pictures())))
        plain.roi_heads = net.roi_heads
        after = plain(list(net.normalize(pictures())))
    for one, other in zip(before, after, strict=True):
        for name in ("boxes", "labels", "scores", "masks"):
            torch.testing.assert_close(one[name], other[name])


def test_resnet50__has_torchvisions_names():
    with torch.device("meta"):
        plain = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
        settings = {**MASK_RCNN, "backbone": "resnet50"}
        # freeze_norm: torchvision's detectors keep the norms of their backbone.
        net = DeepMARC(num_classes=90, freeze_norm=True, **settings)
    theirs = {k: v.shape for k, v in plain.state_dict().items() if "num_batches" not in k}
    assert theirs == {k: v.shape for k, v in net.state_dict().items()}


COSTS = [  # the original's at 256 channels: parameters in millions, 10^9 multiply-adds per box
    ("mask_rcnn", 28, 2.63, 0.51),
    ("hourglass10", 64, 1.76, 1.10),
    ("hourglass20", 64, 5.68, 1.41),
    ("hourglass32", 64, 10.6, 1.93),
    ("hourglass52", 64, 23.6, 1.95),
    ("hourglass100", 64, 47.4, 3.35),
]


@pytest.mark.parametrize(("name", "size", "millions", "gmac"), COSTS)
def test_heads__cost_what_the_originals_do(name, size, millions, gmac):
    with torch.device("meta"):
        head, predictor = build_roi_mask_head(name, 256, 64, size, 1)
        crop = torch.zeros(1, 256, size // 2, size // 2)
    parameters = sum(p.numel() for part in (head, predictor) for p in part.parameters())
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        predictor.eval()(head.eval()(crop))
    assert parameters / 1e6 == pytest.approx(millions, rel=0.01)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=0.01)


@pytest.mark.parametrize("name", ROI_MASK_HEADS)
def test_heads__all_double_their_crop_and_take_no_rows(name):
    head, predictor = build_roi_mask_head(name, 6, 2, 64, 3)
    assert predictor(head(torch.rand(2, 6, 32, 32))).shape == (2, 3, 64, 64)
    assert predictor(head(torch.rand(0, 6, 32, 32))).shape == (0, 3, 64, 64)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mask_head": "cond_inst1"}, "no mask head 'cond_inst1'"),
        ({"mask_head": "hourglass52", "mask_size": 32}, "multiple of 64"),
        ({"mask_size": 15}, "even"),
        ({"train_boxes": "guesses"}, "gt or proposals"),
        ({"outer_boxes_scale": 0.5}, "below 1"),
        ({"box_head": "cnn"}, "mlp or conv"),
    ],
)
def test_settings__that_cannot_be_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        network(**settings)


def test_backbone__without_a_pyramid_is_refused():
    with pytest.raises(ValueError, match="choose a timm network"):
        network(backbone="hourglass_10")


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_atto"])
def test_backbone__any_timm_pyramid_does(name):
    net = network(backbone=name).eval()
    with torch.no_grad():
        stage = net(pictures(1))[-1]
    sides = [level.shape[-1] for level in stage.values()]
    assert sides == [SIZE // 4, SIZE // 8, SIZE // 16, SIZE // 32, SIZE // 64]
    assert {level.shape[1] for level in stage.values()} == {16}


def test_backbone__refuses_images_that_do_not_fit():
    with pytest.raises(ValueError, match="multiples of 32"):
        network()(torch.zeros(1, 3, 100, 128))


# Who teaches masks.


def test_boxes_without_masks__have_losses_and_gradients_but_for_the_mask_branch():
    net = network().train()
    targets = [{k: t[k] for k in ("boxes", "labels")} for t in ground_truth()]
    losses = losses_of(net, targets)
    sum(losses.values()).backward()
    assert losses["loss_mask"] == 0
    assert all(value > 0 for name, value in losses.items() if name != "loss_mask")
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, f"{name}: replicas would wait for it"
        if "mask_" in name:
            assert not parameter.grad.any(), name
    assert net.roi_heads.box_predictor.cls_score.weight.grad.any()
    assert next(net.backbone.parameters()).grad.any()


@pytest.mark.parametrize("train_boxes", ["gt", "proposals"])
def test_images_without_objects__have_finite_losses_and_gradients(train_boxes):
    net = network(train_boxes=train_boxes).train()
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    masks = {"mask_boxes": torch.zeros(0, 4), "mask_targets": torch.zeros(0, 16, 16)}
    losses = losses_of(net, [none, {**none, **masks}])
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("train_boxes", ["gt", "proposals"])
def test_partial_supervision__the_mask_of_a_box_only_object_is_never_looked_at(train_boxes):
    net = network(train_boxes=train_boxes).train()
    targets = with_grids(ground_truth())
    for target in targets:
        target["mask_valid"] = torch.arange(len(target["labels"])) == 0
    before = losses_of(net, targets)
    targets[0]["mask_targets"][1] = float("nan")
    after = losses_of(net, targets)
    assert before["loss_mask"] > 0
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_partial_supervision__weighs_what_is_left_as_if_alone():
    net = network().train()
    targets = with_grids(ground_truth())
    both = [{**t, "mask_valid": torch.tensor([True, False])[: len(t["labels"])]} for t in targets]
    first = copy.deepcopy(targets)
    first[0] = {k: v if k in ("boxes", "labels") else v[:1] for k, v in first[0].items()}
    first[0]["mask_valid"] = torch.tensor([True, False])
    assert torch.equal(losses_of(net, both)["loss_mask"], losses_of(net, first)["loss_mask"])


def test_gt_boxes__class_agnostic_mask_loss_knows_no_labels():
    net = network().train()
    targets = with_grids(ground_truth())
    before = losses_of(net, targets)["loss_mask"]
    for target in targets:
        target["labels"] = target["labels"] % 3 + 1
    assert torch.equal(before, losses_of(net, targets)["loss_mask"])


@pytest.mark.parametrize("train_boxes", ["gt", "proposals"])
def test_train_boxes__say_whether_mask_loss_knows_the_proposals(train_boxes):
    net, targets = network(train_boxes=train_boxes).train(), with_grids(ground_truth())
    stage, sizes = net(pictures())[-1], [(SIZE, SIZE)] * 2

    def mask_loss(shift):
        proposals = [target["boxes"] + shift for target in targets]
        return net.roi_heads(stage, proposals, sizes, targets)[1]["loss_mask"].item()

    assert (mask_loss(2.0) == mask_loss(4.0)) == (train_boxes == "gt")


def test_class_specific__uses_the_labels_channel():
    net = network(class_agnostic=False).train()
    targets = with_grids(ground_truth())
    losses_of(net, targets)["loss_mask"].backward()
    grad = net.roi_heads.mask_predictor.logits.weight.grad.flatten(1)
    assert grad.abs().sum(1).bool().tolist() == [False, True, True, True]
    with pytest.raises(UserError, match="classes of the boxes"):
        net.mask_probabilities(net(pictures())[-1], torch.zeros(2, 1, 4))


def test_both_forms_of_masks__mean_the_same():
    net = network(train_boxes="proposals").train()
    whole = losses_of(net, ground_truth())["loss_mask"]
    grids = losses_of(net, with_grids(ground_truth(), size=120))["loss_mask"]
    torch.testing.assert_close(whole, grids, rtol=0.02, atol=0)


def test_replicas__each_box_with_a_mask_weighs_alike():
    net, targets = network().train(), with_grids(ground_truth())
    alone = losses_of(net, targets)["loss_mask"]
    net.roi_heads.replicas = Replicas(2, lambda count: count + 9)  # 3 here, 9 elsewhere
    torch.testing.assert_close(losses_of(net, targets)["loss_mask"], alone * 3 / 6)


# Targets and crops.


def test_resample__own_box_and_size_is_the_grid_itself():
    grids, frames = torch.rand(2, 8, 8), torch.tensor([[3.0, 4, 30, 50], [0.0, 0, 9, 9]])
    assert torch.equal(resample_masks(grids, frames, frames.clone(), 8), grids)


def test_resample__half_the_size_is_the_mean_of_four():
    grids, frames = torch.rand(2, 8, 8), torch.tensor([[3.0, 4, 30, 50], [0.0, 0, 9, 9]])
    halved = resample_masks(grids, frames, frames, 4)
    torch.testing.assert_close(halved, torch.nn.functional.avg_pool2d(grids, 2))


def test_resample__beyond_its_frame_a_mask_is_empty():
    grids, frame = torch.ones(1, 8, 8), torch.tensor([[10.0, 10, 20, 20]])
    grown = resample_masks(grids, frame, grow_boxes(frame, 2.0), 8)[0]
    assert grown[2:6, 2:6].eq(1).all()
    assert grown.sum() == 16


def test_outer_boxes__reach_further():
    net = network(outer_boxes_scale=1.5).eval()
    inner = network().eval()
    boxes = torch.tensor([[[40.0, 40, 80, 80]]])
    torch.testing.assert_close(net.mask_frames(boxes), torch.tensor([[[30.0, 30, 90, 90]]]))
    with torch.no_grad():
        stage = net(pictures(1))[-1]
        wide = net.mask_probabilities(stage, boxes)
        torch.testing.assert_close(wide, inner.mask_probabilities(stage, net.mask_frames(boxes)))


def test_pool__gives_torchvisions_numbers_in_both_forms():
    levels = {str(i): torch.rand(2, 3, SIZE >> (2 + i), SIZE >> (2 + i)) for i in range(4)}
    boxes = torch.tensor([[[3.0, 4, 100, 120], [0.0, 0, 20, 9]], [[0.0, 0, 128, 128], [5.0] * 4]])
    boxes = boxes * torch.tensor([1.0, 4.0]).view(2, 1, 1)  # several levels
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 8, 2)
    expected = theirs(levels, list(boxes), [(SIZE, SIZE)] * 2).unflatten(0, (2, 2))
    ours = PyramidRoIAlign((4, 8, 16, 32), 8)
    assert torch.equal(ours(levels, list(boxes), []).unflatten(0, (2, 2)), expected)
    torch.testing.assert_close(ours.padded(levels, boxes), expected, rtol=1e-5, atol=1e-5)


# Boxes to masks, and detections.


def test_masks_of_given_boxes__run_neither_proposals_nor_box_head():
    net = network().eval()
    for part in (net.rpn, net.roi_heads.box_head, net.roi_heads.box_predictor):
        part.forward = None  # calling it would fail
    with torch.no_grad():
        stage = net(pictures())[-1]
        masks = net.mask_probabilities(stage, torch.tensor([[[8.0, 8, 60, 60]]] * 2))
    assert masks.shape == (2, 1, 16, 16)


def test_masks_of_given_boxes__padding_rows_change_nothing():
    net = network().eval()
    boxes = torch.tensor([[[8.0, 8, 60, 60], [0.0] * 4], [[9.0, 9, 99, 99], [4.0, 4, 20, 30]]])
    valid = torch.tensor([[True, False], [True, True]])
    with torch.no_grad():
        stage = net(pictures())[-1]
        masks = net.mask_logits(stage, boxes, valid)
        alone = net.mask_logits(stage, boxes[:, :1])
    torch.testing.assert_close(masks[:, :1], alone)
    assert not masks[0, 1].any()


def test_detection__batch_of_one_is_batch_of_many():
    net = network().eval()
    sizes = torch.tensor([[128, 128], [128, 80]])
    with torch.no_grad():
        many = net.detect(net(pictures())[-1], sizes)
        for row in range(2):
            one = net.detect(net(pictures()[row : row + 1])[-1], sizes[row : row + 1])
            for ours, theirs in zip(one, many, strict=True):
                torch.testing.assert_close(ours[0], theirs[row])
    assert (many.boxes[1, :, 2] <= 80).all()
    assert (many.scores > 0).any()


def test_export__of_boxes_to_masks_has_no_shape_that_depends_on_data():
    net = network().eval()

    class BoxesToMasks(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, images, boxes):
            return self.net.mask_probabilities(self.net(images)[-1], boxes)

    boxes = torch.tensor([[[8.0, 8, 60, 60], [9.0, 9, 99, 99]]])
    inputs = (pictures(1), boxes)
    dynamic = {"images": None, "boxes": {1: torch.export.Dim("objects", max=100)}}
    program = torch.export.export(BoxesToMasks(), inputs, dynamic_shapes=dynamic).module()
    three = torch.cat([boxes, boxes[:, :1] / 2], dim=1)
    with torch.no_grad():
        expected = BoxesToMasks()(inputs[0], three)
    torch.testing.assert_close(program(inputs[0], three), expected, rtol=1e-4, atol=1e-5)


# Images on which not every object is annotated.


def with_open(*rows):
    """``ground_truth`` with the open classes of each image, None for an exhaustive one."""
    marked = []
    for target, own in zip(ground_truth(), rows, strict=True):
        marked.append(target if own is None else {**target, "open_classes": torch.tensor(own)})
    return marked


def gradients(targets):
    """Of the two losses that know a background: by anchor and by proposal, with labels."""
    net, kept = network().train(), {}
    rpn, heads = net.rpn, net.roi_heads
    objectness, select, branch = rpn.compute_loss, heads.select_training_samples, heads._box_branch

    def first(logits, deltas, labels, regression):
        logits.retain_grad()
        kept["anchors"], kept["anchor_labels"] = logits, torch.cat(labels)
        return objectness(logits, deltas, labels, regression)

    def second(*arguments):
        sampled = select(*arguments)
        kept["labels"] = torch.cat(sampled[2])
        kept["images"] = [len(own) for own in sampled[2]]
        return sampled

    def third(*arguments):
        logits, deltas = branch(*arguments)
        logits.retain_grad()
        kept["rows"] = logits
        return logits, deltas

    rpn.compute_loss, heads.select_training_samples, heads._box_branch = first, second, third
    losses = losses_of(net, targets)
    (losses["loss_objectness"] + losses["loss_classifier"]).backward()
    return losses, kept


def test_open_image__takes_nothing_for_background_and_leaves_the_rest_as_it_was():
    plain, before = gradients(ground_truth())
    losses, after = gradients(with_open([True] * 3, None))
    half = len(after["anchors"]) // 2
    unknown = after["anchor_labels"][:half] == -2
    known = ~unknown
    assert unknown.any() and (before["anchor_labels"][:half][unknown] == 0).all()
    assert (before["anchors"].grad[:half][unknown] != 0).any()
    assert (after["anchors"].grad[:half][unknown] == 0).all()
    assert torch.equal(after["anchors"].grad[:half][known], before["anchors"].grad[:half][known])
    assert torch.equal(after["anchors"].grad[half:], before["anchors"].grad[half:])

    own = torch.zeros(len(after["labels"]), dtype=torch.bool)
    own[: after["images"][0]] = True
    background = own & (after["labels"] == 0)
    assert background.any() and (before["rows"].grad[background] != 0).any()
    assert (after["rows"].grad[background] == 0).all()
    torch.testing.assert_close(after["rows"].grad[~background], before["rows"].grad[~background])
    for name in ("loss_box_reg", "loss_rpn_box_reg", "loss_mask"):
        assert losses[name] == plain[name]
    assert losses["loss_classifier"] < plain["loss_classifier"]


def test_partly_open_image__tells_its_background_from_the_known_classes_alone():
    _, found = gradients(with_open([False, True, False], [False] * 3))
    background = torch.zeros(len(found["labels"]), dtype=torch.bool)
    background[: found["images"][0]] = True
    background &= found["labels"] == 0
    gradient = found["rows"].grad[background]
    assert (gradient[:, [1, 3]] > 0).all()  # less of classes that were looked for
    assert (gradient[:, [0, 2]] < 0).all()  # more of the background, or of the open class
    probability = found["rows"][background].detach().softmax(1)
    share = probability[:, [0, 2]] / probability[:, [0, 2]].sum(1, keepdim=True)
    torch.testing.assert_close(
        gradient[:, [0, 2]] / gradient[:, [0, 2]].sum(1, keepdim=True), share
    )


def test_images_without_open_classes__have_the_very_losses_of_unmarked_ones():
    plain, _ = gradients(ground_truth())
    marked, _ = gradients(with_open([False] * 3, None))
    assert all(marked[name] == value for name, value in plain.items())


def test_open_images_without_any_object__have_losses_of_zero():
    targets = [
        {k: v[:0] for k, v in target.items()} | {"open_classes": torch.ones(3, dtype=torch.bool)}
        for target in ground_truth()
    ]
    losses = losses_of(network().train(), targets)
    assert all(value == 0 for value in losses.values())
