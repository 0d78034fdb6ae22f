"""JSON and text that every reader takes, whatever the input held."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import IO, Any


def dump(value: Any) -> str:
    """A value as JSON in one line.

    Numbers that JSON has not (the plan has told of them) become null; a lone surrogate stays the
    escape that it was.
    """
    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:
        return dump(_finite(value))
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text


def write_list(file: IO[str], entries: Iterable[Any]) -> None:
    """One entry a line, so that two outputs can be compared line by line."""
    file.write("[")
    separator = "\n"
    for entry in entries:
        file.write(separator + dump(entry))
        separator = ",\n"
    file.write("\n]")


def plain(text: Any) -> str:
    """A text that can be encoded."""
    return str(text).encode("utf-8", "replace").decode("utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
