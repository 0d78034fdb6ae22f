"""A sharded set, opened: its index, its chunks, and its images as any other set's."""

from __future__ import annotations

import hashlib
import io
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from deepmac.data.annotations import store as parsed_store
from deepmac.data.annotations.index import CocoIndex
from deepmac.data.annotations.problems import Problem
from deepmac.data.annotations.records import Category, ImageRecord
from deepmac.data.annotations.summary import Summary
from deepmac.data.annotations.table import Table, TableImages, open_table, save_table
from deepmac.data.stream.cache import Cache
from deepmac.data.stream.chunk import Chunk, damaged
from deepmac.data.stream.gather import joined
from deepmac.data.stream.store import Store, StoreError
from deepmac.errors import DataError
from deepmac.files import folder_draft

FORMAT = "deepmac-chunks-1"
INDEX = "index.json"
CHUNK_FIELDS = np.dtype(
    [
        ("images", "<i4"),
        ("rows", "<i8"),  # annotations
        ("bytes", "<i8"),
        ("head", "<i8"),  # bytes before the first picture
        ("sha256", "V32"),  # of these
    ]
)
DEFAULT_CACHE_GB = 16.0
_OPEN_CHUNKS = 16


def chunk_name(split: str, number: int) -> str:
    """Of a chunk's file, below the set's place."""
    return f"{split}/{number:07d}.chunk"


def table_name(split: str) -> str:
    """Of the file with a row for each chunk."""
    return f"{split}.chunks.npy"


class ChunkedSplit:
    """The chunks of one split, read one by one.

    Args:
        store: where they lie.
        name: of the split.
        about: its entry in the index.
        digest: of the set.
        cache_gb: bound on the chunks of a store that are kept on this machine, all sets together.
    """

    def __init__(
        self, store: Store, name: str, about: dict[str, Any], digest: str, cache_gb: float
    ) -> None:
        self.store, self.name, self.about, self.digest = store, name, about, digest
        data = store.read(table_name(name))
        if hashlib.sha256(data).hexdigest() != about["chunks_sha256"]:
            raise damaged(store.where(table_name(name)))
        self.chunks: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
        self.counts = self.chunks["images"].astype("i8")
        self.ends = np.cumsum(self.counts)
        self.cache: Cache | None = None
        if store.folder is None:
            folder = parsed_store.cache_folder() / "chunks"
            self.cache = Cache(folder, int(cache_gb * 1e9))
        self.keep_open = _OPEN_CHUNKS
        self._open: OrderedDict[int, Chunk] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __len__(self) -> int:
        """Images."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def find(self, image: int) -> tuple[Chunk, int]:
        """The chunk of an image, and its row there."""
        number = int(np.searchsorted(self.ends, image, side="right"))
        return self.chunk(number), image - int(self.ends[number] - self.counts[number])

    def picture(self, image: int) -> bytes:
        """The file of an image."""
        chunk, row = self.find(image)
        return chunk.picture(row)

    def chunk(self, number: int) -> Chunk:
        """A chunk, fetched where it is not on this machine.

        Raises:
            DataError: it is missing or damaged, or the store does not answer.
        """
        chunk = self._open.get(number)
        if chunk is None:
            chunk = self._opened(number)
            if chunk.head_digest() != bytes(self.chunks[number]["sha256"]):
                raise damaged(self.where(number))
            self._open[number] = chunk
            while len(self._open) > self.keep_open:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(number)
        return chunk

    def fetch(self, number: int) -> Path:
        """Bring a chunk onto this machine; its path.

        Raises:
            DataError: as for :meth:`chunk`.
        """
        name = chunk_name(self.name, number)
        if self.cache is None:
            assert self.store.folder is not None
            return self.store.folder / name
        size = int(self.chunks[number]["bytes"])
        return self.cache.get(f"{self.digest[:16]}/{name}", size, lambda: self._download(number))

    def head(self, number: int) -> Chunk:
        """A chunk's annotations, without its pictures."""
        where = self.where(number)
        try:
            data = self.store.read(
                chunk_name(self.name, number), 0, int(self.chunks[number]["head"])
            )
        except FileNotFoundError:
            raise _missing(where) from None
        chunk = Chunk(data, where)
        if chunk.head_digest() != bytes(self.chunks[number]["sha256"]):
            raise damaged(where)
        return chunk

    def check(self, number: int) -> Chunk:
        """Raise DataError unless every byte of a chunk is what was written."""
        chunk = self.chunk(number)
        chunk.check_pictures()
        return chunk

    def where(self, number: int) -> str:
        """A chunk's address, for people."""
        return self.store.where(chunk_name(self.name, number))

    @cached_property
    def table(self) -> Table:
        """The annotations of all chunks, on this machine's disk and shared by its processes."""
        key = hashlib.sha256(f"{self.digest} {self.name}".encode()).hexdigest()
        place = parsed_store.cache_folder() / "chunk-tables" / key
        try:
            return open_table(place)
        except (OSError, ValueError):
            pass
        table = joined([self.head(number).table for number in range(len(self.chunks))])
        try:
            with folder_draft(place, sync=False) as draft:
                save_table(table, draft)
        except OSError:  # another process was faster, or the cache cannot be written
            pass
        try:
            return open_table(place)
        except (OSError, ValueError):
            return table

    def _opened(self, number: int) -> Chunk:
        for _ in range(20):
            try:
                return Chunk.open(self.fetch(number), self.where(number))
            except FileNotFoundError:  # removed from the cache since, by another process
                if self.cache is None:
                    raise _missing(self.where(number)) from None
        raise StoreError(
            f"{self.where(number)} went out of the cache before it was read: raise data.cache_gb"
        )

    def _download(self, number: int) -> bytes:
        try:
            data = self.store.read(chunk_name(self.name, number))
        except FileNotFoundError:
            raise _missing(self.where(number)) from None
        if len(data) != int(self.chunks[number]["bytes"]):
            raise damaged(self.where(number))
        chunk = Chunk(data, self.where(number))
        if chunk.head_digest() != bytes(self.chunks[number]["sha256"]):
            raise damaged(self.where(number))
        chunk.check_pictures()
        return data


