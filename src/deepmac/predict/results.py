"""What a predictor gives: masks made when they are asked for, and in the forms of other tools."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepmac.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from deepmac.predict.masks import PictureMasks

Floats = NDArray[np.float32]
Masks = NDArray[np.bool_]

MOST_BYTES = 1 << 30
"""Masks that take more than this together are not put into one array: see ``PastedMasks``."""


class PastedMasks(Sequence[Masks]):
    """Full-size masks too many for one array; each is made when it is asked for, and not kept.

    Indices and slices as of an array's first axis; ``numpy.asarray`` gives the array after all.

    Attributes:
        shape: (N, height, width).
        dtype: bool.
    """

    dtype = np.dtype(np.bool_)

    def __init__(self, masks: PictureMasks) -> None:
        self._masks = masks
        self.shape = (len(masks), *masks.size)

    def __len__(self) -> int:
        return len(self._masks)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            return self._masks.mask(range(len(self))[index])
        rows = np.arange(len(self))[index]
        return np.stack([self._masks.mask(row) for row in rows]) if len(rows) else self._none()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole: NDArray[Any] = self[:]
        return whole if dtype is None else whole.astype(dtype)

    def _none(self) -> Masks:
        return np.zeros((0, *self.shape[1:]), dtype=np.bool_)


class _Result(Sequence[Any]):
    """``masks``, ``scores``, ``boxes``, ``labels`` on ``image``, and other forms of them.

    Masks stay small squares within their boxes, ``pasted``, until they are asked for.
    """

    scores: Floats
    boxes: Any
    labels: Any
    image: NDArray[np.uint8]
    names: dict[int, str]
    pasted: PictureMasks
    _fields: tuple[str, ...]

    @cached_property
    def masks(self) -> Masks | PastedMasks:
        """(N, H, W) bool; beyond ``MOST_BYTES`` a ``PastedMasks`` of that shape."""
        masks = PastedMasks(self.pasted)
        return masks[:] if np.prod(masks.shape, dtype=np.int64) <= MOST_BYTES else masks

    @cached_property
    def rles(self) -> list[dict[str, Any]]:
        """COCO run lengths of the masks, counts as bytes."""
        return list(self.pasted.rles())

    def __len__(self) -> int:
        return len(self._fields)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(getattr(self, name) for name in self._fields[index])
        return getattr(self, self._fields[index])

    def __repr__(self) -> str:
        height, width = self.pasted.size
        return f"{type(self).__name__}({len(self.pasted)} masks of {height} x {width})"

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """COCO results entries: ``bbox`` xywh in pixels, ``segmentation`` as run lengths (text).

        ``category_id`` is 1 where the classes are unknown (masks of given boxes).
        """
        entries = []
        for n, rle in enumerate(self.rles):
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
            self.image,
            boxes=self.boxes,
            masks=PastedMasks(self.pasted),
            labels=texts,
            colors=colors,
        )
        return Image.fromarray(drawn)


class BoxMasks(_Result):
    """Masks of given boxes; unpacks to ``masks, scores``.

    Attributes:
        masks: (N, H, W) bool.
        scores: (N,) float32.
        boxes: (N, 4) float64 xyxy in the picture's pixels, as given.
        labels: None.
        image: (H, W, 3) uint8 RGB.
    """

    _fields = ("masks", "scores")
    labels = None
    names: dict[int, str] = {}  # noqa: RUF012 - never written

    def __init__(
        self, pasted: PictureMasks, boxes: NDArray[np.float64], image: NDArray[np.uint8]
    ) -> None:
        self.pasted, self.boxes, self.image = pasted, boxes, image
        self.scores = pasted.scores.astype(np.float32)


class Prediction(_Result):
    """Objects of a picture, best first; unpacks to ``boxes, labels, scores, masks``.

    Attributes:
        boxes: (K, 4) float32 xyxy in the picture's pixels, edges at integers.
        labels: (K,) int64 category ids.
        scores: (K,) float32.
        masks: (K, H, W) bool.
        image: (H, W, 3) uint8 RGB.
        names: of the categories, by id, where known.
    """

    _fields = ("boxes", "labels", "scores", "masks")

    def __init__(
        self,
        boxes: Floats,
        labels: NDArray[np.int64],
        scores: Floats,
        pasted: PictureMasks,
        image: NDArray[np.uint8],
        names: dict[int, str] | None = None,
    ) -> None:
        self.boxes, self.labels, self.scores = boxes, labels, scores
        self.pasted, self.image, self.names = pasted, image, names or {}
