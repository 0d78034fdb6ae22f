"""Files below a folder or a URL, by fsspec: read, written whole, asked again when a store fails."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from deepmac.errors import DataError, UserError, one_sentence
from deepmac.files import write_atomically

PATIENCE = 60.0
"""Seconds for which a failing store is asked again (``DEEPMAC_PATIENCE``)."""

_EXTRAS = {
    "s3": ("s3fs", "deepmac[stream]"),
    "s3a": ("s3fs", "deepmac[stream]"),
    "gs": ("gcsfs", "deepmac[gcs]"),
    "gcs": ("gcsfs", "deepmac[gcs]"),
}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
Value = TypeVar("Value")


class StoreError(DataError):
    """An object store that did not answer, or refused.

    As it may leave a loader's worker process, see ``SampleError``, a text that is already wrapped
    in the worker's traceback is cut to its sentence.
    """

    def __init__(self, message: str) -> None:
        name = f"{type(self).__module__}.{type(self).__qualname__}: "
        super().__init__(message.rpartition(name)[2].strip())


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether a place is a URL and no path of this machine."""
    return "://" in str(place)


class Store:
    """Files by their names below a place.

    Credentials and endpoints are those of the usual environment variables (``AWS_PROFILE``,
    ``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``, ...).

    Args:
        place: a folder, or a URL that fsspec knows.

    Raises:
        UserError: no such protocol, or a package for it is missing.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self.place = (
            str(place).rstrip("/") if is_url(place) else str(Path(os.path.expanduser(place)))
        )
        if self.place.startswith("file://"):
            self.place = self.place.removeprefix("file://")
        self.folder: Path | None = None if is_url(self.place) else Path(self.place)
        self._opened: tuple[int, Any, str] | None = None
        if self.folder is None:
            self._check_protocol()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def where(self, name: str = "") -> str:
        """A file's address, for people."""
        return f"{self.place}/{name}" if name else self.place

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """A file, or the bytes from ``start`` to ``end``.

        Raises:
            FileNotFoundError: there is none.
            StoreError: the store does not answer, or refuses.
        """
        if self.folder is not None:
            with (self.folder / name).open("rb") as file:
                file.seek(start or 0)
                return file.read(-1 if end is None else end - (start or 0))

        def ask() -> bytes:
            system, root = self._system()
            content: bytes = system.cat_file(f"{root}/{name}", start=start, end=end)
            return content

        return self._patiently(ask, f"read {self.where(name)}")

    def write(self, name: str, content: bytes) -> None:
        """A file that appears whole, or not at all.

        Raises:
            OSError: of this machine's file system.
            StoreError: as for :meth:`read`.
        """
        if self.folder is not None:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
            return

        def put() -> None:
            system, root = self._system()
            system.pipe_file(f"{root}/{name}", content)

        self._patiently(put, f"write {self.where(name)}")

    def names(self, folder: str = "") -> dict[str, int]:
        """Files directly in a folder, with their sizes; empty where there is no folder."""
        if self.folder is not None:
            place = self.folder / folder
            if not place.is_dir():
                return {}
            return {e.name: e.stat().st_size for e in os.scandir(place) if e.is_file()}

        def look() -> dict[str, int]:
            system, root = self._system()
            place = f"{root}/{folder}".rstrip("/")
            try:
                found = system.ls(place, detail=True, refresh=True)
            except FileNotFoundError:
                return {}
            kept = (entry for entry in found if entry["type"] == "file")
            return {entry["name"].rpartition("/")[2]: int(entry["size"]) for entry in kept}

        return self._patiently(look, f"list {self.where(folder)}")

    def remove(self, name: str) -> None:
        """Remove a file, where there is one."""
        if self.folder is not None:
            (self.folder / name).unlink(missing_ok=True)
            return

        def drop() -> None:
            system, root = self._system()
            with suppress(FileNotFoundError):
                system.rm_file(f"{root}/{name}")

        self._patiently(drop, f"remove {self.where(name)}")

    def _system(self) -> tuple[Any, str]:
        """fsspec's file system, one for each process: connections do not survive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            import fsspec

            options: dict[str, Any] = {"use_listings_cache": False}
            if self.place.startswith(("s3://", "s3a://")):
                waits = {"connect_timeout": 10, "read_timeout": 60}
                options["config_kwargs"] = {**waits, "retries": {"max_attempts": 1}}
            try:
                system, root = fsspec.core.url_to_fs(self.place, **options)
            except TypeError:  # a file system without these options
                system, root = fsspec.core.url_to_fs(self.place)
            if hasattr(system, "retries"):
                system.retries = 1  # s3fs asks again without a word
            self._opened = os.getpid(), system, str(root).rstrip("/")
        return self._opened[1], self._opened[2]

    def _check_protocol(self) -> None:
        protocol = self.place.split("://")[0]
        if protocol in _EXTRAS:
            package, extra = _EXTRAS[protocol]
            if find_spec(package) is None:
                raise UserError(f"{self.place} takes the package {package}: pip install '{extra}'")
            return
        import fsspec

        try:
            fsspec.get_filesystem_class(protocol)
        except ValueError:
            known = "s3://, gs://, or a folder"
            raise UserError(f"{self.place} is no place that can be read: give {known}") from None
        except ImportError as error:
            raise UserError(f"{self.place} takes another package: {one_sentence(error)}") from None

    def _patiently(self, ask: Callable[[], Value], what: str) -> Value:
        """Ask until there is an answer, telling of each failure, for as long as one waits."""
        failing, pause = 0.0, _FIRST_PAUSE
        patience = float(os.environ.get("DEEPMAC_PATIENCE", PATIENCE))
        while True:
            try:
                return ask()
            except FileNotFoundError as error:
                if "bucket does not exist" in str(error).lower():
                    raise StoreError(
                        f"cannot {what}: there is no such bucket; check its name"
                    ) from None
                raise
            except Exception as error:
                said = _refusal(error)
                if said:
                    raise StoreError(f"cannot {what}: {said}") from None
                failing = failing or time.monotonic()
                if time.monotonic() - failing + pause > patience:
                    raise StoreError(
                        f"cannot {what}: the store has not answered for {patience:g} s "
                        f"({one_sentence(error, longest=120)}); start again once it does"
                    ) from None
                print(
                    f"deepmac: could not {what} ({one_sentence(error, longest=120)}); again in "
                    f"{pause:g} s",
                    file=sys.stderr,
                    flush=True,
                )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _refusal(error: Exception) -> str:
    """What a store says that will not change its mind; "" where asking again may help."""
    name, text = type(error).__name__, str(error)
    if name in ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"):
        return (
            "no credentials were found; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY (gs://: GOOGLE_APPLICATION_CREDENTIALS)"
        )
    if isinstance(error, PermissionError) or "InvalidAccessKeyId" in text:
        return f"the store refuses ({one_sentence(error, longest=100)}); check the credentials"
    if "NoSuchBucket" in text or "bucket does not exist" in text.lower():
        return "there is no such bucket; check its name"
    if "Invalid bucket name" in text or name == "ParamValidationError":
        return f"that is no name of a bucket ({one_sentence(error, longest=100)})"
    return ""
