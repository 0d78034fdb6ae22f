"""Everything in which the TensorFlow original differs from this project, in one table.

A network carries its ``conventions``; whatever depends on them reads a field and never asks which
original it is. Slips of the original's losses are in ``deepmac.losses.original``, of its data in
``deepmac.data.original``. Quoted after each field: its row of docs/fidelity.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from deepmac.nn.norm import NormOptions
from deepmac.nn.roi_crop import CropImpl

Compat = Literal["tf_release", "tf_latest"] | None
"""The setting ``model.compat``: which original to follow; None = today's conventions."""

PasteRule = Literal["roi_align", "corner_aligned"]
"""How pixels meet mask cells: see :mod:`deepmac.predict.paste`."""

_TORCH = NormOptions()


@dataclass(frozen=True)
class Conventions:
    """How a network and its training differ from other ones of the same shape."""

    compat: Compat = None
    hourglass_norm: NormOptions = _TORCH
    # "hourglass norms: running statistics move by 0.9 a step, biased variance"
    resnet_norm: NormOptions = _TORCH
    # "the residual heads' norms: eps 1.001e-5, 0.01 a step"
    initial_kernels: Literal["he_normal", "glorot_uniform"] = "he_normal"
    # "starts hourglasses and mask heads with Glorot's uniform kernels"
    crop: CropImpl | None = None  # None: what the network's ``crop_impl`` says
    # "crops with box corners on pixel centres, one sample a cell"
    paste_rule: PasteRule = "roi_align"
    # "pastes with box corners on pixel centres, hard edge decided by float32 rounding"
    letterbox: Literal["antialiased", "tensorflow1"] = "antialiased"
    # "resizes at positions i * in / out, without half-pixel offset or antialiasing"
    embedding_kernel: int | tuple[int, int] = 3
    # "first convolution of the embeddings: 3x3 (release), 1x3 (newest code, by an oversight)"
    full_resolution: Literal["cut", "enlarge", "enlarge_by_count"] = "cut"
    # "enlarges full-resolution masks four times before it cuts boxes out; the newest code to"
    full_resolution_xy: Literal["from_centre", "absolute"] = "from_centre"
    # "coordinates of full-resolution masks: of the map (release), from the box's centre (newest"
    finds_in_padding: bool = False
    # "finds objects in the padding too"
    head_rows: Literal["supervised", "all", "per_image"] = "supervised"
    # "padded to 100 boxes, all of which run through the mask head and enter its batch statistics"
    head_boxes: Literal["mask_boxes", "boxes"] = "mask_boxes"
    # "RoI jitter (newest code) moves the box of the target but not of the features"
    max_boxes: int | None = None
    # "padded to 100 boxes, all of which run through the mask head"
    data: Literal["today", "original"] = "today"
    # "crowd regions are objects like others"
    optimizer: Literal["torch", "tensorflow"] = "torch"
    # "Adam's epsilon is not corrected for bias"
    losses: Literal["today", "original"] = "today"
    # "clips heatmap probabilities, draws wider Gaussians, has slips in its weak losses"
    mask_normalization: Literal["batch", "image"] | None = None  # None: as the losses are set
    # "averages mask losses within each image first (release)"


TODAY = Conventions()
TF_RELEASE = Conventions(
    compat="tf_release",
    hourglass_norm=NormOptions(eps=1e-5, momentum=0.9, biased_running_var=True),
    resnet_norm=NormOptions(eps=1.001e-5, momentum=0.01, over_replicas=False),
    initial_kernels="glorot_uniform",
    crop="corner_aligned",
    paste_rule="corner_aligned",
    letterbox="tensorflow1",
    full_resolution="enlarge",
    full_resolution_xy="absolute",
    finds_in_padding=True,
    head_rows="per_image",
    head_boxes="boxes",
    max_boxes=100,
    data="original",
    optimizer="tensorflow",
    losses="original",
    mask_normalization="image",
)
"""The code of the published checkpoint, 2021."""
TF_LATEST = replace(
    TF_RELEASE,
    compat="tf_latest",
    embedding_kernel=(1, 3),
    full_resolution="enlarge_by_count",
    full_resolution_xy="from_centre",
    head_rows="all",
    mask_normalization="batch",
)
"""The newest code."""

_BY_NAME = {each.compat: each for each in (TODAY, TF_RELEASE, TF_LATEST)}


def conventions_of(compat: Compat) -> Conventions:
    """The conventions that the setting ``compat`` names.

    Raises:
        ValueError: there are none of that name.
    """
    if compat not in _BY_NAME:
        raise ValueError(f"compat is tf_release, tf_latest or null, not {compat!r}")
    return _BY_NAME[compat]
