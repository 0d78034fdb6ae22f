"""Finding the annotation file and the image folder of a data set."""

import os
from pathlib import Path

from deepmac.errors import DataError


def locate_coco(
    root: str | Path | None,
    split: str,
    json: str | Path | None = None,
    image_dir: str | Path | None = None,
) -> tuple[Path, Path]:
    """The annotation file and image folder of one split.

    Known layouts below ``root``: ``annotations/instances_<split>.json`` or
    ``annotations/instances_<split>2017.json`` (COCO's own), with the images in ``<split>2017/``,
    ``<split>/`` (each also inside ``images/``) or ``images/``.

    Args:
        root: folder of the data set; None when both other paths are given.
        split: "train", "val", ...
        json: annotation file instead; relative to ``root`` or to the working directory.
        image_dir: image folder instead; relative to ``root`` or to the working directory.

    Raises:
        DataError: nothing there; the sentence lists what was looked for.
    """
    if root is None and (json is None or image_dir is None):
        raise DataError(
            f"no place to look for the {split} set; give the folder of the data set (data.root) "
            "or both its annotation file and its image folder."
        )
    root = None if root is None else Path(os.path.expanduser(root))
    if root is not None and not root.is_dir() and (json is None or image_dir is None):
        raise DataError(f"the data set folder {root} does not exist; check data.root.")
    names = [f"annotations/instances_{split}{year}.json" for year in ("", "2017")]
    folders = [f"{split}2017", f"images/{split}2017", split, f"images/{split}", "images"]
    json_path = _choose(root, json, names, f"annotation file of the {split} set", folder=False)
    images = _choose(root, image_dir, folders, f"image folder of the {split} set", folder=True)
    return json_path, images


def _choose(
    root: Path | None, given: str | Path | None, usual: list[str], what: str, *, folder: bool
) -> Path:
    if given is not None:
        path = Path(os.path.expanduser(given))
        candidates = [root / path, path] if root is not None else [path]
    else:
        assert root is not None
        candidates = [root / name for name in usual]
    for candidate in candidates:
        if candidate.is_dir() if folder else candidate.is_file():
            return candidate
    looked = " or ".join(dict.fromkeys(str(candidate) for candidate in candidates))
    raise DataError(f"there is no {what}: looked for {looked}; check the path.")
