"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepmac.errors import UserError


def refuse_existing(out: Path) -> None:
    """Raise UserError unless ``out`` is free or an empty folder; call it before long work."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists: give another --out, or remove it")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill with files, which appears at ``out`` only once the block has ended well.

    Raises:
        UserError: it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}): give another --out"
        ) from error
    try:
        yield folder
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
        for path in folder.iterdir():
            path.chmod(0o666 & ~umask)
        folder.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): make room for it") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # no longer there when all went well
