"""``deepmac shard``: a data set as chunks, in a folder or an object store."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmac.data.annotations.index import CocoIndex
from deepmac.data.annotations.summary import NOTHING, Summary, summary_of
from deepmac.data.annotations.table import COLUMNS
from deepmac.data.file_parts import part_of
from deepmac.data.images import read_image
from deepmac.data.stream.chunk import Chunk, encode_chunk
from deepmac.data.stream.chunked import CHUNK_FIELDS, FORMAT, INDEX, chunk_name, table_name
from deepmac.data.stream.smaller import smaller
from deepmac.data.stream.store import Store
from deepmac.errors import DataError, UserError

PLAN = "unfinished.json"
_VERSION = 1


@dataclass(frozen=True)
class Sharding:
    """How a set is cut.

    Attributes:
        chunk_mb: bytes of pictures a chunk, about; a picture is never divided.
        longer_side: pictures whose longer side has more pixels are scaled down and encoded anew.
        quality: of their JPEG.
        shuffle: training images are shuffled over all chunks, so that neighbours in the source
            (one video, one class) are none in a chunk. Validation keeps its order.
        seed: of that.
    """

    chunk_mb: float = 32.0
    longer_side: int | None = None
    quality: int = 95
    shuffle: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """What came of it.

    Attributes:
        finished: whether all chunks are there, and hence the index.
        written: chunks that this run has written.
        chunks: that there are to be.
        images: by split.
        bytes: of all chunks, once it is finished.
    """

    finished: bool
    written: int
    chunks: int
    images: Mapping[str, int]
    bytes: int = 0


def shard(
    sets: Mapping[str, CocoIndex],
    out: str,
    how: Sharding,
    *,
    source: str,
    workers: int = 1,
    part: tuple[int, int] = (0, 1),
    restart: bool = False,
    say: Callable[[int, int], None] = lambda done, of: None,
) -> Report:
    """Write the chunks that are not there yet, and the index once all of them are.

    Args:
        sets: ``train`` and ``val``, with the same categories.
        out: folder or URL.
        how: the set is cut.
        source: what is said of it.
        workers: processes.
        part: (i, n): write every n-th chunk, from the i-th on; for several machines. Whoever
            finds all chunks there writes the index.
        restart: drop an unfinished set of other data or settings.
        say: told of each chunk.

    Raises:
        UserError: another set is there, or something cannot be read or written.
    """
    store = Store(out)
    splits = {name: _Split(name, index, how) for name, index in sets.items()}
    identity = {
        "version": _VERSION,
        **{name: getattr(how, name) for name in Sharding.__dataclass_fields__},
        **{name: split.digest for name, split in splits.items()},
    }
    finished = _check_place(store, identity, restart)
    images = {name: len(split.index.images) for name, split in splits.items()}
    total = sum(len(split.chunks) for split in splits.values())
    if finished is not None:
        return Report(True, 0, total, images, finished)
    tasks = [(split, n) for split in splits.values() for n in range(len(split.chunks))]
    tasks = tasks[part[0] :: part[1]]
    there = {name: store.names(name) for name in splits}
    left = [
        (split, n) for split, n in tasks if os.path.basename(chunk_name("", n)) not in
        there[split.name]
    ]  # fmt: skip
    done = len(tasks) - len(left)
    say(done, len(tasks))
    for _ in _written(store, left, workers):
        done += 1
        say(done, len(tasks))
    size = _finish(store, splits, next(iter(sets.values())), identity, source)
    return Report(size is not None, len(left), total, images, size or 0)


class _Split:
    """A split and which images go into which chunk."""

    def __init__(self, name: str, index: CocoIndex, how: Sharding) -> None:
        self.name, self.index, self.how = name, index, how
        count = len(index.images)
        self.order: NDArray[np.int64] = np.arange(count)
        if how.shuffle and name == "train":
            self.order = np.random.default_rng(how.seed).permutation(count)
        sizes = self._sizes()
        self.chunks = _cut(self.order, sizes, how.chunk_mb * 1e6)
        table = index.table
        digest = hashlib.sha256(sizes.tobytes())
        for column in COLUMNS:
            digest.update(np.ascontiguousarray(getattr(table, column)).tobytes())
        digest.update(repr([(c.id, c.name) for c in index.categories]).encode())
        self.digest = digest.hexdigest()

    def _sizes(self) -> NDArray[np.int64]:
        """Bytes of every image's file, as far as is known before it is encoded anew."""
        table, folder = self.index.table, self.index.image_dir
        found = np.zeros(len(table), "i8")
        for position in range(len(table)):
            path = folder / table.name(position)
            try:
                found[position] = _size(path)
            except OSError as error:
                raise _unreadable(path, error) from None
        if self.how.longer_side:
            sides = np.maximum(table.width, table.height)
            found = (found * np.minimum(1.0, (self.how.longer_side / sides) ** 2)).astype("i8")
        return found

    def encode(self, number: int) -> bytes:
        """A chunk."""
        records, pictures = [], []
        positions = self.chunks[number].tolist()
        for position in positions:
            record = self.index.images[position]
            try:
                data = _content(record.path)
            except OSError as error:
                raise _unreadable(record.path, error) from None
            side = self.how.longer_side
            if side and max(record.width, record.height) > side:
                pixels = read_image(record.path, (record.width, record.height), data)
                record, data = smaller(record, pixels, side, self.how.quality)
            records.append(record)
            pictures.append(data)
        head, body = encode_chunk(records, positions, pictures)
        return head + body


