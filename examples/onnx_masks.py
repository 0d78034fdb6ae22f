"""Masks of boxes from an exported model, with onnxruntime and numpy alone.

    deepmac export MODEL --format onnx --out exported
    python examples/onnx_masks.py exported picture.npy --box 30 40 200 180 --out masks.npy

The picture is a .npy array (H, W, 3) uint8 RGB; other files are read with Pillow where that is
installed. The result is (N, H, W) bool, one mask for each --box (x0 y0 x1 y1, pixels). Without
any --box the model looks for objects itself and prints what it finds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime


class OnnxModel:
    """A folder that ``deepmac export`` wrote."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.about = json.loads((self.folder / "model.json").read_text(encoding="utf-8"))
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def masks(self, picture: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Masks of given boxes.

        Args:
            picture: (H, W, 3) uint8 RGB.
            boxes: (N, 4) xyxy in the picture's pixels.

        Returns:
            (N, H, W) bool.
        """
        images, true_size = self._letterbox(picture)
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        scale = _edges(true_size) / _edges(picture.shape)
        given = (boxes * scale).astype(np.float32)[None]
        (crops,) = self._run("boxes", {"images": images, "boxes": given})
        return self._paste(crops[0], boxes, picture.shape)

    def detect(
        self, picture: np.ndarray, min_score: float = 0.3
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(K, 4) boxes in the picture's pixels, (K,) category ids, (K,) scores, (K, H, W) bool."""
        images, true_size = self._letterbox(picture)
        sizes = np.array([true_size], dtype=np.int64)
        boxes, labels, scores, crops = self._run("detect", {"images": images, "true_sizes": sizes})
        keep = (scores[0] >= min_score) & (scores[0] > 0)
        share = (boxes[0][keep] / _edges(true_size).astype(np.float32)).clip(0, 1)
        found = share.astype(np.float64) * _edges(picture.shape)
        masks = self._paste(crops[0][keep], found, picture.shape)
        return found, labels[0][keep], scores[0][keep], masks

    def _run(self, graph: str, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        if graph not in self._sessions:
            self._sessions[graph] = onnxruntime.InferenceSession(
                str(self.folder / f"{graph}.onnx"), providers=["CPUExecutionProvider"]
            )
        session = self._sessions[graph]
        wanted = {value.name for value in session.get_inputs()}
        return session.run(None, {name: value for name, value in feed.items() if name in wanted})

    def _letterbox(self, picture: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        """(1, 3, *frame) float32 and the (height, width) of the content."""
        about = self.about["input"]
        high, wide = _frame(about, picture.shape[:2])
        factor = min(high / picture.shape[0], wide / picture.shape[1])
        height, width = (max(1, round(side * factor)) for side in picture.shape[:2])
        framed = np.zeros((high, wide, 3), dtype=np.float32)
        if about["resize"] == "antialiased_bilinear":
            framed[:height, :width] = resize_antialiased(picture, height, width)
        else:
            framed[:height, :width] = resize_tensorflow1(picture, height, width)
        return framed.transpose(2, 0, 1)[None], (height, width)

    def _paste(self, crops: np.ndarray, boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        about = self.about["masks"]
        positions = pixel_centres if about["paste_rule"] == "roi_align" else aligned_corners
        masks = np.zeros((len(crops), *shape[:2]), dtype=bool)
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        half = half * about["frame_scale"]
        frames = np.concatenate([centre - half, centre + half], axis=1)
        if about["frame_scale"] == 1:
            frames = boxes
        for mask, crop, (x0, y0, x1, y1) in zip(masks, crops, frames, strict=True):
            rows = positions(y0, y1, shape[0], len(crop))
            columns = positions(x0, x1, shape[1], len(crop))
            mask[:] = rows @ crop @ columns.T > about["threshold"]
        return masks


def _frame(about: dict, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the graph's input for a picture of (height, width)."""
    square, step = about["image_size"], about["frame_step"]
    if about["shape"] == "square":
        return square, square
    stretch = min(max(size[0] / size[1], 1 / 4), 4) ** 0.5
    sides = square * stretch, square / stretch
    height, width = (max(1, round(side / step)) * step for side in sides)
    return height, width


def resize_antialiased(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Half-pixel bilinear; when shrinking, each pixel averages all that it covers."""
    result = picture.astype(np.float32)
    for axis, side in ((1, width), (0, height)):
        before = result.shape[axis]
        if before == side:
            continue
        reach = max(before / side, 1.0)
        centre = (np.arange(side) + 0.5) * before / side
        distance = np.abs(centre[:, None] - (np.arange(before) + 0.5)) / reach
        weights = np.maximum(1 - distance, 0)
        weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        result = np.moveaxis(np.tensordot(weights, result, axes=(1, axis)), 0, axis)
        result = np.floor(result + 0.5)  # as the training does: whole values after each axis
    return result


def resize_tensorflow1(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """What models converted from TensorFlow were trained with: position i * before / after."""
    result = picture.astype(np.float32)
    for axis, side in ((1, width), (0, height)):
        before = result.shape[axis]
        position = np.arange(side, dtype=np.float32) * (np.float32(before) / np.float32(side))
        first = np.minimum(position.astype(int), before - 1)
        second = np.minimum(first + 1, before - 1)
        share = (position - first).reshape([-1 if i == axis else 1 for i in range(3)])
        low, high = np.take(result, first, axis), np.take(result, second, axis)
        result = (low + (high - low) * share).astype(np.float32)
    return result


def pixel_centres(start: float, end: float, length: int, cells: int) -> np.ndarray:
    """(length, cells) weights: a pixel whose centre is in the box samples the cells there."""
    centre = np.arange(length) + 0.5
    inside = (centre >= start) & (centre < end)
    side = max(end - start, 1e-12)
    position = np.clip((centre - start) * (cells / side) - 0.5, 0, cells - 1)
    return _hat(position.astype(np.float32), cells) * inside[:, None]


def aligned_corners(start: float, end: float, length: int, cells: int) -> np.ndarray:
    """(length, cells) weights of models converted from TensorFlow."""
    low, high = np.float32(start / length), np.float32(end / length)
    if low == high:
        return np.zeros((length, cells), dtype=np.float32)
    one, scale = np.float32(1), np.float32(cells - 1)
    first, last = -low / (high - low), (one - low) / (high - low)
    step = (last - first) * scale / np.float32(max(length - 1, 1))
    position = first * scale + np.arange(length, dtype=np.float32) * step
    inside = (position >= 0) & (position <= scale)
    return _hat(position, cells) * inside[:, None]


def _hat(position: np.ndarray, cells: int) -> np.ndarray:
    distance = np.abs(position[:, None] - np.arange(cells, dtype=np.float32))
    return np.maximum(1 - distance, 0).astype(np.float32)


def _edges(shape: tuple[int, ...]) -> np.ndarray:
    return np.array([shape[1], shape[0], shape[1], shape[0]], dtype=np.float64)


def read_picture(path: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    if path.endswith(".npy"):
        return np.load(path, allow_pickle=False)
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16-bit greyscale: 65535 becomes 255
        values = (np.asarray(image).astype(np.int64) + 128) // 257
        image = Image.fromarray(values.astype(np.uint8))
    if image.mode == "F":
        raise SystemExit(f"{path} holds floating-point pixels without a known range")
    return np.asarray(image.convert("RGB"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", help="what deepmac export wrote")
    parser.add_argument("picture")
    parser.add_argument("--box", type=float, nargs=4, action="append", metavar="PIXELS")
    parser.add_argument("--out", help="write the masks to this .npy file")
    options = parser.parse_args()
    model, picture = OnnxModel(options.folder), read_picture(options.picture)
    if options.box:
        masks = model.masks(picture, np.array(options.box))
    else:
        names = {entry["id"]: entry["name"] for entry in model.about["classes"]}
        boxes, labels, scores, masks = model.detect(picture)
        for box, label, score in zip(boxes, labels, scores, strict=True):
            print(f"{names[int(label)]}  {score:.2f}  {box.round(1).tolist()}")
    for index, mask in enumerate(masks):
        print(f"mask {index}: {int(mask.sum())} pixels")
    if options.out:
        np.save(options.out, masks)


if __name__ == "__main__":
    main()
