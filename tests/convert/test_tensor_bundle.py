"""TensorFlow checkpoints are read exactly, or refused in one sentence."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert.fuzz import SUFFIX, fuzz_checkpoints, same, small_arrays
from deepmac.convert.tensor_bundle import TensorBundle
from deepmac.errors import UserError
from deepmac.protobuf.crc32c import crc32c
from deepmac.protobuf.wire import WireError, snappy_decompress

Writer = Callable[..., Path]


def test_crc32c__is_castagnolis() -> None:
    assert crc32c(b"") == 0
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


@given(st.integers(0, 40_000), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_crc32c__lanes_give_what_bytes_one_by_one_give(size: int, seed: int) -> None:
    data = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()
    serial = 0
    for start in range(0, size, 1000):
        serial = crc32c(data[start : start + 1000], serial)
    assert crc32c(data) == serial


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("per_block", [1, 8, 1000])
def test_bundle__reads_what_was_written(
    tmp_path: Path, write_bundle: Writer, compress: bool, per_block: int
) -> None:
    arrays = small_arrays()
    prefix = write_bundle(tmp_path / "ckpt-1", arrays, compress=compress, per_block=per_block)
    assert same(TensorBundle(prefix).read(), arrays)


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_snappy__bytes_at_random_are_refused_or_bounded(data: bytes) -> None:
    with contextlib.suppress(WireError):
        assert len(snappy_decompress(data, 1 << 16)) <= 1 << 16


def test_snappy__a_copy_may_repeat_what_it_writes() -> None:
    # Length 10; the literal "ab"; a copy of 8 bytes from 2 back.
    assert snappy_decompress(bytes([10, 4]) + b"ab" + bytes([17, 2]), 100) == b"ab" * 5


def test_bundle__reads_only_what_is_wanted(tmp_path: Path, write_bundle: Writer) -> None:
    prefix = write_bundle(tmp_path / "ckpt", small_arrays())
    assert list(TensorBundle(prefix).read(lambda name: "half" in name)) == [f"model/half{SUFFIX}"]


def test_bundle__reads_what_tensorflow_wrote(shared: Path) -> None:
    folder = shared / "reference_fixtures" / "model"
    for name in ("rel_h10", "small_h10"):
        bundle = TensorBundle(folder / f"{name}_export" / "checkpoint" / "ckpt-0")
        arrays = bundle.read()  # the checksums of its strings included
        assert "_CHECKPOINTABLE_OBJECT_GRAPH" in bundle.entries.keys() - arrays.keys()
        with np.load(folder / f"{name}_weights.npz") as weights:
            for key in weights.files:
                assert np.array_equal(arrays[key.removeprefix("w::") + SUFFIX], weights[key])


def test_bundle__names_the_tensor_whose_bytes_changed(tmp_path: Path, write_bundle: Writer) -> None:
    prefix = write_bundle(tmp_path / "ckpt", small_arrays())
    data = tmp_path / "ckpt.data-00000-of-00001"
    raw = bytearray(data.read_bytes())
    raw[100] ^= 1
    data.write_bytes(raw)
    with pytest.raises(UserError, match=r"is damaged: the bytes of model/layer_00/kernel"):
        TensorBundle(prefix).read()


def test_bundle__a_data_file_cut_off_is_refused_before_reading(
    tmp_path: Path, write_bundle: Writer
) -> None:
    prefix = write_bundle(tmp_path / "ckpt", small_arrays())
    data = tmp_path / "ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(UserError, match="it is cut off"):
        TensorBundle(prefix)
    data.unlink()
    with pytest.raises(UserError, match="copy all files of the checkpoint"):
        TensorBundle(prefix)


@pytest.mark.parametrize("content", [b"", b"x" * 48, b"\0" * 1000])
def test_bundle__an_index_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ckpt.index").write_bytes(content)
    with pytest.raises(UserError, match=r"index .*ckpt\.index is damaged"):
        TensorBundle(tmp_path / "ckpt")


def test_bundle__mutated_files_are_refused_or_read_right(
    tmp_path: Path, write_bundle: Writer
) -> None:
    arrays = small_arrays()
    prefixes = [write_bundle(tmp_path / f"ckpt-{i}", arrays, compress=i == 1) for i in (0, 1)]
    fuzz_checkpoints(prefixes, arrays, 300).check()


def test_bundle__hostile_sizes_with_right_checksums_cost_nothing(
    tmp_path: Path, write_bundle: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes a file can write its checksums too: mutate what they protect."""
    arrays = small_arrays()
    prefix = write_bundle(tmp_path / "ckpt", arrays, per_block=1000)
    import deepmac.convert.sorted_table as module

    monkeypatch.setattr(module, "masked_crc32c", lambda data: 0)
    index = tmp_path / "ckpt.index"
    raw = bytearray(index.read_bytes())
    entries_end = raw.find(b"\0\0\0\0\x01\0\0\0")
    random = np.random.default_rng(11)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(400):
        copy = bytearray(raw)
        # Zero the stored checksums: the patched one always gives 0.
        at = int(random.integers(0, entries_end if entries_end > 0 else len(raw) - 60))
        copy[at] = int(random.integers(0, 256))
        index.write_bytes(_without_checksums(bytes(copy)))
        start = time.monotonic()
        try:
            TensorBundle(prefix).read()
        except UserError as error:
            assert "\n" not in str(error)
        assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20


def _without_checksums(raw: bytes) -> bytes:
    """Zero the checksum of the three blocks that the writer makes with one data block."""
    from deepmac.protobuf.wire import read_varint

    out = bytearray(raw)
    position = len(raw) - 48
    handles = []
    for _ in range(2):
        offset, position = read_varint(raw, position)
        size, position = read_varint(raw, position)
        handles.append(offset + size)
    first_end = handles[0] - 8 - 5  # the meta block holds nothing: 8 bytes, after a trailer of 5
    for end in (first_end, *handles):
        out[end + 1 : end + 5] = bytes(4)
    return bytes(out)
