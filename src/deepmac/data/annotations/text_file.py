"""Text and yaml of others: bounded, and every word a word."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import yaml

from deepmac.errors import DataError

_LARGEST_YAML = 1 << 20


def read_bytes(path: Path) -> bytes:
    """All of a regular file.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} is no regular file; remove it or make it one.")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read ({reason}); check the file.") from None


def read_text(path: Path) -> str:
    """As text; UTF-16 is known by its mark.

    Raises:
        DataError: it cannot be read as text.
    """
    data = read_bytes(path)
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as text ({error}); check the file.") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A yaml mapping with every scalar as the text it is: ``yes`` is no truth value.

    Raises:
        DataError: it is none, or too large to be one.
    """
    if path.is_file() and path.stat().st_size > _LARGEST_YAML:
        raise DataError(f"{path} is too large for a description of a data set; check the file.")
    try:
        content = yaml.load(read_text(path), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path} is no yaml ({reason}); correct or remove it.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no settings of a data set; correct or remove it.")
    return {str(key): value for key, value in content.items() if isinstance(key, str)}
