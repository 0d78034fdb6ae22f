"""A set of annotations as columns of plain arrays, which processes share through the page cache.

A record of Python objects costs its process a private copy as soon as it is touched (its reference
count lies beside it); rows of an array do not. Polygons and run lengths stay packed here until the
record of their image is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from deepmac.data.annotations.records import ImageRecord, Instance, MaskSource
from deepmac.data.annotations.segmentation import RawSegmentation, segmentation_rle
from deepmac.data.file_parts import own_name

NO_MASK, POLYGONS, RUN_LENGTHS = 0, 1, 2
_SOURCES: tuple[MaskSource, ...] = ("human", "model")

IMAGE_COLUMNS = {
    "image_id": "i8",
    "width": "i4",
    "height": "i4",
    "exhaustive": "u1",
    "name_start": "i8",  # into name_bytes
    "name_count": "i4",
    "neg_start": "i8",  # into image_categories
    "neg_count": "i4",
    "not_exhaustive_start": "i8",
    "not_exhaustive_count": "i4",
    "row_start": "i8",  # its annotations: neighbouring rows
    "row_count": "i4",
}
ROW_COLUMNS = {
    "id": "i8",
    "category_id": "i8",
    "box": "f8",  # (rows, 4) xyxy
    "area": "f8",
    "iscrowd": "u1",
    "mask_kind": "u1",
    "mask_source": "u1",
    "mask_score": "f8",  # NaN: none
    "ring_start": "i8",  # polygons: into ring_start_of
    "ring_count": "i4",
    "rle_start": "i8",  # into rle_bytes
    "rle_count": "i8",
    "point_start": "i8",  # into points
    "point_count": "i4",
    "corner_start": "i8",  # into corners, -1: not turned
}
SHARED_COLUMNS = {
    "name_bytes": "u1",
    "image_categories": "i8",
    "ring_end": "i8",  # of every polygon, in coordinates; the one before ends where it starts
    "coordinates": "f8",
    "rle_bytes": "u1",
    "points": "f8",  # x, y, label in turns
    "corners": "f8",
}
COLUMNS = IMAGE_COLUMNS | ROW_COLUMNS | SHARED_COLUMNS


class Table:
    """Columns of a set; see ``IMAGE_COLUMNS``, ``ROW_COLUMNS`` and ``SHARED_COLUMNS``.

    Images stand in the order of their ids, rows in that of their images, then of their ids.

    Args:
        columns: arrays by name.
        folder: where the same columns lie as files; a process that a table is sent to opens them
            there instead of receiving a copy.
    """

    image_id: NDArray[np.int64]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    exhaustive: NDArray[np.uint8]
    neg_count: NDArray[np.int32]
    row_start: NDArray[np.int64]
    row_count: NDArray[np.int32]
    id: NDArray[np.int64]
    category_id: NDArray[np.int64]
    box: NDArray[np.float64]
    area: NDArray[np.float64]
    iscrowd: NDArray[np.uint8]
    mask_kind: NDArray[np.uint8]
    mask_source: NDArray[np.uint8]
    point_count: NDArray[np.int32]

    def __init__(self, columns: Mapping[str, NDArray[Any]], folder: Path | None = None) -> None:
        self.__dict__.update(columns)
        self.folder = folder
        self._whole: tuple[Table, NDArray[np.int64]] | None = None

    def __reduce__(self) -> Any:
        if self.folder is not None:
            return open_table, (self.folder,)
        if self._whole is not None:
            return Table.at, self._whole
        return Table, ({name: getattr(self, name) for name in COLUMNS},)

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def is_object(self) -> NDArray[np.bool_]:
        """(rows,) True where a row is no crowd region."""
        return np.asarray(self.iscrowd == 0)

    @property
    def image_of_row(self) -> NDArray[np.int64]:
        """(rows,) position of each row's image."""
        return np.repeat(np.arange(len(self)), self.row_count)

    def objects_per_image(self) -> NDArray[np.int64]:
        """(images,) how many objects each image has, crowd regions left out."""
        sums = np.concatenate([[0], np.cumsum(self.iscrowd == 0)])
        return np.asarray(sums[self.row_start + self.row_count] - sums[self.row_start])

    def name(self, position: int) -> str:
        """The path of an image's picture, from the folder of the pictures."""
        start, count = self._at("name_start", position), self._at("name_count", position)
        data: bytes = self.__dict__["name_bytes"][start : start + count].tobytes()
        return data.decode("utf-8", "surrogatepass")

    def record(self, position: int, image_dir: Path) -> ImageRecord:
        """The image at a position."""
        first = self._at("row_start", position)
        rows = slice(first, first + self._at("row_count", position))
        width, height = self._at("width", position), self._at("height", position)
        name = self.name(position)
        columns = (
            getattr(self, column)[rows].tolist()
            for column in ("id", "category_id", "box", "iscrowd", "area")
        )
        more = (self.__dict__[c][rows].tolist() for c in ("mask_source", "mask_score"))
        instances = tuple(
            Instance(
                identity,
                category_id,
                tuple(box),
                self.segmentation(row, height, width),
                bool(crowd),
                area,
                self._points(row),
                _SOURCES[source],
                None if score != score else score,
                self._corners(row),
            )
            for row, identity, category_id, box, crowd, area, source, score in zip(
                range(rows.start, rows.stop), *columns, *more, strict=True
            )
        )
        return ImageRecord(
            self._at("image_id", position),
            own_name(name),
            image_dir / name,
            width,
            height,
            instances,
            bool(self._at("exhaustive", position)),
            self._categories("neg", position),
            self._categories("not_exhaustive", position),
        )

    def segmentation(self, row: int, height: int, width: int) -> RawSegmentation | None:
        """A row's mask as COCO writes it."""
        kind = self.mask_kind[row]
        if kind == NO_MASK:
            return None
        if kind == RUN_LENGTHS:
            start, count = self._at("rle_start", row), self._at("rle_count", row)
            counts = self.__dict__["rle_bytes"][start : start + count].tobytes().decode("ascii")
            return {"size": [height, width], "counts": counts}
        first = self._at("ring_start", row)
        ends = self.__dict__["ring_end"][first : first + self._at("ring_count", row)].tolist()
        start = self._at("ring_end", first - 1) if first else 0
        polygons = []
        for end in ends:
            polygons.append(self.__dict__["coordinates"][start:end].tolist())
            start = end
        return polygons

    def at(self, positions: NDArray[np.int64]) -> Table:
        """Some images (ascending positions) with their rows; what is packed is shared."""
        counts = self.row_count[positions]
        ends = np.cumsum(counts, dtype=np.int64)
        starts = ends - counts
        rows = np.arange(int(ends[-1]) if len(ends) else 0)
        rows = rows + np.repeat(self.row_start[positions] - starts, counts)
        columns = {name: self.__dict__[name] for name in SHARED_COLUMNS}
        columns |= {name: self.__dict__[name][positions] for name in IMAGE_COLUMNS}
        columns |= {name: self.__dict__[name][rows] for name in ROW_COLUMNS}
        columns["row_start"] = starts
        part = Table(columns)
        part._whole = (self, positions)
        return part

    def has_odd_names(self) -> bool:
        """Whether some file name holds a backslash, a percent sign or a leading dot or slash."""
        data = self.__dict__["name_bytes"]
        if len(data) and ((data == ord("\\")) | (data == ord("%"))).any():
            return True
        first = data[np.minimum(self.__dict__["name_start"], max(len(data) - 1, 0))]
        return bool(len(data) and ((first == ord("/")) | (first == ord("."))).any())

    def renamed(self, names: Mapping[int, str]) -> Table:
        """With other file names at some positions."""
        data = [name.encode("utf-8", "surrogatepass") for name in names.values()]
        old = self.__dict__["name_bytes"]
        starts, counts = (self.__dict__[c].copy() for c in ("name_start", "name_count"))
        places, sizes = list(names), np.array([len(entry) for entry in data], "i8")
        starts[places], counts[places] = len(old) + np.cumsum(sizes) - sizes, sizes
        added = np.concatenate([old, np.frombuffer(b"".join(data), "u1")])
        changed = {"name_bytes": added, "name_start": starts, "name_count": counts}
        return Table({name: self.__dict__[name] for name in COLUMNS} | changed)

    def with_categories(self, number_of: Mapping[int, int]) -> Table:
        """With other category ids."""
        old = np.array(sorted(number_of), "i8")
        new = np.array([number_of[i] for i in old.tolist()], "i8")
        columns = {name: self.__dict__[name] for name in COLUMNS}
        if len(old):
            columns["category_id"] = new[np.searchsorted(old, self.category_id)]
        return Table(columns)

    def _at(self, column: str, position: int) -> int:
        return int(self.__dict__[column][position])

    def _categories(self, which: str, position: int) -> tuple[int, ...]:
        count = self._at(f"{which}_count", position)
        if not count:
            return ()
        start = self._at(f"{which}_start", position)
        return tuple(self.__dict__["image_categories"][start : start + count].tolist())

    def _points(self, row: int) -> tuple[tuple[float, float, int], ...]:
        count = self._at("point_count", row)
        if not count:
            return ()
        start = self._at("point_start", row)
        values = self.__dict__["points"][3 * start : 3 * (start + count)].tolist()
        return tuple(
            (x, y, int(label))
            for x, y, label in zip(values[0::3], values[1::3], values[2::3], strict=True)
        )

    def _corners(self, row: int) -> tuple[float, ...] | None:
        start = self._at("corner_start", row)
        return None if start < 0 else tuple(self.__dict__["corners"][start : start + 8].tolist())


