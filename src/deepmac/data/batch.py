"""What a data set gives and a network learns from: every field with its shape, type and frame.

Boxes are float32 xyxy in *input* pixels, those of the transformed, padded square. n objects, in a
batch padded to N; C channels; S and the map's (h, w) as the network's ``TargetSpec`` says.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

from torch import Tensor


class Sample(TypedDict):
    """One image."""

    images: Tensor  # (3, H, W) uint8 RGB, or float32 in 0..255 of the original's letterbox
    true_sizes: Tensor  # (2,) int64 height and width of the content, input pixels
    boxes: Tensor  # (n, 4)
    labels: Tensor  # (n,) int64 class slots
    valid: Tensor  # (n,) bool, True
    mask_valid: Tensor  # (n,) bool, whose masks supervise
    mask_weights: Tensor  # (n,) float32 in 0..1, the trust in these masks
    mask_boxes: Tensor  # (n, 4) that targets and features are cut by: jittered ``boxes``
    mask_targets: Tensor  # (n, S, S) in 0..1 over ``mask_boxes``, or over the whole map
    ignore: Tensor  # (h, w) bool, cells in crowd regions
    image_ids: Tensor  # () int64
    annotation_ids: Tensor  # (n,) int64
    geometry: Tensor  # (2, 3) float32 on (x, y, 1): pixels of the image file to input pixels
    original_sizes: Tensor  # (2,) int64 height and width of the image file, its own pixels
    points: NotRequired[Tensor]  # (n, K, 2) float32 xy in input pixels, NaN where there is none
    point_labels: NotRequired[Tensor]  # (n, K) int64, 1 on the object and 0 beside it
    open_classes: NotRequired[Tensor]  # (C,) bool, classes with objects that nobody annotated


class Batch(TypedDict):
    """B images of one size, their objects padded to N rows."""

    images: Tensor  # (B, 3, H, W), padded with 0 at the bottom and right
    true_sizes: Tensor  # (B, 2)
    boxes: Tensor  # (B, N, 4), 0 in padding
    labels: Tensor  # (B, N), 0 in padding
    valid: Tensor  # (B, N) bool, False in padding
    mask_valid: Tensor  # (B, N) bool
    mask_weights: NotRequired[Tensor]  # (B, N); absent = 1 each
    mask_boxes: Tensor  # (B, N, 4)
    mask_frames: NotRequired[Tensor]  # (B, N, 4) what masks cover, where that is more than boxes
    mask_targets: Tensor  # (B, N, S, S) or (B, N, h, w)
    ignore: Tensor  # (B, h, w) bool
    image_ids: Tensor  # (B,)
    annotation_ids: Tensor  # (B, N), -1 in padding
    geometry: Tensor  # (B, 2, 3)
    original_sizes: Tensor  # (B, 2)
    points: NotRequired[Tensor]  # (B, N, K, 2), NaN in padding
    point_labels: NotRequired[Tensor]  # (B, N, K)
    open_classes: NotRequired[Tensor]  # (B, C) bool
    filler: Tensor  # (B,) bool, repetitions that fill up the last batch of an evaluation
    dropped_boxes: Tensor  # (B,) int64, objects that did not fit into N
