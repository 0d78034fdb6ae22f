"""The index file of a checkpoint: a sorted string table in LevelDB's format."""

from __future__ import annotations

from collections.abc import Iterator

from deepmac.protobuf.crc32c import masked_crc32c
from deepmac.protobuf.wire import WireError, read_varint, snappy_decompress

_FOOTER, _TRAILER = 48, 5
_MAGIC = 0xDB4775248B80FB57
_NO_COMPRESSION, _SNAPPY = 0, 1

# Far above any checkpoint (some 5000 keys of 150 bytes): what a hostile file may cost.
_MAX_KEY = 4096
_MAX_ENTRIES = 200_000
_MAX_BLOCK = 1 << 24
_MAX_TOTAL = 1 << 27


def read_sorted_table(data: bytes) -> dict[bytes, bytes]:
    """All keys and values; every block's checksum is checked.

    Raises:
        WireError: damaged, cut off, not such a table, or larger than any checkpoint's.
    """
    if len(data) < _FOOTER:
        raise WireError("it is too short to be a checkpoint index")
    footer = data[-_FOOTER:]
    if int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise WireError("its last bytes are not those of a checkpoint index")
    _, _, position = _read_handle(footer, 0)  # the meta index, unused by checkpoints
    offset, size, _ = _read_handle(footer, position)
    table: dict[bytes, bytes] = {}
    total = entries = 0
    last: bytes | None = None
    for _, handle in _entries(_block(data, offset, size)):
        if total > _MAX_TOTAL:
            raise WireError("it lists more than any checkpoint holds")
        offset, size, _ = _read_handle(handle, 0)
        block = _block(data, offset, size)
        total += len(block)
        for key, value in _entries(block):
            if last is not None and key <= last:
                raise WireError("its keys are not in order")
            last = key
            entries += 1
            total += len(key)
            if entries > _MAX_ENTRIES or total > _MAX_TOTAL:
                raise WireError("it lists more than any checkpoint holds")
            table[key] = value
    return table


def _read_handle(data: bytes, position: int) -> tuple[int, int, int]:
    """Offset and size of a block, and the position behind them."""
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return offset, size, position


def _block(data: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    if end + _TRAILER > len(data) - _FOOTER or size > _MAX_BLOCK:
        raise WireError("a block lies outside the file")
    stored = int.from_bytes(data[end + 1 : end + _TRAILER], "little")
    if masked_crc32c(data[offset : end + 1]) != stored:
        raise WireError("a block's checksum does not agree with its bytes")
    content = data[offset:end]
    if data[end] == _SNAPPY:
        return snappy_decompress(content, _MAX_BLOCK)
    if data[end] != _NO_COMPRESSION:
        raise WireError(f"a block has the unknown compression {data[end]}")
    return content


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys, of which each may begin like the one before it, and values."""
    if len(block) < 4:
        raise WireError("a block is too short")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise WireError("a block is too short")
    position, key = 0, b""
    while position < end:
        shared, position = read_varint(block, position)
        own, position = read_varint(block, position)
        length, position = read_varint(block, position)
        if shared > len(key) or shared + own > _MAX_KEY or own + length > end - position:
            raise WireError("an entry does not fit its block")
        key = key[:shared] + block[position : position + own]
        position += own
        yield key, block[position : position + length]
        position += length