def _missing(where: str) -> DataError:
    return DataError(f"{where} is missing: copy it there again, or shard the data again")


@dataclass(frozen=True)
class PictureFile:
    """A picture that lies in a chunk: called, it gives the file's bytes."""

    split: ChunkedSplit
    image: int

    def __call__(self) -> bytes:
        return self.split.picture(self.image)


class StreamImages(Sequence[ImageRecord]):
    """The images of a split, each read with its chunk: nothing is held of the whole set."""

    def __init__(self, split: ChunkedSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    @overload
    def __getitem__(self, position: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, position: slice) -> list[ImageRecord]: ...
    def __getitem__(self, position: int | slice) -> ImageRecord | list[ImageRecord]:
        if isinstance(position, slice):
            return [self[n] for n in range(*position.indices(len(self)))]
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        image = position % len(self)
        chunk, row = self.split.find(image)
        record = chunk.table.record(row, Path(self.split.name))
        return replace(record, data=PictureFile(self.split, image), number=int(chunk.number[row]))


class ChunkedImages(TableImages):
    """The images of a split whose annotations are all at hand, and whose pictures are not.

    Args:
        table: of the images.
        split: where their pictures are.
        numbers: (images,) int64 of each in the split.
    """

    def __init__(self, table: Table, split: ChunkedSplit, numbers: NDArray[np.int64]) -> None:
        super().__init__(table, Path(split.name))
        self.split, self.numbers = split, numbers

    @overload
    def __getitem__(self, position: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, position: slice) -> TableImages: ...
    def __getitem__(self, position: int | slice) -> ImageRecord | TableImages:
        found = super().__getitem__(position)
        if isinstance(found, TableImages):
            return found
        assert isinstance(position, int)
        return replace(found, data=PictureFile(self.split, int(self.numbers[position])))

    def at(self, positions: Sequence[int]) -> TableImages:
        """Those at some positions."""
        places = np.asarray(positions, dtype=np.int64)
        return ChunkedImages(self.table.at(places), self.split, self.numbers[places])

    def with_table(self, table: Table) -> TableImages:
        """The same images with other annotations."""
        return ChunkedImages(table, self.split, self.numbers)


@dataclass(frozen=True)
class StreamIndex(CocoIndex):
    """A set whose annotations stay in its chunks.

    Attributes:
        stored: what is known of all of them.
    """

    stored: Summary | None = field(default=None, compare=False)

    @cached_property
    def summary(self) -> Summary:
        """From the set's index."""
        assert self.stored is not None
        return self.stored

    @cached_property
    def table(self) -> Table:
        """All annotations: for counts, never needed in training."""
        assert isinstance(self.images, StreamImages)
        return self.images.split.table


def open_index(place: str) -> tuple[Store, dict[str, Any]]:
    """The index of a sharded set.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    store = Store(place)
    try:
        data = store.read(INDEX)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise DataError(
            f"{store.where()} is no set of chunks: it has no {INDEX}; make one with `deepmac shard "
            "data.root=DIR --out PLACE`, and wait until it has ended"
        ) from None
    try:
        index: dict[str, Any] = json.loads(data)
        if index["format"] != FORMAT:
            raise ValueError(index["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{store.where(INDEX)} is no index of this version's chunks ({error!s:.60}): shard the "
            "data again"
        ) from None
    return store, index


def read_chunked(
    place: str, split: str, *, whole: bool, cache_gb: float = DEFAULT_CACHE_GB
) -> CocoIndex:
    """A split of a sharded set.

    Args:
        place: folder or URL.
        split: ``train`` or ``val``.
        whole: hold all annotations in one table; else they are read with their chunks.
        cache_gb: see :class:`ChunkedSplit`.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    store, index = open_index(place)
    if split not in index["splits"]:
        known = ", ".join(index["splits"])
        raise DataError(f"{store.where()} has no split {split}; it has {known}.")
    about = index["splits"][split]
    chunks = ChunkedSplit(store, split, about, index["digest"], cache_gb)
    categories = tuple(Category(*entry) for entry in index["categories"])
    shown = cast(Path, store.where(split))
    common: dict[str, Any] = {
        "json_path": shown,
        "image_dir": shown,
        "categories": categories,
        "text_ids": {int(ours): own for ours, own in about.get("text_ids", [])},
        "problems": tuple(
            Problem(kind, message, shown, is_note=True) for kind, message in about["notes"]
        ),
        "source": f"{len(chunks.chunks)} chunks of {store.where()}: {index['source']}",
    }
    if whole:
        images = ChunkedImages(chunks.table, chunks, np.arange(len(chunks)))
        return CocoIndex(images=images, **common)
    summary = Summary.from_dict(about["summary"])
    return StreamIndex(images=StreamImages(chunks), stored=summary, **common)
