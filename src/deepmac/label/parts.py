"""Work that survives a kill: finished parts on disk, and what they belong to.

A job works in a folder beside its output. ``job.json`` says what is being done with which model
and boxes; each part, the masks of a few neighbouring images, is a file that appears whole. What is
in a part depends on nothing but the job and those images, so the order, the number of processes
and the interruptions leave no trace.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from deepmac.data.file_parts import part_of
from deepmac.errors import UserError
from deepmac.files import atomic_file, write_atomically
from deepmac.label.plan import ImageTask

_JOB = "job.json"
_LOCK = "lock"


class Parts:
    """The folder of a job.

    Args:
        folder: made by :meth:`open`.
        identity: of the job, plain values by name; all of it decides what the parts hold.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        self.identity = identity
        self._locks: list[IO[str]] = []

    def open(self, *, restart: bool = False, shard: tuple[int, int] = (0, 1)) -> None:
        """Make the folder, or go on in the one that an interrupted run of this job left.

        Args:
            restart: drop what another job left.
            shard: (i, n): n processes that know nothing of each other share the folder.

        Raises:
            UserError: another job's folder, one that another process works in, or one that cannot
                be written.
        """
        with writable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take_lock(shard)
            with self._alone():
                self._begin(restart)

    def take_over(self) -> bool:
        """Once a shard is done: have the folder alone, whoever of the others is the last.

        Returns:
            Whether it is ours, and the job still to be merged.
        """
        for _ in range(20):
            self.release()
            try:
                self._take_lock()
                return (self.folder / _JOB).is_file()
            except FileNotFoundError:  # the last one has merged the job and removed its folder
                return False
            except UserError:
                time.sleep(0.5)
        return False

    def _begin(self, restart: bool) -> None:
        path = self.folder / _JOB
        if not path.is_file():
            # No marker: parts of unknown origin, from a kill while cleaning up.
            self._empty()
        elif restart:
            path.unlink()
            self._empty()
        else:
            self._compare(_read_json(path))
            return
        write_atomically(path, json.dumps(self.identity, indent=1, sort_keys=True) + "\n")

    def check(self) -> None:
        """Raise UserError if another job's folder is in the way; changes nothing."""
        path = self.folder / _JOB
        if path.is_file():
            self._compare(_read_json(path))

    def is_done(self, number: int, tasks: Iterable[ImageTask]) -> bool:
        """Whether a part is on disk and its images are still the same files."""
        try:
            with self.path(number).open(encoding="utf-8") as file:
                header = json.loads(file.readline())
        except (OSError, ValueError):
            return False
        return bool(header.get("images") == image_stamp(tasks))

    @contextmanager
    def writing(self, number: int, tasks: Iterable[ImageTask]) -> Iterator[IO[str]]:
        """A file for a part's records, one JSON object a line; appears when the block ends."""
        with writable(self.folder), atomic_file(self.path(number)) as file:
            file.write(json.dumps({"part": number, "images": image_stamp(tasks)}) + "\n")
            yield file

    def path(self, number: int) -> Path:
        """Of a part's file."""
        return self.folder / f"part-{number:07d}.jsonl"

    def remove(self) -> None:
        """Remove the folder; ``job.json`` last, so that a kill in between leaves parts to redo."""
        self._empty()
        with suppress(FileNotFoundError):
            (self.folder / _JOB).unlink()
        self.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a kill during :meth:`remove` left of this job, now finished."""
        path = self.folder / _JOB
        if self.folder.is_dir() and (not path.exists() or _read_json(path) == self.identity):
            with suppress(UserError, OSError):  # another process is at it, which is as good
                self._take_lock()
                self.remove()

    def release(self) -> None:
        """Let another process work here."""
        while self._locks:
            self._locks.pop().close()

    def _empty(self) -> None:
        for path in self.folder.iterdir():
            if path.name != _JOB and not path.name.startswith(_LOCK):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _compare(self, stored: Any) -> None:
        if stored == self.identity:
            return
        stored = stored if isinstance(stored, dict) else {}
        names = [*self.identity, *(name for name in stored if name not in self.identity)]
        for name in names:
            then, now = stored.get(name), self.identity.get(name)
            if then != now:
                break
        change = f" (it was {then!r:.60}, now {now!r:.60})" if len(str(then)) < 40 else ""
        raise UserError(
            f"{self.folder} holds an unfinished job with another {name}{change}: start it as "
            "before to finish it, or give --restart to drop it and begin anew"
        )

    def _take_lock(self, shard: tuple[int, int] = (0, 1)) -> None:
        """Keep all others out, or with a shard those that do the same or all of it."""
        alone = shard[1] == 1
        self._hold(_LOCK, shared=not alone)
        if not alone:
            self._hold(f"{_LOCK}-{shard[0]}-of-{shard[1]}")

    def _hold(self, name: str, *, shared: bool = False) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: two jobs at once are the user's to avoid
            return
        file = (self.folder / name).open("a+")
        self._locks.append(file)
        try:
            # Record locks end with the process itself, whatever children it leaves behind.
            fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise UserError(
                f"another process works in {self.folder}: wait for it, or choose another --out"
            ) from None
        except OSError:  # a file system without locks
            pass

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One after the other, for what takes a moment."""
        try:
            import fcntl
        except ImportError:
            yield
            return
        with (self.folder / f"{_LOCK}-beginning").open("a+") as file:
            with suppress(OSError):
                fcntl.lockf(file, fcntl.LOCK_EX)
            yield


def image_stamp(tasks: Iterable[ImageTask]) -> str:
    """Digest of a part's image files (names, sizes, times of change) and boxes."""
    digest = hashlib.sha256()
    for task in tasks:
        try:
            part = part_of(task.path)
            stat = (task.path if part is None else part.file).stat()
            state = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(f"{task.position} {task.path.name} {task.size} {state}\n".encode())
        digest.update(task.rows.tobytes() + task.boxes.tobytes() + task.degrees.tobytes())
    return digest.hexdigest()


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns what the file system says into one sentence."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        where = error.filename or path
        raise UserError(
            f"cannot write {where} ({error.strerror}): make room or choose another --out; "
            "finished work is kept, start again to go on"
        ) from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
