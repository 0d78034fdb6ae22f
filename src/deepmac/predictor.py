"""Masks and detections of one picture, in its own pixels and category ids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from deepmac.class_map import ClassMap
from deepmac.errors import UserError
from deepmac.models import card_of
from deepmac.nn.deepmac import DeepMAC, StageOutput
from deepmac.postprocess import PasteRule, paste_masks
from deepmac.preprocess import letterbox

Floats = NDArray[np.float32]


class Prediction(NamedTuple):
    """Objects of a picture, best first.

    Attributes:
        boxes: (K, 4) float32 xyxy in the picture's pixels, edges at integers.
        labels: (K,) int64 category ids.
        scores: (K,) float32.
        masks: (K, H, W) bool.
    """

    boxes: Floats
    labels: NDArray[np.int64]
    scores: Floats
    masks: NDArray[np.bool_]


class Predictor:
    """Runs a network on one picture at a time.

    Args:
        model: a network, best from ``deepmac.load_model``.
        class_map: category of every class slot; None takes the model's own, or the slots 0, 1, ...
        image_size: side of the padded square, pixels; None takes the model's own, or 512.
        threshold: a pixel belongs to a mask above this probability.
    """

    def __init__(
        self,
        model: DeepMAC,
        *,
        class_map: ClassMap | None = None,
        image_size: int | None = None,
        threshold: float = 0.5,
    ) -> None:
        card = card_of(model)
        self.model = model.eval()
        self.class_map = class_map or (card.class_map if card else None)
        self.image_size = image_size or (card.image_size if card else 512)
        self.threshold = threshold
        self._stage: StageOutput | None = None
        self._size = (0, 0)
        self._true_size = (0, 0)

    @torch.inference_mode()
    def set_image(self, rgb: NDArray[np.uint8]) -> None:
        """Run the network on a picture; the other methods then tell about it.

        Args:
            rgb: (H, W, 3) uint8.

        Raises:
            UserError: another shape or dtype.
        """
        rgb = np.asarray(rgb)
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
            raise UserError(
                f"a picture must be (H, W, 3) uint8 RGB, not {rgb.shape} {rgb.dtype}: convert it"
            )
        entry = letterbox(rgb, self.image_size, self.model.compat)
        self._stage = self.model(entry.image.to(self._device))[-1]
        self._size, self._true_size = (rgb.shape[0], rgb.shape[1]), entry.true_size

    @torch.inference_mode()
    def predict_crops(self, boxes: Tensor | ArrayLike) -> Floats:
        """Foreground probabilities within given boxes.

        Args:
            boxes: (N, 4) xyxy in the picture's pixels.

        Returns:
            (N, S, S) float32; see ``DeepMAC.mask_probabilities``.

        Raises:
            UserError: no picture was set, or boxes of another shape or not finite.
        """
        return self._crops(self._to_input(self._checked(boxes)))

    def predict(self, boxes: Tensor | ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
        """Masks of given boxes.

        Args:
            boxes: (N, 4) xyxy in the picture's pixels.

        Returns:
            (N, H, W) bool masks, and (N,) float32 scores: the mean probability within the mask.

        Raises:
            UserError: as :meth:`predict_crops`.
        """
        crops = self.predict_crops(boxes)
        inside = crops > self.threshold
        total = np.where(inside, crops, 0).sum(axis=(1, 2), dtype=np.float32)
        scores = total / np.maximum(inside.sum(axis=(1, 2)), 1).astype(np.float32)
        return self._paste(crops, self._checked(boxes)), scores

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
        crops = self._crops(found.boxes[:, keep])
        boxes = self._to_picture(found.boxes[0, keep])
        masks = self._paste(crops, boxes)
        labels = slots[keep].cpu().numpy().astype(np.int64)
        if self.class_map is not None:
            labels = np.asarray(self.class_map.category_ids, dtype=np.int64)[labels]
        return Prediction(
            boxes.astype(np.float32), labels, scores[keep].float().cpu().numpy(), masks
        )

    @property
    def _current(self) -> StageOutput:
        if self._stage is None:
            raise UserError("no picture was set: call set_image first")
        return self._stage

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

    def _crops(self, boxes: Tensor) -> Floats:
        """(N, S, S) of (1, N, 4) boxes in input pixels."""
        crops = self.model.mask_probabilities(self._current, boxes)[0]
        result: Floats = crops.float().cpu().numpy()
        return result

    def _paste(self, crops: Floats, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
        rule: PasteRule = "corner_aligned" if self.model.compat else "roi_align"
        height, width = self._size
        return paste_masks(crops, boxes, height, width, self.threshold, rule)

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


def _edges(size: tuple[int, int]) -> NDArray[np.float64]:
    """(height, width) as the far edges of a box (x, y, x, y)."""
    height, width = size
    return np.array([width, height, width, height], dtype=np.float64)
