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
from deepmac.models.files import Network, card_of, own_refine, own_threshold
from deepmac.models.refining import Refine
from deepmac.predict.letterbox import letterbox
from deepmac.predict.paste import paste_masks
from deepmac.predict.results import BoxMasks, Floats, Prediction
from deepmac.predict.second_look import finer_crops

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["BoxMasks", "Prediction", "Predictor"]


class Predictor:
    """Runs a network on one picture at a time.

    Args:
        model: a network, best from ``deepmac.load_model``.
        class_map: category of every class slot; None takes the model's own, or the slots 0, 1, ...
        image_size: side of the padded square, pixels; None takes the model's own, or 512.
        threshold: a pixel belongs to a mask above this probability; None takes the model's own,
            or 0.5.
        refine: ``none``; ``edges``: masks snapped to the picture's colours and edges, without
            specks; ``full``: with more looks at the picture beforehand, for several times the
            time; None takes the model's own, or ``none``.
    """

    def __init__(
        self,
        model: Network,
        *,
        class_map: ClassMap | None = None,
        image_size: int | None = None,
        threshold: float | None = None,
        refine: Refine | None = None,
    ) -> None:
        card = card_of(model)
        self.model = model.eval()
        self.class_map = class_map or (card.class_map if card else None)
        self.image_size = image_size or (card.image_size if card else 512)
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
        entry = letterbox(rgb, self.image_size, self.model.conventions)
        self._stage = self.model(entry.image.to(self._device))[-1]
        self._image, self._true_size = rgb, entry.true_size

    @torch.inference_mode()
    def predict_crops(self, boxes: Tensor | ArrayLike) -> Floats:
        """Foreground probabilities within given boxes.

        Args:
            boxes: (N, 4) xyxy in the picture's pixels.

        Returns:
            (N, S, S) float32; see the network's ``mask_probabilities`` and ``mask_frames``.

        Raises:
            UserError: no picture was set, or boxes of another shape or not finite.
        """
        return self._crops(self._to_input(self._checked(boxes)))

    def predict(self, boxes: Tensor | ArrayLike) -> BoxMasks:
        """Masks of given boxes: ``masks, scores = predictor.predict(boxes)``.

        Args:
            boxes: (N, 4) xyxy in the picture's pixels.

        Returns:
            (N, H, W) bool masks, and (N,) float32 scores: the mean probability within the mask;
            a tuple with ``to_coco()``, ``to_supervision()`` and ``plot()``.

        Raises:
            UserError: as :meth:`predict_crops`.
        """
        crops = self.predict_crops(boxes)
        inside = crops > self.threshold
        total = np.where(inside, crops, 0).sum(axis=(1, 2), dtype=np.float32)
        scores = total / np.maximum(inside.sum(axis=(1, 2)), 1).astype(np.float32)
        given = self._checked(boxes)
        finer = self.refined(crops, given)
        return BoxMasks(self._paste(finer, given), scores, given, self._image)

    def refined(
        self,
        crops: Floats,
        boxes: NDArray[np.float64],
        threshold: float | None = None,
        refine: Refine | None = None,
    ) -> Floats:
        """What the masks are made of: :meth:`predict_crops` of (N, 4) boxes, refined as set."""
        return finer_crops(
            self.model,
            crops,
            boxes,
            self._image,
            refine=self.refine if refine is None else refine,
            threshold=self.threshold if threshold is None else threshold,
            image_size=self.image_size,
        )

    @torch.inference_mode()
    def detect(self, min_score: float = 0.0) -> Prediction:
        """Find the objects of the picture.

        Args:
            min_score: detections below it are left out; memory goes by what is left.

        Raises:
            UserError: no picture was set.
        """
        stage = self._current
        found = self.model.detect(stage, torch.tensor([self._true_size], device=self._device))
        scores, slots = found.scores[0], found.labels[0]
        keep = (scores > 0) & (scores >= min_score)
        crops = self._crops(found.boxes[:, keep], found.labels[:, keep])
        boxes = self._to_picture(found.boxes[0, keep])
        masks = self._paste(self.refined(crops, boxes), boxes)
        labels = slots[keep].cpu().numpy().astype(np.int64)
        names: dict[int, str] = {}
        if self.class_map is not None:
            labels = np.asarray(self.class_map.category_ids, dtype=np.int64)[labels]
            names = dict(zip(self.class_map.category_ids, self.class_map.names, strict=True))
        found_scores = scores[keep].float().cpu().numpy()
        return Prediction(boxes.astype(np.float32), labels, found_scores, masks, self._image, names)

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
        return next(self.model.parameters()).device

    def _checked(self, boxes: Tensor | ArrayLike) -> NDArray[np.float64]:
        if isinstance(boxes, Tensor):
            boxes = boxes.detach().cpu().numpy()
        array = np.asarray(boxes, dtype=np.float64)
        if array.size == 0:
            array = array.reshape(0, 4)
        if array.ndim != 2 or array.shape[1] != 4 or not np.isfinite(array).all():
            raise UserError(
                f"boxes must be (N, 4) finite numbers (x0, y0, x1, y1), not of shape {array.shape}"
            )
        return array

    def _crops(self, boxes: Tensor, labels: Tensor | None = None) -> Floats:
        """(N, S, S) of (1, N, 4) boxes in input pixels."""
        crops = self.model.mask_probabilities(self._current, boxes, labels=labels)[0]
        result: Floats = crops.float().cpu().numpy()
        return result

    def _paste(self, crops: Floats, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
        rule = self.model.conventions.paste_rule
        height, width = self._size
        frames = self.model.mask_frames(torch.from_numpy(boxes)).numpy()
        return paste_masks(crops, frames, height, width, self.threshold, rule)

    def _to_input(self, boxes: NDArray[np.float64]) -> Tensor:
        """(1, N, 4) float32 in input pixels."""
        self._current  # noqa: B018 - its error comes first
        scaled = boxes / _edges(self._size) * _edges(self._true_size)
        return torch.from_numpy(scaled.astype(np.float32))[None].to(self._device)

    def _to_picture(self, boxes: Tensor) -> NDArray[np.float64]:
        """(N, 4) clipped to the picture.

        Normalised in float32 in between, as in the original: pasting is sensitive to rounding.
        """
        relative = boxes.float().cpu().numpy() / _edges(self._true_size).astype(np.float32)
        return relative.clip(0, 1).astype(np.float64) * _edges(self._size)


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
    return rgb


def _edges(size: tuple[int, int]) -> NDArray[np.float64]:
    """(height, width) as the far edges of a box (x, y, x, y)."""
    height, width = size
    return np.array([width, height, width, height], dtype=np.float64)
