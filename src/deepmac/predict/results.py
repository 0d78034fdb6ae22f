"""What a predictor gives: plain tuples of arrays that also know how to become other things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepmac.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Floats = NDArray[np.float32]


class _MasksAndScores(NamedTuple):
    masks: NDArray[np.bool_]
    scores: Floats


class _Detections(NamedTuple):
    boxes: Floats
    labels: NDArray[np.int64]
    scores: Floats
    masks: NDArray[np.bool_]


class _Convertible:
    """Other forms of ``masks``, ``scores``, ``boxes``, ``labels`` on ``image``."""

    masks: NDArray[np.bool_]
    scores: Floats
    boxes: Any
    labels: Any
    image: NDArray[np.uint8]
    names: dict[int, str]

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """COCO results entries: ``bbox`` xywh in pixels, ``segmentation`` as run lengths (text).

        ``category_id`` is 1 where the classes are unknown (masks of given boxes).
        """
        from deepmac.predict.paste import mask_to_rle

        entries = []
        for n, mask in enumerate(self.masks):
            rle = mask_to_rle(mask)
            x0, y0, x1, y1 = (round(float(value), 3) for value in self.boxes[n])
            entries.append(
                {
                    "image_id": image_id,
                    "category_id": 1 if self.labels is None else int(self.labels[n]),
                    "bbox": [x0, y0, round(x1 - x0, 3), round(y1 - y0, 3)],
                    "score": float(self.scores[n]),
                    "segmentation": {**rle, "counts": rle["counts"].decode("ascii")},
                }
            )
        return entries

    def to_supervision(self) -> Any:
        """``supervision.Detections``.

        Raises:
            UserError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise UserError(
                "to_supervision() needs the package supervision: pip install 'deepmac[viz]'"
            ) from None
        return supervision.Detections(
            xyxy=np.asarray(self.boxes, dtype=np.float32).reshape(-1, 4),
            mask=np.asarray(self.masks),
            confidence=np.asarray(self.scores, dtype=np.float32),
            class_id=None if self.labels is None else np.asarray(self.labels).astype(int),
        )

    def plot(self) -> Picture:
        """The picture with masks, boxes, classes and scores drawn on it, as a PIL image."""
        from PIL import Image

        from deepmac.drawing import class_color, draw_instances

        texts = [f"{score:.2f}" for score in self.scores]
        colors = None
        if self.labels is not None:
            texts = [
                f"{self.names.get(int(k), int(k))} {text}"
                for k, text in zip(self.labels, texts, strict=True)
            ]
            order = {category: n for n, category in enumerate(sorted(set(self.labels.tolist())))}
            colors = [class_color(order[int(k)]) for k in self.labels]
        drawn = draw_instances(
            self.image, boxes=self.boxes, masks=list(self.masks), labels=texts, colors=colors
        )
        return Image.fromarray(drawn)


class BoxMasks(_MasksAndScores, _Convertible):
    """Masks of given boxes; unpacks to ``masks, scores``.

    Attributes:
        masks: (N, H, W) bool.
        scores: (N,) float32.
        boxes: (N, 4) float64 xyxy in the picture's pixels, as given.
        labels: None.
        image: (H, W, 3) uint8 RGB.
    """

    boxes: NDArray[np.float64]
    labels = None
    names: dict[int, str] = {}  # noqa: RUF012 - never written

    def __new__(
        cls,
        masks: NDArray[np.bool_],
        scores: Floats,
        boxes: NDArray[np.float64],
        image: NDArray[np.uint8],
    ) -> BoxMasks:
        result = super().__new__(cls, masks, scores)
        result.boxes, result.image = boxes, image
        return result


class Prediction(_Detections, _Convertible):
    """Objects of a picture, best first; unpacks to ``boxes, labels, scores, masks``.

    Attributes:
        boxes: (K, 4) float32 xyxy in the picture's pixels, edges at integers.
        labels: (K,) int64 category ids.
        scores: (K,) float32.
        masks: (K, H, W) bool.
        image: (H, W, 3) uint8 RGB.
        names: of the categories, by id, where known.
    """

    def __new__(
        cls,
        boxes: Floats,
        labels: NDArray[np.int64],
        scores: Floats,
        masks: NDArray[np.bool_],
        image: NDArray[np.uint8],
        names: dict[int, str] | None = None,
    ) -> Prediction:
        result = super().__new__(cls, boxes, labels, scores, masks)
        result.image, result.names = image, names or {}
        return result
