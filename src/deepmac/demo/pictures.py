"""Uploaded pictures: checked before they are decoded, and a bounded number of them held."""

from __future__ import annotations

import io
import secrets
import tempfile
import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepmac.data.images import ImageFileError, read_image
from deepmac.errors import UserError
from deepmac.nn.inference import Precision
from deepmac.nn.network import SegmentationNetwork
from deepmac.predict.predictor import Predictor
from deepmac.predict.runtime import Runtime, prepared_network

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000", "AVIF", "MPO")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_MAX_SIDES_RATIO = 200  # a strip of one pixel's width has nothing to draw boxes on


class PictureError(UserError):
    """A picture that is not taken; ``status`` is the HTTP status that says so."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """What the page takes.

    Attributes:
        upload_megabytes: of a picture file, 10^6 bytes.
        megapixels: of a picture, 10^6 pixels.
        kept: pictures held at a time, from all browsers together.
    """

    upload_megabytes: float = 25.0
    megapixels: float = 50.0
    kept: int = 8

    @property
    def upload_bytes(self) -> int:
        return int(self.upload_megabytes * 1e6)

    def too_large_file(self, megabytes: float | None = None) -> PictureError:
        """The sentence about a file of too many bytes."""
        has = f"has {megabytes:.1f} MB, more" if megabytes else "is larger"
        return PictureError(
            f"This file {has} than the limit of {self.upload_megabytes:g} MB. "
            "Save the picture smaller and open it again.",
            413,
        )


@dataclass(frozen=True)
class Picture:
    """A picture that the network has seen.

    Attributes:
        predictor: which it was set in.
        pixels: (H, W, 3) uint8 RGB.
    """

    predictor: Predictor
    pixels: NDArray[np.uint8]

    @property
    def width(self) -> int:
        """Pixels."""
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        """Pixels."""
        return self.pixels.shape[0]

    def png(self) -> bytes:
        """As a file that every browser can show."""
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(self.pixels).save(file, "PNG", compress_level=1)
        return file.getvalue()


class Gallery:
    """Pictures that a network has seen, by a name that cannot be guessed.

    The one longest unused goes when there are more than ``limits.kept``, or more pixels in all
    than four of the largest pictures have.

    Args:
        model: in eval mode.
        limits: of every picture, and of how many are kept.
        precision: see ``Predictor``.
        runtime: likewise.
    """

    def __init__(
        self,
        model: SegmentationNetwork,
        limits: Limits,
        precision: Precision = "32",
        runtime: Runtime = "torch",
    ) -> None:
        self.model = prepared_network(model, precision, runtime)
        self.limits = limits
        self._seen: OrderedDict[str, Picture] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._seen)

    def add(
        self, content: bytes, expected_size: tuple[int, int] | None = None
    ) -> tuple[str, Picture]:
        """Decode a picture file and run the network's backbone on it; with its name.

        Args:
            content: of the file.
            expected_size: (width, height) that annotations give; None accepts any.

        Raises:
            PictureError: a file that is too large or no picture.
        """
        rgb = decode(content, self.limits, expected_size)
        predictor = Predictor(self.model)
        predictor.set_image(rgb)
        picture = Picture(predictor, rgb)
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._seen[name] = picture
            while len(self._seen) > 1 and self._full():
                self._seen.popitem(last=False)
        return name, picture

    def get(self, name: str) -> Picture:
        """A picture that is still held.

        Raises:
            PictureError: it is not (status 410).
        """
        with self._lock:
            if name not in self._seen:
                raise PictureError("This picture is no longer held: open it again.", 410)
            self._seen.move_to_end(name)
            return self._seen[name]

    def _full(self) -> bool:
        pixels = sum(one.width * one.height for one in self._seen.values())
        return len(self._seen) > self.limits.kept or pixels > 4e6 * self.limits.megapixels


def decode(
    content: bytes, limits: Limits, expected_size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a picture file, read as every other command reads pictures.

    Args:
        content: of the file.
        limits: of bytes and pixels.
        expected_size: see :func:`deepmac.data.images.read_image`.

    Raises:
        PictureError: too many bytes or pixels (413), or no picture that can be read (415).
    """
    if len(content) > limits.upload_bytes:
        raise limits.too_large_file(len(content) / 1e6)
    _check_header(content, limits)
    with tempfile.TemporaryDirectory(prefix="deepmac-demo-") as folder:
        path = Path(folder) / "picture"
        path.write_bytes(content)
        try:
            return read_image(path, expected_size)
        except ImageFileError as error:
            if error.kind == "wrong image size" or "without a known range" in str(error):
                raise PictureError(_sentence(error, path), 415) from None
            raise _no_picture() from None


def _check_header(content: bytes, limits: Limits) -> None:
    from PIL import Image

    if content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS:
        raise PictureError(
            "This is a HEIC picture, as iPhones take them, which cannot be read here. "
            "Export it as JPEG and open that.",
            415,
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError:
        raise _too_many_pixels("far too many", limits) from None
    except Exception:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        raise _no_picture() from None
    if width * height > limits.megapixels * 1e6:
        raise _too_many_pixels(f"{width * height / 1e6:.1f} million", limits)
    if max(width, height) > _MAX_SIDES_RATIO * min(width, height):
        raise PictureError(f"A picture of {width} x {height} pixels is too narrow to work on.")


def _sentence(error: ImageFileError, path: Path) -> str:
    text = str(error).replace(f"image {path}", "This picture")
    return text[:1].upper() + text[1:]


def _no_picture() -> PictureError:
    return PictureError(
        "This file cannot be read as a picture. Open a whole JPEG, PNG, WebP, TIFF, BMP or GIF "
        "file.",
        415,
    )


def _too_many_pixels(count: str, limits: Limits) -> PictureError:
    return PictureError(
        f"This picture has {count} pixels; the limit is {limits.megapixels:g} million. "
        "Scale it down and open it again.",
        413,
    )
