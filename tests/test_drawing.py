"""Pictures of instances and grids of pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmac.drawing import class_color, class_colors, draw_instances, image_grid, save_png

RED = (255, 0, 0)


def _grey(height: int = 60, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), 100, dtype=np.uint8)


def test_draw_instances__leaves_the_given_image_alone() -> None:
    image = _grey()
    drawn = draw_instances(image, boxes=[[10, 10, 30, 30]], colors=[RED])
    assert (image == 100).all()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8


def test_draw_instances__draws_the_border_pixels_inside_the_box() -> None:
    drawn = draw_instances(_grey(), boxes=[[10, 12, 30, 40]], colors=[RED])
    changed = (drawn != 100).any(-1)
    expected = np.zeros((60, 80), dtype=bool)
    expected[12:40, 10:30] = True
    expected[13:39, 11:29] = False
    np.testing.assert_array_equal(changed, expected)


def test_draw_instances__tints_the_mask_and_outlines_it() -> None:
    mask = np.zeros((60, 80), dtype=np.uint8)
    mask[20:30, 20:40] = 1
    drawn = draw_instances(_grey(), boxes=[[0, 0, 80, 60]], masks=[mask], colors=[RED])
    assert tuple(drawn[20, 25]) == RED
    assert tuple(drawn[25, 30]) == (169, 55, 55)
    assert tuple(drawn[32, 30]) == (100, 100, 100)


def test_draw_instances__dashed_boxes_have_gaps() -> None:
    solid = draw_instances(_grey(), boxes=[[5, 5, 75, 55]], colors=[RED])
    dashed = draw_instances(_grey(), boxes=[[5, 5, 75, 55]], colors=[RED], dashed=[True])
    top = (dashed[5, 5:75] == RED).all(-1)
    assert (solid[5, 5:75] == RED).all()
    assert 0.4 < top.mean() < 0.65


@pytest.mark.parametrize(
    "box",
    [[0, 0, 80, 60], [70, 0, 80, 5], [-20, -20, 5, 5], [3.2, 3.2, 3.3, 3.3], [90, 70, 99, 99]],
)
def test_draw_instances__labels_stay_inside_the_image(box: list[float]) -> None:
    drawn = draw_instances(_grey(), boxes=[box], labels=["cat"], colors=[(0, 255, 0)])
    assert (drawn == (0, 255, 0)).all(-1).sum() > 50


def test_draw_instances__accepts_no_instance_and_missing_masks() -> None:
    assert (draw_instances(_grey(), boxes=[]) == 100).all()
    empty = np.zeros((60, 80), dtype=bool)
    draw_instances(_grey(), boxes=[[0, 0, 9, 9]] * 2, masks=[None, empty])


def test_draw_instances__refuses_lists_of_different_lengths() -> None:
    with pytest.raises(ValueError, match="2 labels for 1 boxes"):
        draw_instances(_grey(), boxes=[[0, 0, 9, 9]], labels=["a", "b"])
    with pytest.raises(ValueError, match="a mask of"):
        draw_instances(_grey(), boxes=[[0, 0, 9, 9]], masks=[np.zeros((3, 3))])


def test_class_colors__are_distinct_and_stable() -> None:
    colors = class_colors(80)
    assert len(set(colors)) == 80
    assert colors[7] == class_color(7)


def test_image_grid__fits_images_of_any_size_into_equal_cells() -> None:
    images = [_grey(60, 80), Image.new("RGB", (10, 10), RED), _grey(500, 20)]
    grid = image_grid(images, 2, ["one", "two", "a title much longer than its cell is wide"])
    plain = image_grid(images, 2)
    assert grid.width == plain.width == 2 * 80 + 3 * 4
    assert plain.height == 2 * 500 + 3 * 4
    assert grid.height > plain.height
    assert image_grid(images[:1], 5, cell=(40, 30)).size == (48, 38)


def test_image_grid__of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        image_grid([], 3)


def test_save_png__makes_its_folder(tmp_path: Path) -> None:
    path = save_png(_grey(), tmp_path / "a" / "b.png")
    np.testing.assert_array_equal(np.array(Image.open(path)), _grey())
