"""Chunks of an object store on this machine's disk: fetched once for all processes, bounded."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from deepmac.errors import ConfigError

_ROOM, _PART = ".room", ".part"


class Cache:
    """A folder of files that others can be fetched into again.

    Of two processes, or threads, that want the same file one fetches it and the other waits. Files
    that are fetched count from the beginning with their whole size, so that the bound holds at any
    time; those that were used longest ago go first. What a killed process left half fetched goes
    with the next fetch.

    Args:
        folder: of the files; made with the first one.
        limit: bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def get(self, name: str, size: int, fetch: Callable[[], bytes]) -> Path:
        """A file's path; it may be removed by the time it is opened, then ask again.

        Args:
            name: of the file.
            size: bytes.
            fetch: gives its content, checked.

        Raises:
            ConfigError: it is larger than the cache.
            OSError: it cannot be written.
        """
        path = self.folder / name
        with suppress(FileNotFoundError):
            os.utime(path)
            return path
        if size > self.limit:
            raise ConfigError(
                f"a chunk of {size / 1e6:.0f} MB does not fit into the cache of "
                f"{self.limit / 1e9:g} GB: raise data.cache_gb"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._part(path) as part:
            if path.exists():  # meanwhile
                return path
            self._make_room(part, size)
            part.write(fetch())
            part.flush()
            os.fsync(part.fileno())
            os.replace(_draft_of(path), path)
        return path

    def used(self) -> int:
        """Bytes on the disk."""
        return sum(size for _, size, _ in self._files())

    @contextmanager
    def _part(self, path: Path) -> Iterator[BinaryIO]:
        """The draft of a file, which nobody else has."""
        draft = _draft_of(path)
        while True:
            file = os.fdopen(os.open(draft, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
            fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if path.exists() or os.stat(draft).st_ino == os.fstat(file.fileno()).st_ino:
                    break
            file.close()  # it is no longer the draft of that name
        try:
            yield file
        finally:
            with suppress(FileNotFoundError):
                if os.stat(draft).st_ino == os.fstat(file.fileno()).st_ino:
                    os.unlink(draft)
            file.close()

    def _make_room(self, part: BinaryIO, size: int) -> None:
        with (self.folder / _ROOM).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            part.truncate(0)  # of somebody who was killed
            files = sorted(self._files())
            used = sum(each for _, each, _ in files)
            for _, each, path in files:
                if used + size <= self.limit:
                    break
                if path.name.endswith(_PART) and not _abandoned(path):
                    continue
                with suppress(FileNotFoundError):
                    path.unlink()
                used -= each
            part.truncate(size)
            part.seek(0)

    def _files(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self.folder.rglob("*"):
            with suppress(OSError):
                status = path.stat()
                if path.is_file() and path.name != _ROOM:
                    found.append((status.st_mtime, status.st_size, path))
        return found


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{_PART}")


def _abandoned(path: Path) -> bool:
    """Whether nobody fetches into a draft any more."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
