"""Files and folders that appear whole or not at all, whatever stops the process.

A draft is written beside its target, on the same file system, synchronised with the disk and
renamed over it; the folder is synchronised too. Until then the target is what it was. Where the
file system has unnamed files (Linux), a draft is one until it is whole, and a kill leaves nothing;
elsewhere :func:`sweep_drafts` removes what a kill left.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar, cast

import yaml

from deepmac.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed, which is lock enough
    fcntl = None  # type: ignore[assignment]

_DRAFT = ".draft"
_LOCK, _CONTENT = "lock", "content"
_FICLONE = 0x40049409
"""Linux's request to make two files of one content until either is changed (Btrfs, XFS)."""
_STALE = 3600.0
"""Seconds after which a draft that cannot be locked is taken for left behind."""
T = TypeVar("T")
_own: set[str] = set()
"""Drafts of this process: its record locks do not keep itself out."""


@contextmanager
def atomic_binary(path: Path) -> Iterator[BinaryIO]:
    """A file of bytes to write that appears, whole and on disk, when the block ends well.

    Raises:
        OSError: what the file system says, with the target's name.
    """
    path = Path(path)
    try:
        draft: _Unnamed | _Named = _Unnamed(path)
    except (OSError, AttributeError):  # not Linux, or a file system without them
        with _named_target(path):
            draft = _Named(path)
    try:
        with _named_target(path):
            yield draft.file
            draft.file.flush()
            os.fsync(draft.file.fileno())
            draft.place()
            sync_folder(path.parent)
    finally:
        draft.close()


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[str]]:
    """A text file (UTF-8, newlines as written) that appears whole when the block ends well."""
    with atomic_binary(path) as raw:
        file = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        yield file
        file.flush()
        file.detach()


