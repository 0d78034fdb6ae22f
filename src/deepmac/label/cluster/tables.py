"""The two kinds of Parquet tables, and the tables of a folder or a store in order.

Rows of an image are neighbours. Row groups of tables that ``deepmac boxes`` writes hold whole
images, and begin with one whose number is a multiple of ``IMAGES_TOGETHER``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deepmac.data.stream.store import Store, is_url
from deepmac.errors import DataError, one_sentence

BOXES = pa.schema(
    [
        pa.field("image", pa.string()),  # path below --images
        pa.field("image_id", pa.string()),  # the source's own
        pa.field("image_number", pa.int64()),  # place among the source's images
        pa.field("width", pa.int32()),  # pixels; null: not known
        pa.field("height", pa.int32()),
        pa.field("row", pa.int64()),  # place among the source's annotations
        pa.field("box_id", pa.string()),  # the source's own
        pa.field("category_id", pa.int64()),
        pa.field("category", pa.string()),
        pa.field("x1", pa.float64()),  # pixels of the picture
        pa.field("y1", pa.float64()),
        pa.field("x2", pa.float64()),
        pa.field("y2", pa.float64()),
        pa.field("score", pa.float64()),  # the box's own; null: none
    ]
)
MASKS = pa.schema(
    [
        *BOXES,
        pa.field("rle", pa.string()),  # COCO's compressed run lengths, size (height, width)
        pa.field("area", pa.int64()),  # pixels of the mask
        pa.field("raw_score", pa.float64()),  # the network's
        pa.field("mask_score", pa.float64()),  # calibrated, where there is a calibration
        pa.field("model", pa.string()),  # digest of the network and its card
        pa.field("error", pa.string()),  # why there is no mask; null: there is one
    ]
)
NEEDED = ("image", "x1", "y1", "x2", "y2")
ABOUT = b"deepmac"
_MOST_ROWS = 20_000


@dataclass(frozen=True)
class Unit:
    """Rows that are labelled, and written, together.

    Attributes:
        number: in the order of all.
        file: name of their table.
        group: row group.
        start: first row in the group.
        stop: the row after the last.
    """

    number: int
    file: str
    group: int
    start: int
    stop: int

    @property
    def out(self) -> str:
        """Name of the table that comes of it."""
        return f"part-{self.number:07d}.parquet"


class Tables:
    """The Parquet files of a place.

    Args:
        place: a file, a folder, or the URL of one.

    Raises:
        UserError: there is nothing that can be read.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        store = Store(place)
        if place.endswith((".parquet", ".pq")) and not (store.folder and store.folder.is_dir()):
            parent, _, name = store.place.rpartition("/")
            self.store, self.sizes = Store(parent or ("" if is_url(place) else ".")), {name: -1}
            return
        self.store = store
        found = store.names()
        self.sizes = {
            name: size
            for name, size in sorted(found.items())
            if name.endswith((".parquet", ".pq")) and not name.startswith(("_", "."))
        }
        if not self.sizes:
            raise DataError(
                f"{place} holds no Parquet table: make some with `deepmac boxes BOXES --to parquet "
                "--out DIR`"
            )

    def open(self, name: str) -> pq.ParquetFile:
        """One of the tables.

        Raises:
            DataError: it cannot be read.
        """
        where = self.store.where(name)
        try:
            if self.store.folder is not None:
                return pq.ParquetFile(self.store.folder / name, memory_map=True)
            return pq.ParquetFile(io.BytesIO(self.store.read(name)))
        except FileNotFoundError:
            raise DataError(f"{where} does not exist; check the path.") from None
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{where} is no Parquet table ({one_sentence(error, longest=100)})"
            ) from None

    def about(self) -> dict[str, Any]:
        """What the first table says of all."""
        metadata = self.open(next(iter(self.sizes))).schema_arrow.metadata or {}
        try:
            about = json.loads(metadata.get(ABOUT, b"{}"))
        except ValueError:
            about = {}
        return about if isinstance(about, dict) else {}

    def units(self) -> list[Unit]:
        """All rows, in pieces of some thousands.

        Raises:
            DataError: a table lacks a column.
        """
        units: list[Unit] = []
        for name in self.sizes:
            file = self.open(name)
            missing = [column for column in NEEDED if column not in file.schema_arrow.names]
            if missing:
                raise DataError(
                    f"{self.store.where(name)} has no column {missing[0]}: tables of boxes have "
                    f"{', '.join(NEEDED)}, and {', '.join(set(BOXES.names) - set(NEEDED))} if known"
                )
            whole = ABOUT in (file.schema_arrow.metadata or {})
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                step = rows if whole else _MOST_ROWS
                for start in range(0, rows, max(1, step)):
                    stop = min(rows, start + step)
                    units.append(Unit(len(units), name, group, start, stop))
        return units

    def rows(self, unit: Unit) -> pa.Table:
        """The rows of a unit, with all columns of ``BOXES``."""
        table = self.open(unit.file).read_row_group(unit.group)
        return completed(table.slice(unit.start, unit.stop - unit.start), unit)

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows in order, a bounded number at a time."""
        for name in self.sizes:
            yield from self.open(name).iter_batches(batch_size=4096, columns=columns)


def completed(table: pa.Table, unit: Unit | None = None) -> pa.Table:
    """A table of boxes with the columns of ``BOXES``, those that it lacks filled in."""
    count = table.num_rows
    columns = []
    for field in BOXES:
        if field.name in table.column_names:
            try:
                columns.append(table[field.name].cast(field.type))
            except pa.ArrowException as error:
                raise DataError(
                    f"the column {field.name} of {unit.file if unit else 'the boxes'} is no "
                    f"{field.type} ({one_sentence(error, longest=80)})"
                ) from None
        elif field.name == "image_number":
            columns.append(pa.array(_numbered(table["image"].to_pylist()), field.type))
        elif field.name == "row":
            first = unit.start if unit else 0
            columns.append(pa.array(range(first, first + count), field.type))
        elif field.name == "category_id":
            columns.append(pa.array([1] * count, field.type))
        elif field.name == "image_id":
            columns.append(table["image"].cast(pa.string()))
        else:
            columns.append(pa.nulls(count, field.type))
    return pa.table(columns, schema=BOXES)


def _numbered(names: list[Any]) -> list[int]:
    number_of: dict[Any, int] = {}
    return [number_of.setdefault(name, len(number_of)) for name in names]


def as_bytes(table: pa.Table, about: dict[str, Any]) -> bytes:
    """A Parquet file."""
    file = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata({ABOUT: json.dumps(about).encode()}),
        file,
        compression="zstd",
    )
    return file.getvalue()
