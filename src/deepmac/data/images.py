"""Reading one image file as RGB, whatever its mode, depth or EXIF rotation."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

try:
    import simplejpeg
except ImportError:  # a system that it has no wheels for
    simplejpeg = None

from deepmac.data.annotations.records import ImageRecord
from deepmac.data.file_parts import part_of
from deepmac.errors import DataError

MAX_PIXELS = 89_478_485
"""Larger images are refused (Pillow's own warning line: a quarter GiB of RGB)."""

FORMATS = ("JPEG", "MPO", "PNG", "BMP", "WEBP", "TIFF", "GIF", "JPEG2000", "AVIF", "PPM")
"""What pictures may be. Pillow knows more, some of which start other programs (EPS)."""

# Colour profiles of printers have megabytes; Pillow's own limit is one.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 1 << 26

_LARGEST_RATIO = 8 * 1032  # pixels a byte: deflate's best, of one bit each
_ROWS_AT_ONCE = 256
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


def read_picture(record: ImageRecord) -> NDArray[np.uint8]:
    """The picture of a record, of the size that it says; see :func:`read_image`.

    Raises:
        DataError: it cannot be read.
    """
    data = None if record.data is None else record.data()
    return read_image(record.path, (record.width, record.height), data)


def read_image(
    path: str | Path,
    expected_size: tuple[int, int] | None = None,
    data: bytes | None = None,
) -> NDArray[np.uint8]:
    """Decode an image to RGB.

    Palette, greyscale and CMYK images are converted; alpha is dropped, not blended; 16-bit
    greyscale is scaled to 8 bit (65535 becomes 255). The EXIF rotation is applied when the rotated
    size is ``expected_size`` and the raw pixels are kept when only the raw size is: annotations
    were drawn on one of the two, and the size tells which. When both agree it is applied.

    Args:
        path: the file.
        expected_size: (width, height) that the annotation file gives; None accepts any size.
        data: its content, where that has been read already; ``path`` is then what messages say.

    Returns:
        (H, W, 3) uint8, C-contiguous and writable.

    Raises:
        ImageFileError: a DataError; the file is missing, truncated, no image, of another size, or
            has more than ``MAX_PIXELS`` pixels.
    """
    path = Path(path)
    with _explained(path), _opened(path, data) as file, _open(file, path) as image:
        quick = _decode_jpeg(file, image)
        if quick is None:
            image.load()  # before EXIF: a PNG is decoded for that too, its errors would be lost
        orientation = _orientation_to_apply(image, path, expected_size)
        if quick is not None and orientation not in _TRANSPOSES:
            return quick
        pixels = to_rgb(image, path) if quick is None else Image.fromarray(quick)
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
    with _explained(path), _opened(path) as file, _open(file, path) as image:
        if image.size != expected_size:
            _orientation_to_apply(image, path, expected_size)
        if image.mode == "F":
            raise _unknown_depth(path, "floating-point")
        ending = _END_OF_FILE.get(image.format or "", b"")
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 64))
        if not file.read().rstrip(b"\0\r\n").endswith(ending):
            file.seek(0)
            with _open(file, path) as again:
                again.load()
        elif image.mode == "I":
            to_rgb(image, path)


def image_size(path: str | Path, data: bytes | None = None) -> tuple[int, int]:
    """(width, height) as :func:`read_image` gives it without an expected size; reads the header.

    Raises:
        ImageFileError: the file is missing, no image, or too large.
    """
    path = Path(path)
    with open_image(path, data) as image:
        swaps = _orientation_to_apply(image, path, None) in _SWAPS_SIDES
        width, height = image.size
        return (height, width) if swaps else (width, height)


def raw_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of the stored pixels, EXIF rotation not applied; reads the header.

    Raises:
        ImageFileError: the file is missing, no image, or too large.
    """
    with open_image(path) as image:
        return image.size


@contextmanager
def open_image(path: str | Path, data: bytes | None = None) -> Iterator[Image.Image]:
    """A picture opened by Pillow, its header read and checked, and every fault one sentence.

    Raises:
        ImageFileError: the file is missing, no image, or too large, or what is done with it fails.
    """
    path = Path(path)
    with _explained(path), _opened(path, data) as file, _open(file, path) as image:
        yield image


@contextmanager
def _opened(path: Path, data: bytes | None = None) -> Iterator[BinaryIO]:
    if data is not None:
        yield BytesIO(data)
        return
    try:
        mode = os.stat(path).st_mode
    except NotADirectoryError:
        part = part_of(path)
        if part is None:
            raise
        yield BytesIO(part.read())
        return
    if not stat.S_ISREG(mode):
        kind = "a folder" if path.is_dir() else "no regular file"
        raise ImageFileError("unreadable image", f"image {path} is {kind}; check the file_name.")
    with path.open("rb") as file:
        yield file


def _open(file: BinaryIO, path: Path) -> Image.Image:
    image = Image.open(file, formats=_known_formats())
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(path, f"has {width} x {height} pixels")
    here = file.tell()
    size = file.seek(0, 2)
    file.seek(here)
    if image.format == "PNG" and width * height > _LARGEST_RATIO * size:
        text = f"image {path} says {width} x {height} pixels but is too short to hold them"
        raise ImageFileError("unreadable image", f"{text}; copy or download it again.")
    return image


def _decode_jpeg(file: BinaryIO, image: Image.Image) -> NDArray[np.uint8] | None:
    """(H, W, 3) of a sound coloured JPEG, in a quarter less time than Pillow takes.

    Both ask libjpeg-turbo the same and get the same pixels. None: what is damaged, or of another
    kind, is Pillow's to decode, or to refuse in its words.
    """
    if simplejpeg is None or image.format not in ("JPEG", "MPO") or image.mode != "RGB":
        return None
    file.seek(0)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(file.read(), strict=True)
    except ValueError:
        return None
    return pixels if pixels.shape[1::-1] == image.size else None


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _orientation_to_apply(
    image: Image.Image, path: Path, expected_size: tuple[int, int] | None
) -> int:
    """The EXIF orientation (1 = leave as it is) that leads to the expected size."""
    try:
        # Pillow turns a TIFF by itself, and its header's size is the turned one.
        tag = 1 if image.format == "TIFF" else image.getexif().get(_ORIENTATION_TAG, 1)
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


def to_rgb(image: Image.Image, path: str | Path = "given") -> Image.Image:
    """Any picture as 8-bit RGB: the one conversion for files, PIL images and the demo.

    Alpha is dropped, not blended; 16-bit greyscale is scaled to 8 bit (65535 becomes 255). The EXIF
    rotation is another matter.

    Args:
        image: of any mode.
        path: for the message.

    Raises:
        ImageFileError: its values have no known range (floating point, 32 bits).
    """
    if image.mode == "RGB":
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 0xFFFF):
            raise _unknown_depth(path, "32-bit integer")
        scaled = np.empty(values.shape, dtype=np.uint8)
        for start in range(0, len(values), _ROWS_AT_ONCE):  # whole, it would take eight times more
            rows = values[start : start + _ROWS_AT_ONCE].astype(np.uint32)
            scaled[start : start + _ROWS_AT_ONCE] = (rows + 128) // 257
        return Image.fromarray(scaled).convert("RGB")
    if image.mode == "F":
        raise _unknown_depth(path, "floating-point")
    if image.mode in ("P", "PA"):  # Pillow warns when palette transparency is dropped in one step
        image = image.convert("RGBA")
    return image.convert("RGB")


def _unknown_depth(path: str | Path, what: str) -> ImageFileError:
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
