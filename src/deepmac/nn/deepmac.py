"""The Deep-MAC network: CenterNet heads, a pixel embedding, and a deep mask head per box."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from deepmac.errors import UserError
from deepmac.nn.backbones import Normalization, Normalize, build_backbone
from deepmac.nn.centernet import (
    CenterNetHeads,
    Detections,
    HeadSpec,
    decode_detections,
)
from deepmac.nn.clicks import ClickHead, Clicks, HeadInputs
from deepmac.nn.conventions import Compat, conventions_of
from deepmac.nn.edge_head import GRIDS, EdgeHead
from deepmac.nn.full_resolution import original_box_crops
from deepmac.nn.mask_heads import build_mask_head, check_mask_size
from deepmac.nn.network import SegmentationNetwork
from deepmac.nn.ranges import Range, Share, Width
from deepmac.nn.roi_crop import (
    CROP_IMPLS,
    CropImpl,
    bounded_boxes,
    box_coordinates,
    roi_crop,
)
from deepmac.nn.stages import LazyStage, Stage, StageOutput
from deepmac.nn.tracing import static_shapes

# These heads take the instance embedding as parameters (or project it): never concatenated.
_EMBEDDING_IS_NOT_AN_INPUT = ("cond_inst1", "cond_inst2", "cond_inst3", "embedding_projection")


_DETECTOR = re.compile(r"heads\.\d+\.(heatmap|size|offset)\.")


def is_of_detector(name: str) -> bool:
    """Whether a tensor of that name is one that ``detector=False`` spares."""
    return _DETECTOR.match(name) is not None


class DeepMAC(SegmentationNetwork):
    """Boxes, classes and class-agnostic masks from one pass over the image (paper section 4).

    Args:
        num_classes: class slots of the heatmap.
        backbone: ``hourglass_104|52|32|20|10``, any timm model name, or the path of a class: see
            :func:`deepmac.nn.backbones.build_backbone`.
        weights: initial backbone weights: None, ``timm``, ``package``, or a local file.
        normalization: how pixels are normalised; None takes what the backbone was trained with.
        pyramid_width: channels of the feature pyramid on timm backbones.
        stride: input pixels per cell of the maps, 4 or 8.
        head_channels: width of the prediction heads' 3x3 convolution.
        mask_head: one of ``deepmac.nn.mask_heads.MASK_HEADS``, or the path of a class: see
            :func:`deepmac.nn.mask_heads.build_mask_head`.
        num_init_channels: width of the mask head.
        click_head: a second head that corrects masks by clicks, named as ``mask_head``; None = a
            mask is what its box says.
        click_channels: width of the click head.
        edge_channels: width of a head that puts masks' edges where the picture's are
            (:class:`deepmac.nn.edge_head.EdgeHead`); 0 = none.
        mask_size: side of the square box crop that the mask head sees and answers.
        box_margin: how far the crop looks beyond the box, as a share of the box's side, on each
            of its sides: the mask then need not end at a box that is a little too tight, nor
            stick to it. 0 = the box itself, as in the paper.
        detector: predict boxes and classes too; without, masks of given boxes are all it knows.
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

    Raises:
        ValueError: an unknown backbone, or settings that do not go together.
    """

    def __init__(
        self,
        *,
        num_classes: Annotated[int, Range(1, 1_000_000)],
        backbone: str = "hourglass_104",
        weights: str | None = None,
        normalization: Normalization | None = None,
        pyramid_width: Width = 64,
        stride: Literal[4, 8] = 4,
        head_channels: Width = 256,
        mask_head: str = "hourglass52",
        num_init_channels: Width = 64,
        click_head: str | None = None,
        click_channels: Width = 32,
        edge_channels: Annotated[int, Range(0, 4096)] = 0,
        mask_size: Annotated[int, Range(1, 4096)] = 32,
        box_margin: Share = 0.0,
        detector: bool = True,
        pixel_embedding_dim: Width = 16,
        dim: Width = 32,
        use_xy: bool = True,
        use_instance_embedding: bool = True,
        predict_full_resolution_masks: bool = False,
        postprocess_crop_size: Annotated[int, Range(1, 4096)] = 256,
        max_detections: Annotated[int, Range(1, 100_000)] = 100,
        crop_impl: CropImpl = "auto",
        checkpoint_activations: bool = False,
        compat: Compat = None,
    ) -> None:
        super().__init__()
        self.conventions = conventions_of(compat)
        takes_parameters = mask_head in _EMBEDDING_IS_NOT_AN_INPUT
        if takes_parameters and use_instance_embedding:
            raise ValueError(
                f"mask_head={mask_head!r} reads the instance embedding as its own parameters: "
                "set use_instance_embedding=false"
            )
        if crop_impl not in CROP_IMPLS:
            raise ValueError(f"crop_impl={crop_impl!r:.40} is none of {', '.join(CROP_IMPLS)}")
        if not 0 <= box_margin <= 1:
            raise ValueError(f"box_margin={box_margin} is a share of the box's side, 0 to 1")
        for name, value, off in (
            ("box_margin", box_margin, 0),
            ("click_head", click_head, "null"),
            ("edge_channels", edge_channels, 0),
        ):
            if value and (predict_full_resolution_masks or compat):
                raise ValueError(
                    f"{name}={value!r} is about crops that look beyond boxes, see clicks or are "
                    "made finer, which there are none of in full-resolution mode and in networks "
                    f"of the original: set it to {off}"
                )
        if edge_channels and GRIDS[-1] % mask_size:
            raise ValueError(
                f"edge_channels={edge_channels} needs a mask_size that divides {GRIDS[-1]}, not "
                f"{mask_size}"
            )
        if click_head in _EMBEDDING_IS_NOT_AN_INPUT:
            raise ValueError(
                f"click_head={click_head!r} cannot see clicks, which are channels: take another "
                "one, such as hourglass20"
            )
        self.backbone = build_backbone(
            backbone,
            pyramid_width=pyramid_width,
            stride=stride,
            weights=weights,
            checkpoint_activations=checkpoint_activations,
            conventions=self.conventions,
        )
        self.normalize = Normalize(normalization or self.backbone.normalization)
        self.num_classes = num_classes
        self.stride = self.backbone.stride
        self.mask_size = mask_size
        self.box_margin = box_margin
        self.frame_scale = 1 + 2 * box_margin
        self.detector = detector
        self.use_xy = use_xy
        self.full_resolution = predict_full_resolution_masks
        self.postprocess_crop_size = postprocess_crop_size
        self.max_detections = max_detections
        self.crop_impl: CropImpl = self.conventions.crop or crop_impl
        kernel = self.conventions.embedding_kernel
        specs = {}
        if detector:
            specs["heatmap"] = HeadSpec(num_classes, bias_init=-2.19)
            specs["size"] = HeadSpec(2)
            specs["offset"] = HeadSpec(2)
        specs["pixel_embedding"] = HeadSpec(pixel_embedding_dim, kernel=kernel)
        if use_instance_embedding or takes_parameters:
            specs["instance_embedding"] = HeadSpec(dim, kernel=kernel)
        self.heads = nn.ModuleList(
            CenterNetHeads(self.backbone.out_channels, head_channels, specs)
            for _ in range(self.backbone.num_outputs)
        )
        in_channels = pixel_embedding_dim + 2 * use_xy + dim * use_instance_embedding
        self.mask_head = build_mask_head(
            mask_head, in_channels, num_init_channels, mask_size, conventions=self.conventions
        )
        if not self.full_resolution:
            check_mask_size(mask_head, mask_size, self.mask_head.size_divisor)
        self.click_head: ClickHead | None = None
        if click_head is not None:
            self.click_head = ClickHead(
                click_head,
                pixel_channels=pixel_embedding_dim + 2 * use_xy,
                instance_channels=dim * use_instance_embedding,
                width=click_channels,
                mask_size=mask_size,
                conventions=self.conventions,
            )
        if edge_channels:
            self.edge_head = EdgeHead(edge_channels)

    @property
    def takes_clicks(self) -> bool:
        """See :class:`SegmentationNetwork`."""
        return self.click_head is not None

    def forward(self, images: Tensor) -> list[StageOutput]:
        """Every head on every backbone output; the last one is the network's answer.

        Args:
            images: (B, 3, H, W) RGB, uint8 or float in 0..255; H and W multiples of
                ``backbone.size_divisor``.

        Raises:
            ValueError: H or W is not such a multiple.
        """
        stages = []
        for heads, features in zip(self.heads, self.features(images), strict=True):
            out = heads(features)
            stages.append(StageOutput(**dict.fromkeys(StageOutput._fields) | out))
        return stages

    def last_stage(self, images: Tensor) -> LazyStage:
        """The network's answer with nothing computed that is not asked for.

        Arguments and errors as of :meth:`forward`, whose last output this is.
        """
        last = self.heads[-1]
        assert isinstance(last, CenterNetHeads)
        return LazyStage(last, self.features(images)[-1])

    def stages(self, images: Tensor) -> list[LazyStage]:
        """:meth:`forward` with nothing computed that is not asked for."""
        return [
            LazyStage(heads, features)  # type: ignore[arg-type]
            for heads, features in zip(self.heads, self.features(images), strict=True)
        ]

    def mask_logits(self, stage: Stage, boxes: Tensor, valid: Tensor | None = None) -> Tensor:
        """Mask logits of given boxes.

        Args:
            stage: the maps of one backbone output.
            boxes: (B, N, 4) xyxy in input pixels.
            valid: (B, N) bool; rows that are False cost nothing off XLA, enter no batch
                statistics, and come back as zeros.

        Returns:
            (B, N, S, S) with S = ``mask_size``, or (B, N, h, w) in full-resolution mode.
        """
        return self._first_logits(self.head_inputs(stage, boxes), valid)

    def head_inputs(self, stage: Stage, boxes: Tensor) -> HeadInputs:
        """What the mask heads see of (B, N, 4) xyxy boxes in input pixels."""
        boxes = bounded_boxes(boxes)
        pixel = self._pixel_inputs(stage, boxes)
        instance = stage.at("instance_embedding", *self._centre_cells(stage, boxes))
        return HeadInputs(pixel, instance, self.mask_frames(boxes))

    def _first_logits(self, inputs: HeadInputs, valid: Tensor | None) -> Tensor:
        """(B, N, S, S) as :meth:`mask_logits`."""
        batch, count = inputs.pixel.shape[:2]
        pixel = inputs.pixel.flatten(0, 1)
        instance = None if inputs.instance is None else inputs.instance.flatten(0, 1)
        if valid is None:
            return self.mask_head(pixel, instance, None).unflatten(0, (batch, count))
        rows = valid.flatten()
        if static_shapes(pixel):
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
        stage: Stage,
        boxes: Tensor,
        valid: Tensor | None = None,
        labels: Tensor | None = None,
        clicks: Clicks | None = None,
    ) -> Tensor:
        """(B, N, P, P) foreground probabilities over :meth:`mask_frames`; P = ``mask_size``.

        In full-resolution mode the map is cropped by the box and P = ``postprocess_crop_size``.
        Rows that are not ``valid`` mean nothing; see :meth:`mask_logits` for the arguments.
        ``labels`` change nothing: masks are class-agnostic. Boxes without ``clicks`` go through
        the first mask head alone.

        Raises:
            UserError: clicks, and no click head.
        """
        inputs = self.head_inputs(stage, boxes)
        logits = self._first_logits(inputs, valid)
        if clicks is not None:
            self.require_clicks()
            rows = clicks.rows() if valid is None else clicks.rows() & valid
            if static_shapes(logits) or rows.any():
                assert self.click_head is not None
                logits = self.click_head.corrected(inputs, logits, clicks, rows)
        if self.full_resolution:
            logits = self._cut_out(logits, boxes)
        return logits.float().sigmoid()

    @property
    def answer_size(self) -> int:
        """See :class:`SegmentationNetwork`."""
        return self.postprocess_crop_size if self.full_resolution else self.mask_size

    def inference_parts(self) -> list[nn.Module]:
        """See :class:`SegmentationNetwork`."""
        last = self.heads[-1]
        assert isinstance(last, CenterNetHeads)
        clicks = [] if self.click_head is None else [self.click_head.head]
        edges = [] if self.edge_head is None else [self.edge_head.net]
        return [self.backbone, *last.values(), self.mask_head, *clicks, *edges]

    def detect(self, stage: Stage, true_sizes: Tensor | None = None) -> Detections:
        """The best ``max_detections`` boxes of each image; see ``decode_detections``.

        In the original padding may hold objects too, and boxes are clipped to the padded square.

        Raises:
            UserError: the network has no detector.
        """
        if stage.heatmap is None or stage.size is None or stage.offset is None:
            raise UserError(
                "this model makes masks of given boxes and has no detector: give it boxes, or "
                "train one with model.detector=true"
            )
        return decode_detections(
            stage.heatmap.float(),
            stage.size.float(),
            stage.offset.float(),
            stride=self.stride,
            max_detections=self.max_detections,
            true_sizes=None if self.conventions.finds_in_padding else true_sizes,
        )

    def _cut_out(self, logits: Tensor, boxes: Tensor) -> Tensor:
        """(B, N, h, w) masks over the whole map to (B, N, P, P) within each box."""
        size, conventions = self.postprocess_crop_size, self.conventions
        if conventions.full_resolution != "cut":
            by_count = conventions.full_resolution == "enlarge_by_count"
            return original_box_crops(logits, boxes, size, stride=self.stride, by_count=by_count)
        crops = roi_crop(
            logits.flatten(0, 1).unsqueeze(1),
            boxes.flatten(0, 1).unsqueeze(1),
            size,
            spatial_scale=1 / self.stride,
            impl=self.crop_impl,
            sampling_ratio=1,
        )
        return crops.reshape(*boxes.shape[:2], size, size)

    def _pixel_inputs(self, stage: Stage, boxes: Tensor) -> Tensor:
        """(B, N, 2 + E, S, S): coordinates (y, x), then the cropped pixel embedding."""
        batch, count = boxes.shape[:2]
        if self.full_resolution:
            embedding = stage.pixel_embedding
            pixel = embedding[:, None].expand(batch, count, *embedding.shape[1:])
        else:
            pixel = roi_crop(
                stage.pixel_embedding,
                self.mask_frames(boxes),
                self.mask_size,
                spatial_scale=1 / self.stride,
                impl=self.crop_impl,
            )
        if not self.use_xy:
            return pixel
        coordinates = self._coordinates(pixel, boxes)
        return torch.cat([coordinates.to(pixel.dtype), pixel], dim=2)

    def _coordinates(self, pixel: Tensor, boxes: Tensor) -> Tensor:
        """(B, N, 2, S, S): y then x, from -1 to 1 over the box, further over its margin.

        In full-resolution mode: position relative to the box centre, in units of the map's
        side (the newest original; its first release gave the absolute position instead).
        """
        batch, count, _, height, width = pixel.shape
        device = pixel.device
        if not self.full_resolution or self.conventions.full_resolution_xy == "absolute":
            grid = box_coordinates(height, width, far=self.frame_scale, device=device)
            return grid.expand(batch, count, 2, height, width)
        centre_x = (boxes[..., 0] + boxes[..., 2]) / (2 * self.stride * width)
        centre_y = (boxes[..., 1] + boxes[..., 3]) / (2 * self.stride * height)
        y = torch.linspace(0, 1, height, device=device) - centre_y[..., None]
        x = torch.linspace(0, 1, width, device=device) - centre_x[..., None]
        y = y[..., :, None].expand(batch, count, height, width)
        x = x[..., None, :].expand(batch, count, height, width)
        return torch.stack([y, x], dim=2)

    def _centre_cells(self, stage: Stage, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns (B, N) of the cells that hold the boxes' centres.

        A centre on the right or bottom edge reads the last cell (the original failed there).
        """
        height, width = stage.pixel_embedding.shape[-2:]
        x = ((boxes[..., 0] + boxes[..., 2]) / (2 * self.stride)).long().clamp(0, width - 1)
        y = ((boxes[..., 1] + boxes[..., 3]) / (2 * self.stride)).long().clamp(0, height - 1)
        return y, x
