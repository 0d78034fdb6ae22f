"""CRC-32C (Castagnoli), the checksum of TensorFlow's checkpoints, some 200 MB a second in NumPy.

A long buffer is cut into equal lanes that advance side by side, two bytes a step; their sums are
then joined as polynomials over GF(2).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
_SERIAL_BYTES = 2048  # up to here the lanes do not pay
_MAX_LANES = 1 << 14

Words = NDArray[np.uint32]


def crc32c(data: bytes | memoryview | NDArray[np.uint8], crc: int = 0) -> int:
    """The checksum of ``data``; of a longer whole when given the ``crc`` of what came before."""
    octets = np.frombuffer(data, dtype=np.uint8)
    state = crc ^ 0xFFFFFFFF
    lanes = 1
    while lanes < _MAX_LANES and 16 * lanes * lanes < octets.size:
        lanes *= 2
    steps = octets.size // (2 * lanes)
    if octets.size > _SERIAL_BYTES:
        whole = octets[: 2 * lanes * steps]
        state = _shift(state, whole.size) ^ _parallel(whole, lanes, steps)
        octets = octets[whole.size :]
    table = _byte_list()
    for octet in octets.tolist():
        state = table[(state ^ octet) & 0xFF] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


def masked_crc32c(data: bytes | memoryview | NDArray[np.uint8]) -> int:
    """The checksum as it is stored; see :func:`mask`."""
    return mask(crc32c(data))


def mask(crc: int) -> int:
    """Rotate and offset, so that a checksum stored beside its data is no part of its sum."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _parallel(octets: NDArray[np.uint8], lanes: int, steps: int) -> int:
    """The remainder of ``lanes * steps`` 16-bit words, starting from zero."""
    words = np.ascontiguousarray(octets.view("<u2").reshape(lanes, steps).T)
    table = _word_table()
    state = np.zeros(lanes, dtype=np.uint32)
    for word in words:
        state ^= word
        state = table[state & 0xFFFF] ^ (state >> 16)
    length = 2 * steps
    while state.size > 1:
        state = _apply(_zeros_operator(length), state[0::2]) ^ state[1::2]
        length *= 2
    return int(state[0])


def _shift(state: int, length: int) -> int:
    """The remainder after ``length`` more bytes of zero."""
    return int(_apply(_zeros_operator(length), np.array([state], dtype=np.uint32))[0])


def _apply(operator: Words, states: Words) -> Words:
    """A 32x32 matrix over GF(2), given as the images of the single bits, on every state."""
    out = np.zeros_like(states)
    for bit in range(32):
        out ^= operator[bit] * ((states >> np.uint32(bit)) & np.uint32(1))
    return out


@lru_cache(maxsize=256)
def _zeros_operator(length: int) -> Words:
    """The matrix that appends ``length`` bytes of zero."""
    if length == 0:
        return np.uint32(1) << np.arange(32, dtype=np.uint32)
    if length % 2:
        bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
        one = _byte_table()[bits & 0xFF] ^ (bits >> 8)
        return _apply(_zeros_operator(length - 1), one)
    half = _zeros_operator(length // 2)
    return _apply(half, half)


@lru_cache(maxsize=1)
def _byte_table() -> Words:
    table: Words = np.arange(256).astype(np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ (np.uint32(_POLYNOMIAL) * (table & np.uint32(1)))
    return table


@lru_cache(maxsize=1)
def _byte_list() -> list[int]:
    values: list[int] = _byte_table().tolist()
    return values


@lru_cache(maxsize=1)
def _word_table() -> Words:
    table: Words = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(2):
        table = _byte_table()[table & 0xFF] ^ (table >> 8)
    return table
