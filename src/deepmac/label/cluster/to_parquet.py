"""``deepmac boxes BOXES --to parquet``: boxes of any format as tables, in bounded memory.

A COCO json is read entry by entry. Its boxes go into buckets on the disk, each of some thousands
of neighbouring images, and each bucket becomes a table; one bucket and the ids of the images are
held.
Other formats are read as ``label`` reads them, whole.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import msgspec

from deepmac.data.annotations.points import is_ours
from deepmac.data.annotations.segmentation import is_absent
from deepmac.data.stream.store import Store
from deepmac.errors import ConfigError, DataError, UserError, one_sentence
from deepmac.label.choice import given_score, is_of_model

BUCKET = 16_384
"""Images of a bucket, and of a table; a multiple of the images of a row group."""
GROUP = 256
"""Images of a row group: what an actor labels, and a kill costs."""


@dataclass
class Counts:
    """What became of the boxes.

    Attributes:
        images: of the source.
        boxes: written.
        left_alone: annotations that get no mask, and why.
    """

    images: int = 0
    boxes: int = 0
    left_alone: Counter[str] = field(default_factory=Counter)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ConfigError(f"boxes: {message}; `deepmac boxes --help` lists the options")


def command(arguments: Sequence[str]) -> int:
    """Run it; returns the exit status.

    Raises:
        UserError: anything that a user can mend.
    """
    parser = _Parser(
        prog="deepmac boxes",
        description="Boxes of any format that label reads, as Parquet tables for `deepmac label "
        "--engine ray`. Annotations with a mask that a person drew, crowd regions and those "
        "without a box are left out, and counted.",
        allow_abbrev=False,
    )
    parser.add_argument("boxes", metavar="BOXES", help="COCO json, or any that label reads")
    parser.add_argument("--to", choices=["parquet"], default="parquet", help="(%(default)s)")
    parser.add_argument("--out", required=True, metavar="DIR|URL", help="for the tables")
    parser.add_argument("--images", type=Path, help="folder of the pictures, for sizes in other "
                        "formats than COCO's")  # fmt: skip
    parser.add_argument("--boxes-format", default="auto", help="(%(default)s)")
    parser.add_argument("--images-per-group", type=int, default=GROUP,
                        help="images that are labelled together (%(default)s)")  # fmt: skip
    options = parser.parse_args(list(arguments))
    group = options.images_per_group
    if not 16 <= group <= BUCKET or BUCKET % group:
        raise ConfigError(f"--images-per-group {group} is a power of two from 16 to {BUCKET}")
    require_pyarrow()
    counts = convert(
        Path(options.boxes), options.out, images=options.images,
        boxes_format=options.boxes_format, group=group,
    )  # fmt: skip
    print(f"{counts.boxes:,} boxes on {counts.images:,} images -> {options.out}")
    for what, number in counts.left_alone.items():
        print(f"  {number:,} x {what}, left out")
    return 0


def require_pyarrow() -> None:
    """Raise UserError unless Parquet can be read and written."""
    if find_spec("pyarrow") is None:
        raise UserError("Parquet tables take the package pyarrow: pip install 'deepmac[ray]'")


def convert(
    source: Path,
    out: str,
    *,
    images: Path | None = None,
    boxes_format: str = "auto",
    group: int = GROUP,
) -> Counts:
    """Write tables of boxes.

    Args:
        source: file or folder.
        out: folder or URL; it must hold no tables.
        images: folder of the pictures.
        boxes_format: as for ``label``.
        group: images of a row group.

    Raises:
        UserError: the boxes cannot be read, or the tables not be written.
    """
    if not source.exists():
        raise DataError(f"the boxes {source} do not exist; check the path.")
    store = Store(out)
    if store.folder is not None and store.folder.is_file():
        raise ConfigError(f"{out} is a file: give a folder as --out")
    if any(name.endswith(".parquet") for name in store.names()):
        raise ConfigError(f"{store.where()} holds tables already: choose another --out")
    with tempfile.TemporaryDirectory(prefix="deepmac-boxes-") as folder:
        content = _Content(source, images, boxes_format)
        made = _Buckets(Path(folder), content)
        made.read()
        made.write(store, group)
    return made.counts


class _Content:
    """The lists of a COCO file, entry by entry."""

    def __init__(self, source: Path, images: Path | None, boxes_format: str) -> None:
        self.source = source
        self._lists: dict[str, Any] | None = None
        streams = source.is_file() and source.suffix.lower() == ".json"
        if boxes_format in ("auto", "coco") and streams and self._is_coco():
            return
        from deepmac.data.annotations.read_boxes import read_boxes

        self._lists = read_boxes(source, images or source.parent, boxes_format).content

    def entries(self, name: str) -> Iterable[Any]:
        """Of one list."""
        if self._lists is not None:
            return iter(self._lists.get(name) or ())
        return self._streamed(name)

    def _is_coco(self) -> bool:
        """Whether the file is an object with a list of categories that have ids."""
        if find_spec("ijson") is None:
            return False
        try:
            first = next(iter(self._streamed("categories")), None)
        except DataError:
            return False
        return isinstance(first, dict) and "id" in first

    def _streamed(self, name: str) -> Iterator[Any]:
        import ijson

        try:
            with self.source.open("rb") as file:
                yield from ijson.items(file, f"{name}.item", use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise DataError(
                f"{self.source} is no sound JSON ({one_sentence(error, longest=100)})"
            ) from None


class _Buckets:
    """Boxes on the disk, in files by their image's position."""

    def __init__(self, folder: Path, content: _Content) -> None:
        self.folder, self.content, self.counts = folder, content, Counts()
        self.position_of: dict[Any, int] = {}
        self.names: dict[int, str] = {}
        self.number_of: dict[Any, int] = {}
        self.ids: dict[str, str] = {"image_ids": "int", "box_ids": "int", "category_ids": "int"}
        self._encode = msgspec.msgpack.Encoder()

    def read(self) -> None:
        """Both lists, one after the other."""
        for entry in self.content.entries("categories"):
            self._category(entry)
        with _Files(self.folder, "images") as files:
            for entry in self.content.entries("images"):
                self._image(entry, files)
        with _Files(self.folder, "boxes") as files:
            for row, entry in enumerate(self.content.entries("annotations")):
                self._box(row, entry, files)
        if not self.counts.images:
            raise DataError(f"{self.content.source} has no images with an id and a file_name.")

    def write(self, store: Store, group: int) -> None:
        """A table for each bucket with boxes."""
        about = {**self.ids, "categories": [[n, name] for n, name in self.names.items()],
                 "images": self.counts.images, "source": str(self.content.source)}  # fmt: skip
        for bucket in range(-(-self.counts.images // BUCKET)):
            images = {entry[0]: entry for entry in _unpacked(self.folder / f"images-{bucket}")}
            rows = sorted(_unpacked(self.folder / f"boxes-{bucket}"))
            if rows:
                content = _table(rows, images, about, group)
                store.write(f"boxes-{bucket:07d}.parquet", content)
                self.counts.boxes += len(rows)
        if not self.counts.boxes:
            raise DataError(f"{self.content.source} has no boxes that need a mask.")

    def _category(self, entry: Any) -> None:
        identity = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(identity, bool) or not isinstance(identity, int | str):
            raise DataError(f"{self.content.source}: the category {entry!r:.60} has no id.")
        number = identity
        if isinstance(number, str):
            self.ids["category_ids"] = "text"
            number = len(self.number_of) + 1
        self.number_of[identity] = number
        self.names[number] = str(entry.get("name", identity))

    def _image(self, entry: Any, files: _Files) -> None:
        fields = entry if isinstance(entry, dict) else {}
        identity, name = fields.get("id"), fields.get("file_name")
        position = self.counts.images
        self.counts.images += 1
        if not _is_id(identity) or not isinstance(name, str) or identity in self.position_of:
            self.counts.left_alone["image without an id or name of its own"] += 1
            return
        if isinstance(identity, str):
            self.ids["image_ids"] = "text"
        self.position_of[identity] = position
        width, height = fields.get("width"), fields.get("height")
        known = type(width) is int and type(height) is int and min(width, height) > 0
        size = (width, height) if known else (None, None)
        files.add(position, self._encode.encode((position, str(identity), name, *size)))

    def _box(self, row: int, entry: Any, files: _Files) -> None:
        fields = entry if isinstance(entry, dict) else {}
        position = self.position_of.get(_hashable(fields.get("image_id")))
        category = self.number_of.get(_hashable(fields.get("category_id")))
        reason = _left_out(fields, position, category)
        if reason:
            self.counts.left_alone[reason] += 1
            return
        assert position is not None and category is not None
        identity = fields["id"]
        if isinstance(identity, str):
            self.ids["box_ids"] = "text"
        x, y, width, height = (float(value) for value in fields["bbox"])
        box = x, y, x + width, y + height
        value = position, row, str(identity), category, *box, given_score(fields)
        files.add(position, self._encode.encode(value))
        if is_ours(fields.get("points")):
            self.counts.left_alone["points of a box (the local engine takes them)"] += 1


def _left_out(fields: dict[str, Any], position: int | None, category: int | None) -> str:
    if not _is_id(fields.get("id")):
        return "annotation without an id"
    if position is None or category is None:
        return "annotation of an image or category that the file does not list"
    if not is_absent(fields.get("segmentation")) and not is_of_model(fields):
        return "human mask kept"
    if not is_absent(fields.get("segmentation")):
        return "mask of a model kept"
    if fields.get("iscrowd"):
        return "crowd region"
    box = fields.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        return "annotation without a box"
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in box):
        return "malformed box"
    if fields.get("rotation") or fields.get("corners"):
        return "turned box (the local engine takes them)"
    return ""


class _Files:
    """Files of values by bucket, a bounded number of them open."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._waiting: dict[int, list[bytes]] = {}
        self._count = 0

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()

    def add(self, position: int, value: bytes) -> None:
        """A value of an image."""
        packed = len(value).to_bytes(4, "little") + value
        self._waiting.setdefault(position // BUCKET, []).append(packed)
        self._count += 1
        if self._count >= 100_000:
            self._flush()

    def _flush(self) -> None:
        for bucket, values in self._waiting.items():
            with (self.folder / f"{self.name}-{bucket}").open("ab") as file:
                file.write(b"".join(values))
        self._waiting, self._count = {}, 0


def _unpacked(path: Path) -> Iterator[tuple[Any, ...]]:
    if not path.is_file():
        return
    decode = msgspec.msgpack.Decoder().decode
    file: IO[bytes]
    with path.open("rb") as file:
        while length := file.read(4):
            yield tuple(decode(file.read(int.from_bytes(length, "little"))))


def _table(
    rows: list[tuple[Any, ...]], images: dict[int, Any], about: dict[str, Any], group: int
) -> bytes:
    """A Parquet file whose row groups hold whole images."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    from deepmac.label.cluster.tables import ABOUT, BOXES

    names = dict(about["categories"])
    columns: dict[str, list[Any]] = {column: [] for column in BOXES.names}
    for position, row, identity, category, *box, score in rows:
        _, image_id, name, width, height = images[position]
        values = (name, image_id, position, width, height, row, identity, category,
                  names[category], *box, score)  # fmt: skip
        for column, value in zip(BOXES.names, values, strict=True):
            columns[column].append(value)
    table = pa.table(columns, schema=BOXES.with_metadata({ABOUT: json.dumps(about).encode()}))
    file = io.BytesIO()
    groups = [position // group for position, *_ in rows]
    with pq.ParquetWriter(file, table.schema, compression="zstd") as writer:
        start = 0
        for stop in range(1, len(rows) + 1):
            if stop == len(rows) or groups[stop] != groups[start]:
                writer.write_table(table.slice(start, stop - start))
                start = stop
    return file.getvalue()


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _hashable(value: Any) -> Any:
    return value if _is_id(value) else None
