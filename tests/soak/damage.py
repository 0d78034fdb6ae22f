"""Damage to files: values of other types, numbers without bounds, cut and flipped bytes."""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, 1e19, -1e300, 1e308, 2**31, 2**63, 10**30, 10**400, -0.0),
    *("", "a", "\ud800", "x" * 300, "x" * 5000, "../../a", "/proc/self/mem", "\0", "1", "NaN"),
    *(float("nan"), float("inf"), [], {}, [[]], [None], {"id": [1]}, [1e9] * 4, [0, 0, 50, 1e9]),
    *([0, 0, 1e39, 1e39], [0.1] * 3, {"a": {}}, "\u202e", "é", 89478485, 1000000),
)
_WORDS = (
    *(b"nan", b"inf", b"1e999", b"-1", b"99999999999999999999", b"\xff\xfe", b"\0", b"<", b"&x;"),
    *(b"]]>", b"{", b"*a", b"&a [*a,*a]", b"%", b"\\", b"\n", b"\t", b"0x1F", b"yes", b"'", b"[["),
    *(b'!!bool "q"', b"{.inf: a}", b"!!python/object/apply:os.abort []", b"? ", b"- ", b": "),
    *(b"&a {<<: *a}", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"!!binary \xff", b"1" * 400, b"[" * 2000),
)


def damaged(raw: bytes, suffix: str, seed: str) -> bytes:
    """A file's bytes with one piece of damage, the same for the same seed."""
    draw = Random(seed)
    change = _STRUCTURES.get(suffix)
    if change is not None and draw.random() < 0.7:
        try:
            return change(raw, draw)
        except Exception:
            pass  # what an earlier damage broke has no structure
    return _bytes(raw, draw)


def _json(raw: bytes, draw: Random) -> bytes:
    content = _changed(json.loads(raw), draw)
    return json.dumps(content).encode("utf-8", "surrogatepass")


def _yaml(raw: bytes, draw: Random) -> bytes:
    content = _changed(yaml.safe_load(raw), draw)
    return yaml.safe_dump(content, sort_keys=False).encode("utf-8", "surrogatepass")


def _checkpoint(raw: bytes, draw: Random) -> bytes:
    content = _changed(torch.load(io.BytesIO(raw), weights_only=True), draw, deep=5)
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _safetensors(raw: bytes, draw: Random) -> bytes:
    size = struct.unpack("<Q", raw[:8])[0]
    header = _changed(json.loads(raw[8 : 8 + size]), draw)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    told = len(text) if draw.random() < 0.9 else draw.choice([0, 2**40, 2**63])
    return struct.pack("<Q", told) + text + raw[8 + size :]


def _png(raw: bytes, draw: Random) -> bytes:
    """Another size or depth in the header, with its sum."""
    header = bytearray(raw[12:29])
    if draw.random() < 0.7:
        sides = (0, 1, 2, 30000, 89478485, 2**31 - 1, 2**32 - 1)
        header[4:12] = struct.pack(">II", draw.choice(sides), draw.choice(sides))
    else:
        header[draw.randrange(12, 17)] = draw.randrange(256)
    return raw[:12] + bytes(header) + struct.pack(">I", zlib.crc32(header)) + raw[33:]


_STRUCTURES = {
    ".json": _json,
    ".yaml": _yaml,
    ".ckpt": _checkpoint,
    ".safetensors": _safetensors,
    ".png": _png,
}


def _changed(document: Any, draw: Random, *, deep: int = 4) -> Any:
    """Another value, or none, at one of its places."""
    place: list[Any] = []
    value = document
    while isinstance(value, dict | list) and value and len(place) < deep:
        key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
        place.append(key)
        inner = value[key]
        if not isinstance(inner, dict | list) or draw.random() < 0.2:
            if draw.random() < 0.2:
                del value[key]
            elif draw.random() < 0.2:
                value[key] = {"again": inner, "list": [inner]}
            else:
                value[key] = draw.choice(VALUES)
            return document
        value = inner
    return draw.choice(VALUES) if not place or draw.random() < 0.1 else document


def _bytes(raw: bytes, draw: Random) -> bytes:
    data = bytearray(raw)
    kind = draw.choice(("cut", "flip", "insert", "number", "repeat", "drop")) if data else "insert"
    at = draw.randrange(len(data) + 1)
    if draw.random() < 0.5:
        at = min(at, draw.randrange(400))  # headers are where it hurts
    if kind == "cut":
        del data[at:]
    elif kind == "flip":
        for _ in range(draw.randint(1, 8)):
            data[min(len(data) - 1, at + draw.randrange(20))] = draw.randrange(256)
    elif kind == "insert":
        data[at:at] = draw.choice(_WORDS)
    elif kind == "drop":
        del data[at : at + draw.randint(1, 40)]
    elif kind == "repeat":
        data[at:at] = data[at : at + 200] * draw.randint(1, 50)
    else:
        found = list(re.finditer(rb"-?\d+\.?\d*", bytes(data[:200_000])))
        if found:
            where = draw.choice(found)
            data[where.start() : where.end()] = draw.choice(_WORDS)
    return bytes(data)


def damage_file(path: Path, seeds: list[str]) -> None:
    """Damage a file in place, once for each seed."""
    raw = path.read_bytes()
    for seed in seeds:
        raw = damaged(raw, path.suffix, seed)
    path.write_bytes(raw)
