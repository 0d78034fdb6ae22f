"""Reading one image file as RGB, whatever its mode, depth or EXIF rotation."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from deepmac.errors import DataError

MAX_PIXELS = 89_478_485
"""Larger images are refused (Pillow's own warning line: a quarter GiB of RGB)."""

_ORIENTATION_TAG = 0x0112
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = frozenset({5, 6, 7, 8})
_END_OF_FILE = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


class ImageFileError(DataError):
    """An image file that cannot be used; ``kind`` groups equal faults."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def read_image(path: str | Path, expected_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Decode an image to RGB.

    Palette, greyscale and CMYK images are converted; alpha is dropped, not blended; 16-bit
    greyscale is scaled to 8 bit (65535 becomes 255). The EXIF rotation is applied when the rotated
    size is ``expected_size`` and the raw pixels are kept when only the raw size is: annotations
    were drawn on one of the two, and the size tells which. When both agree it is applied.

    Args:
        path: The file.
        expected_size: (width, height) that the annotation file gives; None accepts any size.

    Returns:
        (H, W, 3) uint8, C-contiguous and writable.

    Raises:
        ImageFileError: a DataError; the file is missing, truncated, no image, of another size, or
            has more than ``MAX_PIXELS`` pixels.
    """
    path = Path(path)
    with _explained(path), path.open("rb") as file, _open(file, path) as image:
        image.load()  # before EXIF: a PNG is decoded for that too, and its errors would be lost
        orientation = _orientation_to_apply(image, path, expected_size)
        pixels = _to_rgb(image, path)
        if orientation in _TRANSPOSES:
            pixels = pixels.transpose(_TRANSPOSES[orientation])
        return np.array(pixels)


def check_image(path: str | Path, expected_size: tuple[int, int], *, decode: bool = False) -> None:
    """Raise ImageFileError if the file cannot be read as an image of ``expected_size``.

    Without ``decode`` only the header and the last bytes are read (some 0.1 ms); a JPEG or PNG that
    does not end as its format says is decoded to be sure.
    """
    path = Path(path)
    if decode:
        read_image(path, expected_size)
        return
    with _explained(path), path.open("rb") as file, _open(file, path) as image:
        if image.size != expected_size:
            _orientation_to_apply(image, path, expected_size)
        ending = _END_OF_FILE.get(image.format or "", b"")
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 64))
        if not file.read().rstrip(b"\0\r\n").endswith(ending):
            file.seek(0)
            with _open(file, path) as again:
                again.load()


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) as :func:`read_image` gives it without an expected size; reads the header.

    Raises:
        ImageFileError: the file is missing, no image, or too large.
    """
    path = Path(path)
    with _explained(path), path.open("rb") as file, _open(file, path) as image:
        swaps = _orientation_to_apply(image, path, None) in _SWAPS_SIDES
        width, height = image.size
        return (height, width) if swaps else (width, height)


def _open(file: BinaryIO, path: Path) -> Image.Image:
    image = Image.open(file)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(path, f"has {width} x {height} pixels")
    return image


def _orientation_to_apply(
    image: Image.Image, path: Path, expected_size: tuple[int, int] | None
) -> int:
    """The EXIF orientation (1 = leave as it is) that leads to the expected size."""
    try:
        tag = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # Pillow lets many kinds through; a broken EXIF block turns nothing
        tag = 1
    orientation = tag if isinstance(tag, int) and tag in _TRANSPOSES else 1
    raw = image.size
    turned = raw[::-1] if orientation in _SWAPS_SIDES else raw
    if expected_size is None or turned == expected_size:
        return orientation
    if raw == expected_size:
        return 1
    raise ImageFileError(
        "wrong image size",
        f"image {path} is {turned[0]} x {turned[1]} pixels (width x height) but its annotations "
        f"say {expected_size[0]} x {expected_size[1]}; correct the width and height in the "
        "annotation file or use the original image.",
    )


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 0xFFFF):
            raise _unknown_depth(path, "32-bit integer")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise _unknown_depth(path, "floating-point")
    if image.mode in ("P", "PA"):  # Pillow warns when palette transparency is dropped in one step
        image = image.convert("RGBA")
    return image.convert("RGB")


def _unknown_depth(path: Path, what: str) -> ImageFileError:
    return ImageFileError(
        "unreadable image",
        f"image {path} holds {what} pixels without a known range; "
        "convert it to 8 or 16 bits a channel.",
    )


def _too_large(path: Path, what: str) -> ImageFileError:
    return ImageFileError(
        "image too large",
        f"image {path} {what}, more than the limit of {MAX_PIXELS:,} pixels; "
        "scale the image and its annotations down.",
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns whatever Pillow raises on a bad file into one sentence."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ImageFileError(
            "missing image",
            f"image {path} does not exist; "
            "check the image folder and the file_name in the annotation file.",
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path, "is too large to open safely") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        reason = str(error).split("\n")[0].split(" (")[0].strip() or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "not an image format that Pillow knows"
        raise ImageFileError(
            "unreadable image",
            f"image {path} cannot be decoded ({reason}); copy or download it again.",
        ) from None
