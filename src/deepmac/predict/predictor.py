"""Masks and detections of one picture, in its own pixels and category ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from deepmac.class_map import ClassMap
from deepmac.errors import UserError
from deepmac.models.files import card_of, own_refine, own_threshold
from deepmac.models.refining import Refine
from deepmac.nn.inference import Precision
from deepmac.nn.network import SegmentationNetwork
from deepmac.nn.roi_crop import FARTHEST
from deepmac.predict.boxes import Boxes, checked_boxes, edges, scaled_boxes
from deepmac.predict.letterbox import InputSpec
from deepmac.predict.masks import PictureMasks, crop_probabilities, require_finite
from deepmac.predict.points import Points, checked_points, scaled_points
from deepmac.predict.results import BoxMasks, Floats, Prediction
from deepmac.predict.runtime import Runtime, prepared_network

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["BoxMasks", "Prediction", "Predictor"]


class Predictor:
    """Runs a network on one picture at a time.

    It works on a copy of the network as it is now, made for speed (``deepmac.nn.inference``).

    Args:
        model: a network, best from ``deepmac.load_model``.
        class_map: category of every class slot; None takes the model's own, or the slots 0, 1, ...
        image_size: side of the padded square that the network is shown, pixels, or of the square
            of as many pixels (``input_shape`` of the model's card); None takes the model's own, or
            512.
        threshold: a pixel belongs to a mask above this probability; None takes the model's own,
            or 0.5.
        refine: ``none``; ``edges``: masks snapped to the picture's colours and edges, without
            specks; ``full``: with more looks at the picture beforehand, for several times the
            time; None takes the model's own, or ``none``.
        precision: ``32``; ``bf16`` for convolutions in bfloat16; ``auto`` for that where the
            processor or card computes in it.
        runtime: ``torch``; ``openvino``: the backbone by OpenVINO, sooner on CPUs (extra
            ``openvino``).

    Raises:
        UserError: weights that are not finite; a runtime that is missing or not for this model.
    """

    def __init__(
        self,
        model: SegmentationNetwork,
        *,
        class_map: ClassMap | None = None,
        image_size: int | None = None,
        threshold: float | None = None,
        refine: Refine | None = None,
        precision: Precision = "32",
        runtime: Runtime = "torch",
    ) -> None:
        card = card_of(model)
        self.model = model.eval()
        self.network = prepared_network(self.model, precision, runtime)
        self.class_map = class_map or (card.class_map if card else None)
        self.spec = InputSpec.of(model, image_size)
        self.threshold = threshold if threshold is not None else own_threshold(model)
        self.refine: Refine = own_refine(model) if refine is None else refine
        self._stage: Any = None
        self._image: NDArray[np.uint8] = np.zeros((0, 0, 3), dtype=np.uint8)
        self._true_size = (0, 0)

    @torch.inference_mode()
    def set_image(self, picture: NDArray[np.uint8] | Tensor | Image | str | Path) -> None:
        """Run the network on a picture; the other methods then tell about it.

        Args:
            picture: (H, W, 3) uint8 RGB; a tensor (3, H, W), uint8 or floating in 0..1; a PIL image
                of any mode; or the path of an image file. Of the last two, the EXIF rotation is
                applied, and boxes are pixels of the upright picture.

        Raises:
            UserError: another shape, dtype or range, or a file that cannot be read.
        """
        rgb = to_rgb(picture)
        entry = self.spec.letterbox(rgb)
        self._stage = self.network.last_stage(entry.image.to(self._device))
        self._image, self._true_size = rgb, entry.true_size

    @torch.inference_mode()
    def predict_crops(self, boxes: Tensor | ArrayLike, points: Any = None) -> Floats:
        """Foreground probabilities within given boxes.

        Args:
            boxes: (N, 4) xyxy in the picture's pixels.
            points: see :meth:`predict`.

        Returns:
            (N, S, S) float32; see the network's ``mask_probabilities`` and ``mask_frames``.

        Raises:
            UserError: no picture was set; a box that is not finite, has its corners swapped or lies
                outside the picture; a point that is none or lies outside its box; points for a
                model that takes none; or the network's answer is not finite.
        """
        stage = self._current
        checked = self._checked(boxes)
        scaled = scaled_boxes(checked, self._size, self._true_size)
        given = torch.from_numpy(scaled.clip(-FARTHEST, FARTHEST).astype(np.float32))[None]
        clicks = self._clicks(points, checked)
        if clicks is not None:
            moved = scaled_points(clicks, self._size, self._true_size).astype(np.float32)
            return self._crops(stage, given.to(self._device), points=torch.from_numpy(moved)[None])
        return self._crops(stage, given.to(self._device))

    def predict(
        self,
        boxes: Tensor | ArrayLike,
        points: Any = None,
        *,
        threshold: float | None = None,
        refine: Refine | None = None,
    ) -> BoxMasks:
        """Masks of given boxes: ``masks, scores = predictor.predict(boxes)``.

        Args:
            boxes: (N, 4) xyxy in the picture's pixels.
            points: corrections: for each of the N boxes a list, which may be empty, of clicks
                (x, y, label) in the picture's pixels, label 1 on the object and 0 beside it. Boxes
                without clicks get the masks that they get without ``points``, to the bit.
            threshold: another one than the predictor's.
            refine: another one than the predictor's.

        Returns:
            (N, H, W) bool masks, and (N,) float32 scores: the IoU that the network expects of
            them (see ``deepmac.predict.masks.mask_scores``); with ``to_coco()``,
            ``to_supervision()`` and ``plot()``.

        Raises:
            UserError: as :meth:`predict_crops`.
        """
        crops = self.predict_crops(boxes, points)
        given = self._checked(boxes)
        clicks = self._clicks(points, given)
        masks = self._masks(crops, given, threshold, refine, clicks)
        return BoxMasks(masks, given, self._image)

    @torch.inference_mode()
    def detect(self, min_score: float = 0.0) -> Prediction:
        """Find the objects of the picture.

        Args:
            min_score: detections below it are left out; memory goes by what is left.

        Raises:
            UserError: no picture was set.
        """
        stage = self._current
        found = self.network.detect(stage, torch.tensor([self._true_size], device=self._device))
        scores, slots = found.scores[0], found.labels[0]
        require_finite(scores, "this picture")
        keep = (scores > 0) & (scores >= min_score)
        crops = self._crops(stage, found.boxes[:, keep], found.labels[:, keep])
        boxes = self._to_picture(found.boxes[0, keep])
        labels = slots[keep].cpu().numpy().astype(np.int64)
        names: dict[int, str] = {}
        if self.class_map is not None:
            labels = np.asarray(self.class_map.category_ids, dtype=np.int64)[labels]
            names = dict(zip(self.class_map.category_ids, self.class_map.names, strict=True))
        found_scores = scores[keep].float().cpu().numpy()
        masks = self._masks(crops, boxes)
        return Prediction(boxes.astype(np.float32), labels, found_scores, masks, self._image, names)

    @property
    def image_size(self) -> int:
        """Side of the network's input where that is a square, in pixels."""
        return self.spec.image_size

    @property
    def _current(self) -> Any:
        if self._stage is None:
            raise UserError("no picture was set: call set_image first")
        return self._stage

    @property
    def _size(self) -> tuple[int, int]:
        return self._image.shape[0], self._image.shape[1]

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _checked(self, boxes: Tensor | ArrayLike) -> Boxes:
        height, width = self._size
        return checked_boxes(boxes, (width, height))

    def _clicks(self, points: Any, boxes: Boxes) -> Points | None:
        """(N, K, 3) in the picture's pixels; None where there are none."""
        if points is None:
            return None
        height, width = self._size
        checked = checked_points(points, boxes, (width, height))
        if not checked.size:
            return None
        self.network.require_clicks()
        return checked

    def _crops(
        self,
        stage: Any,
        boxes: Tensor,
        labels: Tensor | None = None,
        points: Tensor | None = None,
    ) -> Floats:
        """(N, S, S) of (1, N, 4) boxes and (1, N, K, 3) clicks in input pixels."""
        given = None if points is None else points.to(self._device)
        crops = crop_probabilities(self.network, stage, boxes, labels=labels, points=given)[0]
        require_finite(crops, "this picture")
        result: Floats = crops.cpu().numpy()
        return result

    def _masks(
        self,
        crops: Floats,
        boxes: Boxes,
        threshold: float | None = None,
        refine: Refine | None = None,
        points: Points | None = None,
    ) -> PictureMasks:
        return PictureMasks.of(
            self.network,
            crops,
            boxes,
            self._size,
            threshold=self.threshold if threshold is None else threshold,
            refine=self.refine if refine is None else refine,
            picture=self._image,
            spec=self.spec,
            points=points,
        )

    def _to_picture(self, boxes: Tensor) -> NDArray[np.float64]:
        """(N, 4) clipped to the picture.

        Normalised in float32 in between, as in the original: pasting is sensitive to rounding.
        """
        relative = boxes.float().cpu().numpy() / edges(self._true_size).astype(np.float32)
        return relative.clip(0, 1).astype(np.float64) * edges(self._size)


def to_rgb(picture: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of anything that :meth:`Predictor.set_image` takes."""
    from PIL import Image, ImageOps

    if isinstance(picture, str | Path):
        from deepmac.data.images import read_image

        return read_image(picture)
    if isinstance(picture, Image.Image):
        from deepmac.data.images import to_rgb as converted

        return np.array(converted(ImageOps.exif_transpose(picture)))
    if isinstance(picture, Tensor):
        tensor = picture.detach().cpu()
        if tensor.ndim != 3 or tensor.shape[0] != 3:
            raise UserError(f"a tensor must be (3, H, W), not {tuple(tensor.shape)}: permute it")
        if tensor.is_floating_point():
            low, high = float(tensor.amin()), float(tensor.amax())
            if not (low >= 0 and high <= 1):
                raise UserError(
                    f"a floating tensor must lie in 0..1, not {low:g}..{high:g}: scale it"
                )
            tensor = (tensor * 255).round().to(torch.uint8)
        picture = tensor.permute(1, 2, 0).numpy()
    rgb = np.asarray(picture)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise UserError(
            f"a picture must be (H, W, 3) uint8 RGB, not {rgb.shape} {rgb.dtype}: convert it"
        )
    return rgb if rgb.flags.writeable else rgb.copy()  # torch warns of what cannot be written