def _cut(
    order: NDArray[np.int64], sizes: NDArray[np.int64], most: float
) -> list[NDArray[np.int64]]:
    """Neighbours in the order, as many as fit."""
    if not len(order):
        return []
    before = np.cumsum(sizes[order]) - sizes[order]
    number = (before // most).astype("i8")
    return np.split(order, np.flatnonzero(np.diff(number)) + 1)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except NotADirectoryError:
        part = part_of(path)
        if part is None:
            raise
        return part.size


def _content(path: Path) -> bytes:
    part = part_of(path)
    return path.read_bytes() if part is None else part.read()


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"image {path} cannot be read ({error.strerror or error}); mend it and start again: "
        "finished chunks are kept"
    )


def _check_place(store: Store, identity: dict[str, Any], restart: bool) -> int | None:
    """Bytes of the very set, where it is finished; UserError where another one is in the way."""
    try:
        index = json.loads(store.read(INDEX))
    except FileNotFoundError:
        index = None
    except ValueError:
        raise UserError(
            f"{store.where(INDEX)} is of something else: choose another --out"
        ) from None
    if index is not None:
        if index.get("identity") == identity:
            store.remove(PLAN)  # there still, where the last run was stopped at its last step
            return sum(int(split["bytes"]) for split in index["splits"].values())
        raise UserError(
            f"{store.where()} holds another data set, or the same one cut otherwise: choose "
            "another --out"
        )
    try:
        plan = json.loads(store.read(PLAN))
    except (FileNotFoundError, ValueError):
        plan = None
    if plan is not None and plan != identity:
        if not restart:
            names = [name for name in identity if plan.get(name) != identity[name]]
            raise UserError(
                f"{store.where()} holds an unfinished set with another {names[0]}: start as before "
                "to finish it, or give --restart to begin anew"
            )
        plan = None
    if plan is None:
        for split in ("train", "val"):
            for name in store.names(split):
                if name.endswith(".chunk"):
                    store.remove(f"{split}/{name}")
        store.write(PLAN, json.dumps(identity).encode())
    return None


_at_work: dict[str, _Split] = {}


def _written(
    store: Store, tasks: list[tuple[_Split, int]], workers: int
) -> Iterator[tuple[str, int]]:
    if workers <= 1 or len(tasks) <= 1:
        for split, number in tasks:
            store.write(chunk_name(split.name, number), split.encode(number))
            yield split.name, number
        return
    _at_work.update({split.name: split for split, _ in tasks})
    pool = ProcessPoolExecutor(workers, get_context("fork"), _end_with_parent)
    try:
        waiting: list[Future[tuple[str, int]]] = []
        for split, number in tasks:
            waiting.append(pool.submit(_write, store, split.name, number))
            while len(waiting) >= 2 * workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        _at_work.clear()


def _end_with_parent() -> None:
    """For a new worker: once its parent was killed, nobody would ever end it."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _write(store: Store, split: str, number: int) -> tuple[str, int]:
    """In a process that was forked, and so has the split."""
    store.write(chunk_name(split, number), _at_work[split].encode(number))
    return split, number


def _finish(
    store: Store, splits: dict[str, _Split], first: CocoIndex, identity: dict[str, Any], source: str
) -> int | None:
    """Write the index; None where chunks are missing."""
    abouts: dict[str, Any] = {}
    size = 0
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for name, split in splits.items():
        there = store.names(name)
        table = np.zeros(len(split.chunks), CHUNK_FIELDS)
        summary: Summary = NOTHING
        for number in range(len(split.chunks)):
            file = os.path.basename(chunk_name("", number))
            if file not in there:
                return None
            chunk = _head(store, chunk_name(name, number))
            rows = len(chunk.table.id)
            table[number] = (
                len(chunk.table), rows, there[file], chunk.head, chunk.head_digest()
            )  # fmt: skip
            if there[file] != chunk.head + chunk.header["body"]:
                store.remove(chunk_name(name, number))
                raise UserError(f"{store.where(chunk_name(name, number))} was cut off: start again")
            summary = summary + summary_of(chunk.table)
        content = io.BytesIO()
        np.save(content, table, allow_pickle=False)
        store.write(table_name(name), content.getvalue())
        chunks_digest = hashlib.sha256(content.getvalue()).hexdigest()
        digest.update(chunks_digest.encode())
        size += int(table["bytes"].sum())
        abouts[name] = {
            "images": len(split.index.images),
            "annotations": int(table["rows"].sum()),
            "bytes": int(table["bytes"].sum()),
            "chunks": len(table),
            "chunks_sha256": chunks_digest,
            "summary": summary.to_dict(),
            "text_ids": [[ours, own] for ours, own in split.index.text_ids.items()],
            "notes": [[p.kind, p.message] for p in split.index.problems if p.is_note],
            "left_out": dict(split.index.dropped),
        }
    index = {
        "format": FORMAT,
        "digest": digest.hexdigest(),
        "source": source,
        "categories": [[c.id, c.name, c.supercategory] for c in first.categories],
        "splits": abouts,
        "identity": identity,
    }
    store.write(INDEX, json.dumps(index, indent=1).encode())
    store.remove(PLAN)
    return size


def _head(store: Store, name: str) -> Chunk:
    """A chunk's head, in two steps, as nothing says yet how long it is."""
    guess = 1 << 16
    data = store.read(name, 0, guess)
    while True:
        try:
            return Chunk(data, store.where(name))
        except DataError:
            if len(data) < guess:
                raise
            guess *= 8
            data = store.read(name, 0, guess)
