"""Boxes in, masks out: contact sheets of public-domain photographs, for the README and to look at.

    python examples/contact_sheet.py --out docs/pictures [--before OLD_MODEL] [--model deepmac-lite]

Writes ``masks.png`` (four photographs, boxes above and masks below) and ``contact_sheet.png``: 24
objects on eight photographs, each with its box and its mask, between them the masks of ``--before``
where one is given (without refinement, as it was). The photographs come with scikit-image and
matplotlib; all are in the public domain or CC0. Boxes were drawn by hand, loosely.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepmac import Predictor, load_model
from deepmac.drawing import class_color, draw_instances, image_grid, save_png

Pixels = NDArray[np.uint8]

# xyxy pixels.
BOXES: dict[str, dict[str, tuple[int, int, int, int]]] = {
    "astronaut": {
        "astronaut": (18, 10, 364, 512),
        "helmet": (275, 342, 512, 512),
        "shuttle": (352, 0, 458, 284),
        "patch": (132, 345, 210, 424),
    },
    "camera": {
        "man": (0, 58, 332, 512),
        "camera": (254, 134, 330, 188),
        "tripod": (228, 182, 410, 512),
        "tower": (406, 110, 436, 176),
    },
    "chelsea": {
        "cat": (0, 0, 386, 300),
        "eye": (134, 84, 210, 150),
        "other eye": (288, 105, 346, 167),
    },
    "coffee": {
        "cup": (170, 16, 414, 308),
        "saucer": (74, 58, 482, 394),
        "spoon": (320, 60, 428, 330),
    },
    "coins": {
        "coin": (304, 13, 368, 75),
        "largest coin": (312, 154, 383, 222),
        "worn coin": (17, 230, 78, 291),
    },
    "rocket": {"rocket": (305, 122, 337, 414), "mast": (163, 118, 214, 428)},
    "motorcycle": {
        "motorcycle": (88, 70, 688, 458),
        "front wheel": (518, 284, 688, 457),
        "rear wheel": (119, 234, 276, 406),
    },
    "hopper": {"admiral": (12, 20, 406, 600), "cap": (146, 20, 372, 156)},
}
README = ("astronaut", "coffee", "motorcycle", "chelsea")
_TILE = 190


def photograph(name: str) -> Pixels:
    """(H, W, 3) uint8."""
    import matplotlib.cbook
    import skimage

    data = Path(skimage.__file__).parent / "data"
    file = {
        "hopper": lambda: matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False),
        "motorcycle": lambda: data / "motorcycle_left.png",
        "rocket": lambda: data / "rocket.jpg",
    }.get(name, lambda: data / f"{name}.png")()
    return np.array(Image.open(file).convert("RGB"))


def masks_of(predictor: Predictor, name: str) -> NDArray[np.bool_]:
    """(N, H, W) of a photograph's boxes."""
    predictor.set_image(photograph(name))
    return np.asarray(predictor.predict(np.array(list(BOXES[name].values()), float)).masks)


def around(picture: Pixels, box: tuple[int, int, int, int]) -> Pixels:
    """The box and some of what surrounds it."""
    height, width = picture.shape[:2]
    margin = round(0.08 * max(box[2] - box[0], box[3] - box[1])) + 2
    left, top = max(0, box[0] - margin), max(0, box[1] - margin)
    return picture[top : min(height, box[3] + margin), left : min(width, box[2] + margin)]


def contact_sheet(predictor: Predictor, before: Predictor | None) -> Image.Image:
    """Six rows of four objects: box, mask before where there is one, mask."""
    tiles: list[Pixels] = []
    titles: list[str] = []
    color = (255, 60, 60)
    for name, boxes in BOXES.items():
        picture = photograph(name)
        shown = [masks_of(one, name) for one in (before, predictor) if one is not None]
        for row, (what, box) in enumerate(boxes.items()):
            drawn = draw_instances(picture, boxes=[box], colors=[color])
            tiles.append(around(drawn, box))
            titles.append(what)
            for masks, title in zip(shown, ("before", "after")[-len(shown) :], strict=True):
                tiles.append(around(tinted(picture, masks[row], color), box))
                titles.append(title)
    return image_grid(
        tiles, columns=4 * (2 if before is None else 3), titles=titles, cell=(_TILE, _TILE)
    )


def tinted(picture: Pixels, mask: NDArray[np.bool_], color: tuple[int, int, int]) -> Pixels:
    """The object in its colours on a background that steps back."""
    grey = picture.mean(2, keepdims=True) * 0.45 + 110
    shown = np.where(mask[..., None], picture, grey)
    edge = mask & ~_eroded(mask)
    shown[edge] = color
    return shown.astype(np.uint8)


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1, mode="edge")
    return padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def readme_picture(predictor: Predictor) -> Image.Image:
    """Boxes above, masks below."""
    above, below = [], []
    for name in README:
        picture, boxes = photograph(name), np.array(list(BOXES[name].values()), float)
        colors = [class_color(i) for i in range(len(boxes))]
        above.append(draw_instances(picture, boxes=boxes, colors=colors))
        masks = masks_of(predictor, name)
        below.append(draw_instances(picture, boxes=boxes, masks=masks, colors=colors))
    return image_grid([*above, *below], columns=len(README), cell=(300, 300))


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="deepmac-lite")
    parser.add_argument("--before", help="an older model to show beside it")
    parser.add_argument("--refine", choices=("none", "edges", "full"))
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    given = parser.parse_args()
    predictor = Predictor(load_model(given.model), refine=given.refine)
    before = Predictor(load_model(given.before), refine="none") if given.before else None
    save_png(readme_picture(predictor), given.out / "masks.png")
    save_png(contact_sheet(predictor, before), given.out / "contact_sheet.png")


if __name__ == "__main__":
    main()
