"""Masks that a network finds in a second view of a batch: the teacher of self-supervision."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from deepmac.losses.augmented_view import View, view_boxes, view_images
from deepmac.losses.original import training_boxes, training_mask_logits
from deepmac.losses.weak_criterion import Teacher, WeakLossOptions, teacher_of
from deepmac.nn.deepmac import DeepMAC


@torch.no_grad()
def second_view(
    network: DeepMAC,
    batch: Mapping[str, Tensor],
    options: WeakLossOptions,
    *,
    only_last_stage: bool = False,
) -> list[Teacher]:
    """One more pass of the network, over randomly moved, scaled and flipped images.

    In training mode its batch norms see that view, too, as in the original.

    Args:
        network: in the mode of the step.
        batch: the padded batch.
        options: how far views go.
        only_last_stage: of the backbone's outputs.

    Returns:
        Masks of every ``valid`` row of ``mask_boxes``, brought back, for every stage.
    """
    images, compat = batch["images"], network.compat is not None
    size = (images.shape[-2], images.shape[-1])
    view = View(*(values.to(images.device) for values in options.draw_view(len(images))))
    boxes = view_boxes(training_boxes(network, batch), view, size)
    fill = network.normalize.mean.flatten() if compat else None
    stages = network(view_images(images, view, fill=fill, compat=compat))
    return [
        teacher_of(
            training_mask_logits(network, stage, boxes, batch["valid"]).float(),
            boxes,
            view,
            size,
            full_resolution=network.full_resolution,
            compat=compat,
        )
        for stage in (stages[-1:] if only_last_stage else stages)
    ]
