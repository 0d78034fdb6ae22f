"""Several COCO folders as one, for training, as deepmac-lite's photographs are.

    python examples/join_sets.py SMALL_COCO MORE_MASKS --out DATA \
        --times SMALL_COCO=8 coco_train_extra=4 dali_extra=4 feral_cats=2 penn_fudan=2

Each folder holds ``images/`` and ``annotations/instances_train.json``; classes of one id must have
one name. An image comes ``--times`` its folder's name, or its ``source`` (an image's own field),
in an epoch: so a small set of many kinds is not drowned by a large one of few. Pictures are linked,
not copied. Validation is the first folder's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

from deepmac.errors import UserError
from deepmac.files import new_folder, refuse_existing
from deepmac.guard import guarded

TRAIN, VAL = "annotations/instances_train.json", "annotations/instances_val.json"


def join(roots: list[Path], times: dict[str, int]) -> dict[str, Any]:
    """One COCO json of all images that have annotations; file names begin with their folder's name.

    Raises:
        UserError: a class id with two names, or a name in ``times`` that nothing bears.
    """
    categories: dict[int, dict[str, Any]] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    image_ids, annotation_ids = itertools.count(1), itertools.count(1)
    used: set[str] = set()
    for root in roots:
        content = json.loads((root / TRAIN).read_text(encoding="utf-8"))
        for category in content["categories"]:
            known = categories.setdefault(category["id"], category)
            if known["name"] != category["name"]:
                raise UserError(
                    f"{root / TRAIN}: class {category['id']} is {category['name']!r} here and "
                    f"{known['name']!r} in a folder before it: give one of them another id"
                )
        of_image: dict[int, list[dict[str, Any]]] = {}
        for annotation in content["annotations"]:
            of_image.setdefault(annotation["image_id"], []).append(annotation)
        for image in content["images"]:
            if image["id"] not in of_image:
                continue
            source = image.get("source", root.name)
            used |= {source, root.name}
            for _ in range(times.get(source, times.get(root.name, 1))):
                new = next(image_ids)
                name = f"{root.name}/{image['file_name']}"
                images.append({**image, "id": new, "file_name": name})
                annotations += (
                    {**annotation, "id": next(annotation_ids), "image_id": new}
                    for annotation in of_image[image["id"]]
                )
    if unknown := sorted(set(times) - used):
        raise UserError(f"--times {unknown[0]}: no folder and no image's source has this name")
    return {"images": images, "annotations": annotations, "categories": [*categories.values()]}


def _times(word: str) -> tuple[str, int]:
    name, _, number = word.partition("=")
    if not name or not number.isdigit() or not int(number):
        raise argparse.ArgumentTypeError(f"{word!r} is not NAME=TIMES, TIMES a whole number from 1")
    return name, int(number)


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("roots", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--times", type=_times, nargs="*", default=[], metavar="NAME=TIMES")
    given = parser.parse_args()
    refuse_existing(given.out)
    roots = [root.resolve() for root in given.roots]
    names = [root.name for root in roots]
    if len(set(names)) < len(names):
        raise UserError("two folders have one name, which tells their pictures apart: rename one")
    joined = join(roots, dict(given.times))
    val = json.loads((roots[0] / VAL).read_text(encoding="utf-8"))
    for image in val["images"]:
        image["file_name"] = f"{roots[0].name}/{image['file_name']}"
    with new_folder(given.out) as folder:
        (folder / "annotations").mkdir()
        (folder / TRAIN).write_text(json.dumps(joined), encoding="utf-8")
        (folder / VAL).write_text(json.dumps(val), encoding="utf-8")
        (folder / "images").mkdir()
        for root in roots:
            os.symlink(root / "images", folder / "images" / root.name)
    print(
        f"{len(joined['images'])} images, {len(joined['annotations'])} annotations -> {given.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
