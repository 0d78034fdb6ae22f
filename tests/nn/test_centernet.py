"""CenterNet heads and decoding: key names, peaks, ties, boxes; equal to the original."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepmac.nn.centernet import (
    CenterNetHeads,
    HeadSpec,
    PredictionHead,
    clip_boxes,
    decode_detections,
    decode_peaks,
    find_peaks,
)

SPECS = {
    "heatmap": HeadSpec(5, bias_init=-2.19),
    "size": HeadSpec(2),
    "offset": HeadSpec(2),
    "pixel_embedding": HeadSpec(7, kernel=(1, 3)),
}


def test_prediction_head__is_convolution_relu_convolution_with_stable_keys() -> None:
    head = PredictionHead(6, 8, 5, bias_init=-2.19)
    assert [type(layer) for layer in head] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    shapes = {key: tuple(value.shape) for key, value in head.state_dict().items()}
    assert shapes == {
        "0.weight": (8, 6, 3, 3),
        "0.bias": (8,),
        "2.weight": (5, 8, 1, 1),
        "2.bias": (5,),
    }
    assert torch.equal(head.state_dict()["2.bias"], torch.full((5,), -2.19))
    assert head.state_dict()["0.bias"].abs().max() == 0


@pytest.mark.parametrize("kernel", [1, 3, (1, 3), (3, 1), 5])
def test_prediction_head__keeps_the_resolution(kernel: int | tuple[int, int]) -> None:
    assert PredictionHead(4, 4, 2, kernel)(torch.zeros(1, 4, 6, 9)).shape == (1, 2, 6, 9)


def test_heads__answer_by_name_and_only_what_is_asked() -> None:
    heads = CenterNetHeads(6, 8, SPECS)
    features = torch.randn(2, 6, 4, 5)
    outputs = heads(features)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "heatmap": (2, 5, 4, 5),
        "size": (2, 2, 4, 5),
        "offset": (2, 2, 4, 5),
        "pixel_embedding": (2, 7, 4, 5),
    }
    assert list(heads(features, only=["size"])) == ["size"]
    assert "pixel_embedding.0.weight" in heads.state_dict()


def test_heads__start_with_a_heatmap_of_one_tenth() -> None:
    outputs = CenterNetHeads(6, 8, SPECS)(torch.zeros(1, 6, 4, 4))
    assert torch.allclose(outputs["heatmap"].sigmoid(), torch.tensor(0.1), atol=1e-3)


def test_find_peaks__keeps_maxima_and_whole_plateaus_of_each_class_alone() -> None:
    maps = torch.zeros(1, 2, 5, 6)
    maps[0, 0, 1, 1], maps[0, 0, 1, 2], maps[0, 0, 2, 2] = 0.5, 0.9, 0.4
    maps[0, 1, 3, 4] = maps[0, 1, 3, 5] = 0.7
    peaks = find_peaks(maps)
    assert peaks.nonzero().tolist() == [[0, 0, 1, 2], [0, 1, 3, 4], [0, 1, 3, 5]]
    assert peaks[0, 0, 1, 2] == maps[0, 0, 1, 2]


def one_object() -> tuple[Tensor, Tensor, Tensor]:
    """Class 1 at row 2, column 3 of a 6 x 8 map, 4 x 2 cells, centre at (3.5, 2.25)."""
    logits = torch.full((1, 3, 6, 8), -9.0)
    logits[0, 1, 2, 3] = 2.0
    size, offset = torch.full((1, 2, 6, 8), -1.0), torch.zeros(1, 2, 6, 8)
    size[0, :, 2, 3] = torch.tensor([4.0, 2.0])
    offset[0, :, 2, 3] = torch.tensor([0.5, 0.25])
    return logits, size, offset


def test_decode__gives_boxes_in_input_pixels() -> None:
    found = decode_detections(*one_object(), stride=4, max_detections=10)
    assert found.boxes.shape == (1, 10, 4) and found.labels.shape == found.scores.shape == (1, 10)
    assert torch.allclose(found.boxes[0, 0], torch.tensor([6.0, 5.0, 22.0, 13.0]))
    assert found.labels[0, 0] == 1
    assert found.scores[0, 0] == torch.tensor(2.0).sigmoid()
    eight = decode_detections(*one_object(), stride=8)
    assert torch.allclose(eight.boxes[0, 0], torch.tensor([12.0, 10.0, 44.0, 26.0]))


def test_decode__scores_non_peaks_zero_and_never_gives_negative_sizes() -> None:
    everything = 3 * 6 * 8
    found = decode_detections(*one_object(), stride=4, max_detections=everything)
    assert found.boxes.shape == (1, everything, 4)
    # Only the object's eight neighbours of its own class are below another cell.
    assert (found.scores == 0).sum() == 8
    assert (found.boxes[..., 2:] >= found.boxes[..., :2]).all()


def test_decode__on_a_tiny_map_gives_all_there_is() -> None:
    logits, size, offset = (tensor[:, :, :2, :2] for tensor in one_object())
    assert decode_detections(logits, size, offset, stride=4).boxes.shape == (1, 12, 4)


def test_decode__finds_nothing_beyond_the_true_image_and_clips_to_it() -> None:
    logits, size, offset = one_object()
    cut = decode_detections(logits, size, offset, stride=4, true_sizes=torch.tensor([[11, 20]]))
    assert torch.allclose(cut.boxes[0, 0], torch.tensor([6.0, 5.0, 20.0, 11.0]))
    outside = decode_detections(logits, size, offset, stride=4, true_sizes=torch.tensor([[8, 32]]))
    assert outside.scores[0, 0] < 0.01
    # A stronger peak in the padding does not hide one in the image.
    logits[0, 1, 3, 3] = 3.0
    beside = decode_detections(logits, size, offset, stride=4, true_sizes=torch.tensor([[12, 32]]))
    assert torch.allclose(beside.boxes[0, 0], torch.tensor([6.0, 5.0, 22.0, 12.0]))


def test_decode__orders_equal_scores_by_row_column_class() -> None:
    peaks = torch.zeros(1, 3, 5, 5)
    for place in ((2, 4, 0), (0, 0, 4), (1, 2, 2), (0, 2, 2)):
        peaks[0, *place] = 0.5
    empty = torch.zeros(1, 2, 5, 5)
    found = decode_peaks(peaks, empty, empty, stride=1, max_detections=4)
    assert found.boxes[0, :, :2].tolist() == [[4, 0], [2, 2], [2, 2], [0, 4]]
    assert found.labels[0].tolist() == [0, 0, 1, 2]


def test_decode__of_half_precision_outputs_keeps_pixel_coordinates() -> None:
    logits = torch.full((1, 1, 4, 250), -9.0, dtype=torch.bfloat16)
    logits[0, 0, 1, 249] = 1.0
    size = torch.full((1, 2, 4, 250), 2.0, dtype=torch.bfloat16)
    found = decode_detections(logits, size, torch.zeros_like(size), stride=4)
    assert found.boxes.dtype == torch.float32
    assert found.boxes[0, 0].tolist() == [992.0, 0.0, 1000.0, 8.0]


def test_clip_boxes__clips_each_image_to_its_own_size() -> None:
    boxes = torch.tensor([[[-3.0, -2.0, 50.0, 60.0]]]).repeat(2, 1, 1)
    clipped = clip_boxes(boxes, torch.tensor([[20, 30], [99, 40]]))
    assert clipped[:, 0].tolist() == [[0, 0, 30, 20], [0, 0, 40, 60]]


def test_decode__equals_the_original(reference_file) -> None:
    reference = np.load(reference_file("targets.npz"))
    maps = torch.from_numpy(reference["peak_map"]).permute(0, 3, 1, 2)
    # The original predicts (height, width) and (y, x).
    size = torch.from_numpy(reference["size_pred"]).permute(0, 3, 1, 2).flip(1)
    offset = torch.from_numpy(reference["offset_pred"]).permute(0, 3, 1, 2).flip(1)
    peaks = find_peaks(maps)

    found = decode_peaks(peaks, size, offset, stride=1, max_detections=30)
    assert np.array_equal(found.scores.numpy(), reference["peak_scores"])
    assert np.array_equal(found.labels.numpy(), reference["peak_c"])
    expected = reference["boxes_strided"][..., [1, 0, 3, 2]]
    assert np.abs(found.boxes.numpy() - expected).max() <= 1e-5

    true_sizes = torch.from_numpy(reference["peak_true_shapes"][:, :2].astype(np.int64))
    clipped = decode_peaks(peaks, size, offset, stride=4, max_detections=30, true_sizes=true_sizes)
    normalized = clipped.boxes / true_sizes.flip(-1).repeat(1, 2).unsqueeze(1)
    expected = reference["boxes_normalized"][..., [1, 0, 3, 2]]
    assert np.abs(normalized.numpy() - expected).max() <= 1e-5
