"""One image file as RGB: every mode and depth, EXIF rotation, and files that are broken."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmac.data import images
from deepmac.data.images import check_image, read_image
from deepmac.errors import DataError

WIDTH, HEIGHT = 40, 24


def _gradient() -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([rows * 10, columns * 6, rows + columns], axis=-1).astype(np.uint8)


def _save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_read_image__turns_every_png_mode_into_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(_gradient()).convert(mode)
    pixels = read_image(_save(tmp_path / "a.png", picture), (WIDTH, HEIGHT))
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, np.array(picture.convert("RGB")))


def test_read_image__reads_cmyk_jpeg_close_to_its_colours(tmp_path: Path) -> None:
    flat = Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK")
    pixels = read_image(_save(tmp_path / "a.jpg", flat, quality=95), (16, 16))
    np.testing.assert_allclose(pixels[8, 8].astype(int), (200, 40, 90), atol=6)


def test_read_image__drops_alpha_and_keeps_the_colour_below(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert read_image(_save(tmp_path / "a.png", clear))[0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_read_image__scales_16_bit_grey_to_the_full_8_bit_range(
    tmp_path: Path, suffix: str
) -> None:
    deep = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    pixels = read_image(_save(tmp_path / f"a.{suffix}", Image.fromarray(deep)), (4, 1))
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]
    assert pixels.shape == (1, 4, 3)


def test_read_image__refuses_floating_point_pixels(tmp_path: Path) -> None:
    image = Image.fromarray(np.ones((4, 4), dtype=np.float32))
    with pytest.raises(DataError, match="without a known range"):
        read_image(_save(tmp_path / "a.tif", image))


def _rotated(path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _save(path, Image.fromarray(_gradient()), exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_image__applies_the_exif_rotation_that_gives_the_expected_size(
    tmp_path: Path, orientation: int
) -> None:
    path = _rotated(tmp_path / "a.png", orientation)
    raw = _gradient()
    upright = {
        1: raw,
        2: raw[:, ::-1],
        3: raw[::-1, ::-1],
        4: raw[::-1],
        5: raw.transpose(1, 0, 2),
        6: np.rot90(raw, -1),
        7: raw[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(raw, 1),
    }
    expected = upright[orientation]
    size = (expected.shape[1], expected.shape[0])
    np.testing.assert_array_equal(read_image(path, size), expected)
    check_image(path, size)


def test_read_image__keeps_raw_pixels_when_only_the_raw_size_is_expected(tmp_path: Path) -> None:
    path = _rotated(tmp_path / "a.png", 6)
    np.testing.assert_array_equal(read_image(path, (WIDTH, HEIGHT)), _gradient())
    check_image(path, (WIDTH, HEIGHT))


def test_read_image__without_expected_size_applies_the_exif_rotation(tmp_path: Path) -> None:
    assert read_image(_rotated(tmp_path / "a.png", 6)).shape == (WIDTH, HEIGHT, 3)


def _assert_both_refuse(path: Path, size: tuple[int, int], sentence: str) -> None:
    for call in (
        lambda: read_image(path, size),
        lambda: check_image(path, size),
        lambda: check_image(path, size, decode=True),
    ):
        with pytest.raises(DataError, match=sentence) as caught:
            call()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_read_image__of_another_size_names_both_sizes(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", Image.fromarray(_gradient()))
    _assert_both_refuse(path, (WIDTH, HEIGHT + 1), "is 40 x 24 pixels .* say 40 x 25")


def test_read_image__of_a_missing_file_says_so(tmp_path: Path) -> None:
    _assert_both_refuse(tmp_path / "no.jpg", (4, 4), "does not exist")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_read_image__of_a_truncated_file_says_so(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = _save(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:-900])
    _assert_both_refuse(path, (64, 64), "cannot be decoded .*truncated")


def test_read_image__of_a_damaged_png_says_so(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", Image.new("RGB", (64, 64), (120, 90, 60)))
    content = bytearray(path.read_bytes())
    content[41:50] = bytes(9)  # the compressed pixels; header and end of file stay as they were
    path.write_bytes(content)
    for call in (read_image, lambda p, size: check_image(p, size, decode=True)):
        with pytest.raises(DataError, match="cannot be decoded"):
            call(path, (64, 64))


def test_check_image__accepts_bytes_after_the_end_of_a_jpeg(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.jpg", Image.fromarray(_gradient()))
    path.write_bytes(path.read_bytes() + b"maker notes")
    check_image(path, (WIDTH, HEIGHT))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_read_image__of_something_else_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    _assert_both_refuse(path, (4, 4), "not an image format")


def test_read_image__refuses_decompression_bombs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _save(tmp_path / "a.png", Image.new("L", (100, 100)))
    monkeypatch.setattr(images, "MAX_PIXELS", 9_999)
    _assert_both_refuse(path, (100, 100), "limit of 9,999 pixels")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    _assert_both_refuse(path, (100, 100), "limit of 9,999 pixels")


@pytest.mark.parametrize("options", [{}, {"progressive": True, "quality": 60}, {"subsampling": 0}])
def test_read_image__gives_a_jpeg_s_pixels_as_pillow_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict, capfd: pytest.CaptureFixture
) -> None:
    assert images.simplejpeg is not None, "simplejpeg is not installed"
    noise = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    sound = _save(tmp_path / "a.jpg", Image.fromarray(noise), **options).read_bytes()
    rng = np.random.default_rng(1)
    variants = [sound, sound + b"more", sound[:-2], sound[: len(sound) // 2]]
    for place in rng.integers(2, len(sound), 40).tolist():  # one byte is another one
        variants.append(sound[:place] + bytes([sound[place] ^ 0x55]) + sound[place + 1 :])

    def outcome(data: bytes) -> np.ndarray | str:
        try:
            return read_image("a.jpg", None, data)
        except DataError as error:
            return str(error)

    quick = [outcome(data) for data in variants]
    monkeypatch.setattr(images, "simplejpeg", None)
    for found, data in zip(quick, variants, strict=True):
        np.testing.assert_array_equal(found, outcome(data))
    assert not isinstance(quick[0], str) and quick[0].flags.writeable
    assert any(isinstance(found, str) for found in quick)
    assert capfd.readouterr().err == ""  # libjpeg prints nothing about damage