def write_atomically(path: Path, content: str | bytes) -> None:
    """:func:`atomic_file` for a text or bytes at hand."""
    with atomic_binary(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def parse_yaml(text: str) -> Any:
    """YAML's plain values.

    Raises:
        yaml.YAMLError: it is none, a tag that does not fit its value included.
        ValueError, RecursionError: numbers or nesting beyond bounds.
    """
    try:
        return yaml.safe_load(text)
    except (KeyError, IndexError, TypeError, AttributeError) as error:  # of the constructors
        raise yaml.YAMLError(f"a value does not fit its tag: {error!r:.80}") from error


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content to a new one, which shares its blocks where the disk can do that.

    Raises:
        OSError: what the file system says.
    """
    try:
        with source.open("rb") as read, target.open("xb") as written:
            fcntl.ioctl(written, _FICLONE, read.fileno())
    except (OSError, AttributeError):  # most file systems, and Windows
        shutil.copyfile(source, target)


class _Unnamed:
    """A draft without a name: it ends with the process."""

    def __init__(self, path: Path) -> None:
        handle = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
        self.path = path
        self.file = cast(BinaryIO, os.fdopen(handle, "w+b"))
        self._name: Path | None = None

    def place(self) -> None:
        # A link replaces nothing, so the whole file gets a name for a moment.
        _lock(self.file)
        open_file = f"/proc/self/fd/{self.file.fileno()}"
        folder = os.open(self.path.parent, os.O_RDONLY)  # given one, Python follows the link
        try:
            self._name, _ = _make_draft(
                self.path,
                lambda name: os.link(open_file, name, src_dir_fd=folder, follow_symlinks=True),
            )
        finally:
            os.close(folder)
        os.replace(self._name, self.path)
        _own.discard(str(self._name))
        self._name = None

    def close(self) -> None:
        if self._name is not None:
            with suppress(OSError):
                os.unlink(self._name)
            _own.discard(str(self._name))
        with suppress(OSError):
            self.file.close()


class _Named:
    """A draft whose name says what it is; locked while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.draft, file = _make_draft(path, lambda name: name.open("x+b"))
        self.file = cast(BinaryIO, file)
        _lock(self.file)

    def place(self) -> None:
        if fcntl is None:
            self.file.close()
        os.replace(self.draft, self.path)

    def close(self) -> None:
        with suppress(OSError):
            self.file.close()
        with suppress(OSError):
            os.unlink(self.draft)  # no longer there when all went well
        _own.discard(str(self.draft))


@contextmanager
def _named_target(path: Path) -> Iterator[None]:
    """An error about a draft, or about no file at all, is one about its target."""
    try:
        yield
    except OSError as error:
        named = str(error.filename or _DRAFT)
        if error.errno is not None and (_DRAFT in named or "/proc/self/fd" in named):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def _make_draft(path: Path, make: Callable[[Path], T]) -> tuple[Path, T]:
    """Make a file that is not there yet; returns its name and what ``make`` gave.

    Each target has one name for its drafts, at which what a kill left is removed; where another
    process writes the same target at the moment, one more.
    """
    token = f".{os.getpid():x}{time.monotonic_ns() & 0xFFFFFFFF:x}"
    for more in ("", token):
        name = path.with_name(f".{path.name[:150]}{more}{_DRAFT}")
        if os.path.lexists(name) and not _abandoned(name, is_folder=False):
            continue
        _own.add(str(name))
        try:
            return name, make(name)
        except OSError as error:
            _own.discard(str(name))
            if not isinstance(error, FileExistsError):
                raise
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def sweep_drafts(folder: Path) -> int:
    """Remove the drafts in a folder, files and folders, that killed processes left there.

    Returns:
        How many there were.
    """
    count = 0
    with suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.startswith(".") and entry.name.endswith(_DRAFT):
                path = Path(entry.path)
                count += _abandoned(path, entry.is_dir(follow_symlinks=False))
    return count


def _abandoned(path: Path, is_folder: bool) -> bool:
    """Remove a draft unless it is being written; whether it was removed."""
    if str(path) in _own:
        return False
    try:
        stale = time.time() - path.stat().st_mtime > _STALE
        if is_folder:
            if not (path / _LOCK).is_file():  # not yet locked, or all but removed
                return _remove_empty(path) or (stale and _remove(path))
            with (path / _LOCK).open("r+b") as lock:
                return _lock(lock, otherwise=stale) and _remove(path)
        with path.open("r+b") as file:
            free = _lock(file, otherwise=stale)
        return free and _remove(path)
    except OSError:
        return False


def _remove_empty(path: Path) -> bool:
    """Whoever made it just now makes another."""
    try:
        path.rmdir()
    except OSError:
        return False
    return True


def _remove(path: Path) -> bool:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return True


def _lock(file: Any, *, otherwise: bool = True) -> bool:
    """Take a lock that ends with this process, whatever children it leaves; whether it is ours."""
    if fcntl is None:
        return otherwise
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return otherwise
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power failure, where the system can."""
    with suppress(OSError, PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def refuse_existing(out: Path) -> None:
    """Raise UserError unless ``out`` is free or an empty folder; call it before long work.

    What a process left that was killed just after ``out`` was there is removed.
    """
    sweep_drafts(out.parent)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists: give another --out, or remove it")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill with files, which appears at ``out`` only once the block has ended well.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with folder_draft(out) as folder:
            yield folder
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}): make room for it, or give another --out"
        ) from error


@contextmanager
def folder_draft(out: Path, *, sync: bool = True) -> Iterator[Path]:
    """As :func:`new_folder`, with the file system's own words.

    Args:
        out: where it appears.
        sync: wait for the disk; a folder that can be made again need not.

    Raises:
        OSError: it cannot be written, or something other than an empty folder is there by then.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep_drafts(out.parent)
    draft, lock = _new_draft(out)
    try:
        with lock:
            content = draft / _CONTENT
            content.mkdir()
            yield content
            usual_permissions(content)
            for path in content.rglob("*"):
                usual_permissions(path)
                if sync and path.is_file():
                    _sync_file(path)
            content.replace(out)
            sync_folder(out.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        _own.discard(str(draft))


def _new_draft(out: Path) -> tuple[Path, BinaryIO]:
    while True:
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name[:150]}.", suffix=_DRAFT, dir=out.parent))
        _own.add(str(draft))
        try:
            lock = (draft / _LOCK).open("wb")
        except FileNotFoundError:  # another process took it for left behind
            _own.discard(str(draft))
            continue
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            _own.discard(str(draft))
            raise
        _lock(lock)
        return draft, lock


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def usual_permissions(path: Path) -> None:
    """Temporary files and folders are private to their owner; results are not."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
