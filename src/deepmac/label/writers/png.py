"""A black and white picture for every mask."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac.label.choice import is_of_model
from deepmac.label.masks.calibration import SCORE_DECIMALS
from deepmac.label.merge import Labelled
from deepmac.label.writers.job import Writing
from deepmac.label.writers.objects import LEFT_OUT, file_stems, mask_of, safe
from deepmac.label.writers.text import plain


def write_png(folder: Path, labelled: Labelled, how: Writing) -> dict[str, int]:
    """``IMAGE/ANNOTATION.png``, 0 and 255, and ``index.csv``; counts of what has no place."""
    stems, left_out = file_stems(labelled), 0
    with (folder / "index.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "image", "annotation_id", "category_id", "mask_score", "origin"])
        for image in labelled.by_image():
            for entry, record in image.objects:
                rle = mask_of(entry, record, image.size)
                if rle is None:
                    left_out += 1
                    continue
                name = f"{stems[image.entry['id']]}/{safe(str(entry['id']))}.png"
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = coco_mask.decode(rle) * np.uint8(255)
                Image.fromarray(pixels).convert("1", dither=Image.Dither.NONE).save(path)
                score = entry.get("mask_score", "")
                if record:
                    score = round(how.score(record["raw"]), SCORE_DECIMALS)
                origin = "model" if record or is_of_model(entry) else "human"
                ids = plain(entry["id"]), plain(entry["category_id"])
                table.writerow([name, plain(image.entry["file_name"]), *ids, score, origin])
    return {LEFT_OUT: left_out} if left_out else {}
