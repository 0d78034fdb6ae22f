"""The Deep-MAC network: CenterNet heads, a pixel embedding, and a deep mask head per box."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from deepmac.nn.backbones import Normalization, Normalize, build_backbone
from deepmac.nn.centernet import CenterNetHeads, Detections, HeadSpec, decode_detections
from deepmac.nn.full_resolution import original_box_crops
from deepmac.nn.mask_heads import build_mask_head
from deepmac.nn.network import static_shapes
from deepmac.nn.norm import Compat
from deepmac.nn.roi_crop import CropImpl, roi_crop

# These heads take the instance embedding as parameters (or project it): never concatenated.
_EMBEDDING_IS_NOT_AN_INPUT = ("cond_inst1", "cond_inst2", "cond_inst3", "embedding_projection")


class StageOutput(NamedTuple):
    """What the heads on one backbone output say; ``h w`` is the map of ``stride`` pixels a cell.

    Attributes:
        heatmap: (B, C, h, w) class logits of object centres.
        size: (B, 2, h, w) box width and height in cells.
        offset: (B, 2, h, w) x and y of the centre within its cell, in cells.
        pixel_embedding: (B, E, h, w).
        instance_embedding: (B, D, h, w), or None where the mask head uses none.
    """

    heatmap: Tensor
    size: Tensor
    offset: Tensor
    pixel_embedding: Tensor
    instance_embedding: Tensor | None


class DeepMAC(nn.Module):
    """Boxes, classes and class-agnostic masks from one pass over the image (paper section 4).

    Args:
        num_classes: class slots of the heatmap.
        backbone: ``hourglass_104|52|32|20|10`` or any timm model name.
        weights: initial backbone weights: None, ``timm``, ``package``, or a local file.
        normalization: how pixels are normalised; None takes what the backbone was trained with.
        pyramid_width: channels of the feature pyramid on timm backbones.
        stride: input pixels per cell of the maps, 4 or 8.
        head_channels: width of the prediction heads' 3x3 convolution.
        mask_head: one of ``deepmac.nn.mask_heads.MASK_HEADS``.
        num_init_channels: width of the mask head.
        mask_size: side of the square box crop that the mask head sees and answers.
        pixel_embedding_dim: channels of the pixel embedding.
        dim: channels of the instance embedding.
        use_xy: give the mask head two coordinate channels (y, x in [-1, 1]).
        use_instance_embedding: give the mask head the embedding read at the box centre.
        predict_full_resolution_masks: the mask head sees the whole map instead of a crop.
        postprocess_crop_size: side of the masks returned in that mode.
        max_detections: boxes returned per image.
        crop_impl: see :func:`deepmac.nn.roi_crop.roi_crop`.
        checkpoint_activations: recompute backbone activations in the backward pass.
        compat: layers, norms and crop of the TensorFlow original (``tf_release``, ``tf_latest``).
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: str = "hourglass_104",
        weights: str | None = None,
        normalization: Normalization | None = None,
        pyramid_width: int = 64,
        stride: int = 4,
        head_channels: int = 256,
        mask_head: str = "hourglass52",
        num_init_channels: int = 64,
        mask_size: int = 32,
        pixel_embedding_dim: int = 16,
        dim: int = 32,
        use_xy: bool = True,
        use_instance_embedding: bool = True,
        predict_full_resolution_masks: bool = False,
        postprocess_crop_size: int = 256,
        max_detections: int = 100,
        crop_impl: CropImpl = "auto",
        checkpoint_activations: bool = False,
        compat: Compat = None,
    ) -> None:
        super().__init__()
        takes_parameters = mask_head in _EMBEDDING_IS_NOT_AN_INPUT
        if takes_parameters and use_instance_embedding:
            raise ValueError(
                f"mask_head={mask_head!r} reads the instance embedding as its own parameters: "
                "set use_instance_embedding=false"
            )
        self.backbone = build_backbone(
            backbone,
            pyramid_width=pyramid_width,
            stride=stride,
            weights=weights,
            checkpoint_activations=checkpoint_activations,
            compat=compat,
        )
        self.normalize = Normalize(normalization or self.backbone.normalization)
        self.num_classes = num_classes
        self.stride = self.backbone.stride
        self.mask_size = mask_size
        self.use_xy = use_xy
        self.full_resolution = predict_full_resolution_masks
        self.postprocess_crop_size = postprocess_crop_size
        self.max_detections = max_detections
        self.crop_impl: CropImpl = "corner_aligned" if compat else crop_impl
        self.compat = compat

        kernel = (1, 3) if compat == "tf_latest" else 3
        specs = {
            "heatmap": HeadSpec(num_classes, bias_init=-2.19),
            "size": HeadSpec(2),
            "offset": HeadSpec(2),
            "pixel_embedding": HeadSpec(pixel_embedding_dim, kernel=kernel),
        }
        if use_instance_embedding or takes_parameters:
            specs["instance_embedding"] = HeadSpec(dim, kernel=kernel)
        self.heads = nn.ModuleList(
            CenterNetHeads(self.backbone.out_channels, head_channels, specs)
            for _ in range(self.backbone.num_outputs)
        )
        in_channels = pixel_embedding_dim + 2 * use_xy + dim * use_instance_embedding
        self.mask_head = build_mask_head(
            mask_head, in_channels, num_init_channels, mask_size, compat=compat
        )

    def forward(self, images: Tensor) -> list[StageOutput]:
        """Every head on every backbone output; the last one is the network's answer.

        Args:
            images: (B, 3, H, W) RGB, uint8 or float in 0..255; H and W multiples of
                ``backbone.size_divisor``.

        Raises:
            ValueError: H or W is not such a multiple.
        """
        divisor = self.backbone.size_divisor
        height, width = images.shape[-2:]
        if height % divisor or width % divisor:
            raise ValueError(
                f"images of {height}x{width} pixels do not fit this backbone: "
                f"both sides must be multiples of {divisor}"
            )
        maps = self.backbone(self.normalize(images))
        stages = []
        for heads, features in zip(self.heads, maps, strict=True):
            out = heads(features)
            out.setdefault("instance_embedding", None)
            stages.append(StageOutput(**out))
        return stages

    def mask_logits(self, stage: StageOutput, boxes: Tensor, valid: Tensor | None = None) -> Tensor:
        """Mask logits of given boxes.

        Args:
            stage: the maps of one backbone output.
            boxes: (B, N, 4) xyxy in input pixels.
            valid: (B, N) bool; rows that are False cost nothing off XLA, enter no batch
                statistics, and come back as zeros.

        Returns:
            (B, N, S, S) with S = ``mask_size``, or (B, N, h, w) in full-resolution mode.
        """
        batch, count = boxes.shape[:2]
        pixel = self._pixel_inputs(stage, boxes).flatten(0, 1)
        instance = None
        if stage.instance_embedding is not None:
            instance = self._instance_embedding(stage.instance_embedding, boxes).flatten(0, 1)
        if valid is None:
            return self.mask_head(pixel, instance, None).unflatten(0, (batch, count))
        rows = valid.flatten()
        if static_shapes(boxes):
            logits = self.mask_head(pixel, instance, rows)
            logits = torch.where(rows[:, None, None], logits, 0.0)
        else:
            # Dropping the dead rows first is most of the speed on sparse masks. Without any live
            # row it still runs: each replica joins the norms' sums, each parameter has a gradient.
            index = rows.nonzero().squeeze(1)
            live = None if instance is None else instance[index]
            packed = self.mask_head(pixel[index], live, None)
            logits = packed.new_zeros(batch * count, *pixel.shape[-2:])
            logits = logits.index_copy(0, index, packed)
        return logits.unflatten(0, (batch, count))

    def mask_probabilities(
        self,
        stage: StageOutput,
        boxes: Tensor,
        valid: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """(B, N, P, P) foreground probabilities within each box; P = ``mask_size``.

        In full-resolution mode the map is cropped by the box and P = ``postprocess_crop_size``.
        Rows that are not ``valid`` mean nothing; see :meth:`mask_logits` for the arguments.
        ``labels`` change nothing: masks are class-agnostic.
        """
        logits = self.mask_logits(stage, boxes, valid)
        if self.full_resolution and self.compat:
            logits = original_box_crops(
                logits, boxes, self.postprocess_crop_size, stride=self.stride, compat=self.compat
            )
        elif self.full_resolution:
            batch, count = boxes.shape[:2]
            crops = roi_crop(
                logits.flatten(0, 1).unsqueeze(1),
                boxes.reshape(batch * count, 1, 4),
                self.postprocess_crop_size,
                spatial_scale=1 / self.stride,
                impl=self.crop_impl,
                sampling_ratio=1,
            )
            logits = crops.reshape(batch, count, *crops.shape[-2:])
        return logits.float().sigmoid()

    def mask_frames(self, boxes: Tensor) -> Tensor:
        """What the masks of (..., 4) boxes cover: the boxes themselves."""
        return boxes

    def detect(self, stage: StageOutput, true_sizes: Tensor | None = None) -> Detections:
        """The best ``max_detections`` boxes of each image; see ``decode_detections``.

        With ``compat``, as in the original, padding may hold objects too, and boxes are clipped
        to the padded square.
        """
        return decode_detections(
            stage.heatmap.float(),
            stage.size.float(),
            stage.offset.float(),
            stride=self.stride,
            max_detections=self.max_detections,
            true_sizes=None if self.compat else true_sizes,
        )

    def _pixel_inputs(self, stage: StageOutput, boxes: Tensor) -> Tensor:
        """(B, N, 2 + E, S, S): coordinates (y, x), then the cropped pixel embedding."""
        batch, count = boxes.shape[:2]
        if self.full_resolution:
            embedding = stage.pixel_embedding
            pixel = embedding[:, None].expand(batch, count, *embedding.shape[1:])
        else:
            pixel = roi_crop(
                stage.pixel_embedding,
                boxes,
                self.mask_size,
                spatial_scale=1 / self.stride,
                impl=self.crop_impl,
            )
        if not self.use_xy:
            return pixel
        coordinates = self._coordinates(pixel, boxes)
        return torch.cat([coordinates.to(pixel.dtype), pixel], dim=2)

    def _coordinates(self, pixel: Tensor, boxes: Tensor) -> Tensor:
        """(B, N, 2, S, S): y then x, from -1 to 1 over the crop.

        In full-resolution mode: position relative to the box centre, in units of the map's
        side (the newest original; its first release gave the absolute position instead).
        """
        batch, count, _, height, width = pixel.shape
        device = pixel.device
        if not self.full_resolution or self.compat == "tf_release":
            y = torch.linspace(-1, 1, height, device=device)[:, None].expand(height, width)
            x = torch.linspace(-1, 1, width, device=device)[None, :].expand(height, width)
            return torch.stack([y, x]).expand(batch, count, 2, height, width)
        centre_x = (boxes[..., 0] + boxes[..., 2]) / (2 * self.stride * width)
        centre_y = (boxes[..., 1] + boxes[..., 3]) / (2 * self.stride * height)
        y = torch.linspace(0, 1, height, device=device) - centre_y[..., None]
        x = torch.linspace(0, 1, width, device=device) - centre_x[..., None]
        y = y[..., :, None].expand(batch, count, height, width)
        x = x[..., None, :].expand(batch, count, height, width)
        return torch.stack([y, x], dim=2)

    def _instance_embedding(self, embedding: Tensor, boxes: Tensor) -> Tensor:
        """(B, N, D): the embedding at the cell that holds each box's centre.

        A centre on the right or bottom edge reads the last cell (the original failed there).
        """
        height, width = embedding.shape[-2:]
        x = ((boxes[..., 0] + boxes[..., 2]) / (2 * self.stride)).long().clamp(0, width - 1)
        y = ((boxes[..., 1] + boxes[..., 3]) / (2 * self.stride)).long().clamp(0, height - 1)
        index = (y * width + x)[:, None].expand(-1, embedding.shape[1], -1)
        return embedding.flatten(2).gather(2, index).transpose(1, 2)
