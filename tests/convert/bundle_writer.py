"""A writer of TensorFlow checkpoints, small enough to trust, to test their reader with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from deepmac.protobuf.crc32c import masked_crc32c

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}
Writer = Callable[..., Path]


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def entry(array: np.ndarray, offset: int) -> bytes:
    shape = b"".join(field(2, field(1, side)) for side in array.shape)
    raw = array.tobytes()
    message = field(1, DTYPES[array.dtype.name]) + field(2, shape)
    message += (field(4, offset) if offset else b"") + field(5, len(raw))
    return message + varint(6 << 3 | 5) + masked_crc32c(raw).to_bytes(4, "little")


def block(items: list[tuple[bytes, bytes]], restart_every: int = 16) -> bytes:
    out, restarts, last = bytearray(), [], b""
    for index, (key, value) in enumerate(items):
        shared = 0
        if index % restart_every == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value))
        out += key[shared:] + value
        last = key
    for restart in restarts or [0]:
        out += restart.to_bytes(4, "little")
    return bytes(out) + len(restarts or [0]).to_bytes(4, "little")


def snappy(data: bytes) -> bytes:
    """Literals, and a copy wherever 16 bytes came before."""
    out, position, literal = bytearray(varint(len(data))), 0, bytearray()

    def flush() -> None:
        for start in range(0, len(literal), 60):
            part = literal[start : start + 60]
            out.append((len(part) - 1) << 2)
            out.extend(part)
        literal.clear()

    while position < len(data):
        piece = data[position : position + 16]
        found = data.rfind(piece, max(0, position - 60_000), position + 15)
        if len(piece) == 16 and 0 <= found < position:
            flush()
            out += bytes([(16 - 1) << 2 | 2]) + (position - found).to_bytes(2, "little")
            position += 16
        else:
            literal.append(data[position])
            position += 1
    flush()
    return bytes(out)


def table(items: list[tuple[bytes, bytes]], compress: bool, per_block: int) -> bytes:
    out = bytearray()

    def append(content: bytes) -> bytes:
        stored = (snappy(content) if compress else content) + bytes([compress])
        handle = varint(len(out)) + varint(len(stored) - 1)
        out.extend(stored + masked_crc32c(stored).to_bytes(4, "little"))
        return handle

    index = []
    for start in range(0, len(items), per_block):
        part = items[start : start + per_block]
        index.append((part[-1][0], append(block(part))))
    meta = append(block([]))
    footer = meta + append(block(index, restart_every=1))
    return bytes(out) + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def write_bundle(
    prefix: Path,
    arrays: Mapping[str, np.ndarray],
    *,
    compress: bool = False,
    per_block: int = 8,
) -> Path:
    """Write a checkpoint of ``arrays`` at ``prefix``."""
    data, items = bytearray(), [(b"", field(1, 1) + field(3, field(1, 1)))]
    for name in sorted(arrays, key=str.encode):
        array = np.ascontiguousarray(arrays[name])
        key = f"{name}/.ATTRIBUTES/VARIABLE_VALUE".encode()
        items.append((key, entry(array.reshape(arrays[name].shape), len(data))))
        data += array.tobytes()
    prefix.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{prefix}.index").write_bytes(table(items, compress, per_block))
    Path(f"{prefix}.data-00000-of-00001").write_bytes(data)
    return prefix
