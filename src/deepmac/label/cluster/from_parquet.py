"""``deepmac masks PARQUET --to FORMAT``: tables of masks as files, in bounded memory."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import yaml
from pycocotools import mask as coco_mask

from deepmac.errors import ConfigError, DataError
from deepmac.files import atomic_file, new_folder, refuse_existing
from deepmac.label.cluster.to_parquet import require_pyarrow
from deepmac.label.masks.polygons import coco_polygons, joined, mask_polygons
from deepmac.label.writers.objects import safe
from deepmac.label.writers.text import dump, plain, write_list

FORMATS = ("coco", "coco-polygons", "coco-results", "yolo-seg", "yolo")
Row = dict[str, Any]


@dataclass
class Counts:
    """What was written.

    Attributes:
        images: with boxes.
        masks: that there are.
        errors: boxes without a mask.
    """

    images: int = 0
    masks: int = 0
    errors: int = 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ConfigError(f"masks: {message}; `deepmac masks --help` lists the options")


def command(arguments: Sequence[str]) -> int:
    """Run it; returns the exit status.

    Raises:
        UserError: anything that a user can mend.
    """
    parser = _Parser(
        prog="deepmac masks",
        description="Tables of masks, as `deepmac label --engine ray` writes them, in another "
        "format. Boxes without a mask stay boxes in coco, and are left out of the others.",
        allow_abbrev=False,
    )
    parser.add_argument("masks", metavar="PARQUET", help="a table, or a folder or URL of tables")
    parser.add_argument("--to", choices=FORMATS, required=True)
    parser.add_argument(
        "--out", type=Path, required=True, help="file; folder for yolo-seg and yolo"
    )
    options = parser.parse_args(list(arguments))
    require_pyarrow()
    counts = convert(options.masks, options.to, options.out)
    print(
        f"{counts.masks:,} masks on {counts.images:,} images -> {options.out}"
        + (f"; {counts.errors:,} boxes have none" if counts.errors else "")
    )
    return 0


def convert(masks: str, form: str, out: Path) -> Counts:
    """Write tables of masks in another format.

    Args:
        masks: file, folder or URL.
        form: one of ``FORMATS``.
        out: file, or folder, that does not exist yet.

    Raises:
        UserError: the tables cannot be read, or the output not be written.
    """
    from deepmac.label.cluster.tables import Tables

    tables = Tables(masks)
    names = tables.open(next(iter(tables.sizes))).schema_arrow.names
    if "rle" not in names or "error" not in names:
        raise DataError(f"{masks} holds tables without masks: label them first")
    source = _Source(tables)
    if form.startswith("yolo"):
        refuse_existing(out)
        with new_folder(out) as folder:
            _write_yolo(folder, source, form)
        return source.counts
    if out.exists():
        raise ConfigError(f"{out} exists already: choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as file:
        if form == "coco-results":
            write_list(file, source.results())
        else:
            _write_coco(file, source, polygons=form == "coco-polygons")
    return source.counts


class _Source:
    """Rows of the tables, again and again."""

    def __init__(self, tables: Any) -> None:
        self.tables, self.about, self.counts = tables, tables.about(), Counts()

    def rows(self, columns: list[str] | None = None) -> Iterator[Row]:
        """All rows in order."""
        for batch in self.tables.batches(columns):
            yield from batch.to_pylist()

    def by_image(self, columns: list[str] | None = None) -> Iterator[tuple[Row, list[Row]]]:
        """The first row of each image, and all of its rows."""
        for _, group in groupby(self.rows(columns), key=lambda row: row["image_number"]):
            found = list(group)
            yield found[0], found

    def categories(self) -> list[tuple[int, str]]:
        """Ids and names, of the source or as they occur."""
        if self.about.get("categories"):
            return [(int(n), str(name)) for n, name in self.about["categories"]]
        found: dict[int, str] = {}
        for row in self.rows(["category_id", "category"]):
            found.setdefault(row["category_id"], row["category"] or str(row["category_id"]))
        return sorted(found.items())

    def own(self, kind: str) -> Callable[[Any, int], Any]:
        """From a text id to the source's own, or a number where it had none."""
        is_number = self.about.get(kind) == "int"
        known = kind in self.about
        return lambda text, number: (int(text) if is_number else text) if known else number

    def images(self) -> Iterator[Row]:
        """COCO's entries."""
        own = self.own("image_ids")
        for row, _ in self.by_image(["image", "image_id", "image_number", "width", "height"]):
            self.counts.images += 1
            size = {} if row["width"] is None else {"width": row["width"], "height": row["height"]}
            identity = own(row["image_id"], row["image_number"] + 1)
            yield {"id": identity, "file_name": row["image"], **size}

    def annotations(self, *, polygons: bool) -> Iterator[Row]:
        """COCO's entries, those without a mask included."""
        image, box = self.own("image_ids"), self.own("box_ids")
        for row in self.rows():
            entry: Row = {
                "id": box(row["box_id"], row["row"] + 1),
                "image_id": image(row["image_id"], row["image_number"] + 1),
                "category_id": row["category_id"],
                "bbox": [row["x1"], row["y1"], row["x2"] - row["x1"], row["y2"] - row["y1"]],
                "iscrowd": 0,
            }
            if row["score"] is not None:
                entry["score"] = row["score"]
            if row["error"] is not None:
                self.counts.errors += 1
                yield entry | {"segmentation": []}
                continue
            self.counts.masks += 1
            rle = _rle(row)
            entry["segmentation"] = coco_polygons(mask_polygons(rle)) if polygons else rle
            yield entry | {"area": row["area"], "mask_score": row["mask_score"]}

    def results(self) -> Iterator[Row]:
        """The list that ``COCO.loadRes`` reads."""
        last = None
        for entry in self.annotations(polygons=False):
            self.counts.images += entry["image_id"] != last
            last = entry["image_id"]
            if entry["segmentation"]:
                score = entry.get("score", entry["mask_score"])
                kept = ("image_id", "category_id", "bbox", "segmentation", "mask_score")
                yield {k: entry[k] for k in kept} | {"score": score, "annotation_id": entry["id"]}