class TableImages(Sequence[ImageRecord]):
    """The images of a table as a sequence of records, each made when it is asked for."""

    def __init__(self, table: Table, image_dir: Path) -> None:
        self.table, self.image_dir = table, image_dir

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, position: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, position: slice) -> TableImages: ...
    def __getitem__(self, position: int | slice) -> ImageRecord | TableImages:
        if isinstance(position, slice):
            return self.at(range(*position.indices(len(self))))
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        return self.table.record(position % len(self), self.image_dir)

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Sequence) and len(self) == len(other)
        return same and all(a == b for a, b in zip(self, other, strict=True))  # type: ignore

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TableImages({len(self)} images, {self.image_dir})"

    def at(self, positions: Sequence[int]) -> TableImages:
        """Those at some positions."""
        return TableImages(self.table.at(np.asarray(positions, dtype=np.int64)), self.image_dir)

    def with_table(self, table: Table) -> TableImages:
        """The same images with other annotations."""
        return TableImages(table, self.image_dir)


class TableBuilder:
    """Columns in the making: images first, then annotations in any order, singly or many at once.

    Numbers gather in arrays, never as Python objects, so that a million annotations fit.
    """

    def __init__(self) -> None:
        self._chunks: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS}
        self._chunks["image_position"] = []
        self._sizes = dict.fromkeys((*SHARED_COLUMNS, "rings"), 0)
        self._single: dict[str, list[Any]] = {}

    def add_images(self, images: Iterable[ImageRecord]) -> None:
        """Take the images, without what is annotated on them, in the order of their ids."""
        columns: dict[str, list[Any]] = {name: [] for name in IMAGE_COLUMNS}
        for image in images:
            data = image.file_name.encode("utf-8", "surrogatepass")
            columns["image_id"].append(image.id)
            columns["width"].append(image.width)
            columns["height"].append(image.height)
            columns["exhaustive"].append(image.exhaustive)
            columns["name_start"].append(self._extend("name_bytes", np.frombuffer(data, "u1")))
            columns["name_count"].append(len(data))
            for which, ids in (
                ("neg", image.neg_category_ids),
                ("not_exhaustive", image.not_exhaustive_category_ids),
            ):
                columns[f"{which}_start"].append(
                    self._extend("image_categories", np.array(ids, "i8")) if ids else 0
                )
                columns[f"{which}_count"].append(len(ids))
            columns["row_start"].append(0)
            columns["row_count"].append(0)
        for name, values in columns.items():
            self._chunks[name].append(np.array(values, IMAGE_COLUMNS[name]))

    def add(self, position: int, item: Instance, height: int, width: int) -> None:
        """Take one annotation of the image at ``position``."""
        row: dict[str, Any] = {name: 0 for name in ROW_COLUMNS}
        row |= {
            "image_position": position,
            "id": item.id,
            "category_id": item.category_id,
            "box": item.box,
            "area": item.area,
            "iscrowd": item.iscrowd,
            "mask_source": _SOURCES.index(item.mask_source),
            "mask_score": np.nan if item.mask_score is None else item.mask_score,
            "corner_start": -1,
        }
        if isinstance(item.segmentation, list):
            lengths = np.array([len(ring) for ring in item.segmentation], "i8")
            flat = np.array([v for ring in item.segmentation for v in ring], "f8")
            row["mask_kind"] = POLYGONS
            row["ring_start"] = self.extend_rings(lengths, flat)
            row["ring_count"] = len(lengths)
        elif item.segmentation is not None:
            counts = segmentation_rle(item.segmentation, height, width)["counts"]
            row["mask_kind"] = RUN_LENGTHS
            row["rle_start"] = self._extend("rle_bytes", np.frombuffer(counts, "u1"))
            row["rle_count"] = len(counts)
        if item.points:
            row["point_start"] = self._extend("points", np.array(item.points, "f8").ravel()) // 3
            row["point_count"] = len(item.points)
        if item.corners is not None:
            row["corner_start"] = self._extend("corners", np.array(item.corners, "f8"))
        for name, value in row.items():
            self._single.setdefault(name, []).append(value)
        if len(self._single["id"]) >= 1 << 14:
            self._flush()

    def add_many(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Take many annotations: ``ROW_COLUMNS`` and ``image_position``, those left out are 0."""
        count = len(rows["id"])
        for name, kind in ROW_COLUMNS.items():
            if name in rows:
                chunk = rows[name].astype(kind, copy=False)
            else:
                fill = {"mask_score": np.nan, "corner_start": -1}.get(name, 0)
                chunk = np.full(count, fill, kind)
            self._chunks[name].append(chunk)
        self._chunks["image_position"].append(rows["image_position"].astype("i8"))

    def extend_rings(self, lengths: NDArray[np.int64], flat: NDArray[np.float64]) -> int:
        """Keep polygons; returns the number of the first."""
        start, first = self._extend("coordinates", flat), self._sizes["rings"]
        self._chunks["ring_end"].append(start + np.cumsum(lengths))
        self._sizes["rings"] += len(lengths)
        return first

    def build(self) -> Table:
        """The table; the builder is empty afterwards."""
        self._flush()
        columns: dict[str, NDArray[Any]] = {}
        for name, kind in COLUMNS.items():
            shape = (0, 4) if name == "box" else (0,)
            chunks = self._chunks.pop(name)
            columns[name] = np.concatenate(chunks or [np.zeros(shape, kind)]).astype(
                kind, copy=False
            )
            del chunks
        positions = np.concatenate(self._chunks["image_position"] or [np.zeros(0, "i8")])
        order = np.lexsort((columns["id"], positions))
        if (order[1:] < order[:-1]).any():
            for name in ROW_COLUMNS:
                columns[name] = columns[name][order]
        counts = np.bincount(positions, minlength=len(columns["image_id"]))
        columns["row_count"] = counts.astype("i4")
        columns["row_start"] = np.cumsum(counts) - counts
        return Table(columns)

    def _extend(self, name: str, values: NDArray[Any]) -> int:
        start = self._sizes[name]
        self._chunks[name].append(values)
        self._sizes[name] += len(values)
        return start

    def _flush(self) -> None:
        if self._single:
            rows = {n: np.array(v) for n, v in self._single.items()}
            rows["box"] = np.array(self._single["box"], "f8").reshape(-1, 4)
            self._single = {}
            self.add_many(rows)


def pack(images: Iterable[ImageRecord]) -> Table:
    """A table of records."""
    images, builder = list(images), TableBuilder()
    builder.add_images(images)
    for position, image in enumerate(images):
        for item in image.instances:
            builder.add(position, item, image.height, image.width)
    return builder.build()


def save_table(table: Table, folder: Path) -> None:
    """Write every column into a folder; OSError where that fails."""
    for name in COLUMNS:
        np.save(folder / f"{name}.npy", getattr(table, name), allow_pickle=False)


def open_table(folder: str | os.PathLike[str]) -> Table:
    """Map the columns of a folder into memory, read-only.

    Raises:
        OSError: a file is missing.
        ValueError: a file is no array, cut off or of another type.
    """
    folder = Path(folder)
    columns = {}
    for name, kind in COLUMNS.items():
        path = folder / f"{name}.npy"
        # An empty file cannot be mapped.
        array = np.load(path, mmap_mode="r" if path.stat().st_size > 128 else None)
        if array.dtype != np.dtype(kind):
            raise ValueError(f"{path} holds {array.dtype}, not {kind}")
        columns[name] = np.asarray(array)
    return Table(columns, folder)