def _write_coco(file: IO[str], source: _Source, *, polygons: bool) -> None:
    file.write('{\n"images":')
    write_list(file, source.images())
    file.write(',\n"categories":')
    write_list(file, ({"id": n, "name": plain(name)} for n, name in source.categories()))
    file.write(',\n"annotations":')
    write_list(file, source.annotations(polygons=polygons))
    file.write(
        f',\n"deepmac_label":{dump({"model": str(source.about.get("model", ""))[:16]})}\n}}\n'
    )


def _write_yolo(folder: Path, source: _Source, form: str) -> None:
    number_of = {one: n for n, (one, _) in enumerate(source.categories())}
    for first, rows in source.by_image():
        source.counts.images += 1
        lines = []
        for row in rows:
            values = None if row["error"] is not None else _values(row, form)
            if values is None:
                source.counts.errors += 1
                continue
            source.counts.masks += 1
            words = " ".join(f"{value:.6f}" for value in values)
            lines.append(f"{number_of[row['category_id']]} {words}\n")
        parts = PurePosixPath(str(first["image"]).replace("\\", "/")).parts
        inner = [safe(part) for part in parts if part not in ("/", "..", ".")] or ["image"]
        path = folder / "labels" / PurePosixPath(*inner).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
    names = {n: plain(name) for n, (_, name) in enumerate(source.categories())}
    described = {"train": "images", "val": "images", "names": names}
    text = yaml.safe_dump(described, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def _values(row: Row, form: str) -> list[float] | None:
    size = np.array([row["width"], row["height"]], float)
    rle = _rle(row)
    if form == "yolo":
        x, y, width, height = coco_mask.toBbox(rle).tolist()
        box = np.array([x + width / 2, y + height / 2, width, height])
        values: list[float] = (box / np.tile(size, 2)).tolist()
        return values
    rings = mask_polygons(rle)
    if not rings:
        return None
    outline: list[float] = np.clip(joined(rings) / size, 0, 1).ravel().tolist()
    return outline


def _rle(row: Row) -> dict[str, Any]:
    return {"size": [row["height"], row["width"]], "counts": row["rle"]}
