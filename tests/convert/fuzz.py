"""Feed the readers damaged files: ``make fuzz``, or
``PYTHONPATH=tests python -m convert.fuzz [--count 10000] [--out FIGURES.json]``.

Every checkpoint or config is either refused with one clear sentence or read right, within five
seconds and a gigabyte (the process may not get more); anything else ends the run with an error.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from convert.bundle_writer import write_bundle
from convert.official_configs import OFFICIAL
from convert.pipeline_config import CONFIG
from deepmac.convert.experiment import written
from deepmac.convert.pipeline import experiment_of
from deepmac.convert.settings import read_settings
from deepmac.convert.tensor_bundle import TensorBundle
from deepmac.errors import UserError
from deepmac.protobuf.text_proto import TextProtoError, parse_text_proto

Arrays = dict[str, np.ndarray]
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
LONGEST, LARGEST = 5.0, 1 << 20  # seconds; KiB


class Outcome(NamedTuple):
    """What became of ``count`` damaged files; ``memory`` KiB more than before."""

    what: str
    count: int
    refused: int
    slowest: float
    memory: int

    def check(self) -> None:
        assert self.refused > self.count / 2, self
        assert self.slowest < LONGEST, self
        assert self.memory < LARGEST, self

    def __str__(self) -> str:
        return (
            f"{self.count} damaged {self.what}: {self.refused} refused, the rest read; "
            f"{self.slowest:.2f} s the slowest, {self.memory / 1024:.0f} MiB more memory"
        )


def fuzz_checkpoints(prefixes: list[Path], arrays: Arrays, count: int) -> Outcome:
    """Damage the index or the data of checkpoints that hold ``arrays``, in turn."""
    random = np.random.default_rng(7)

    def damage(i: int) -> Callable[[], None]:
        prefix = prefixes[i % len(prefixes)]
        part = ".index" if random.random() < 0.7 else ".data-00000-of-00001"
        victim = prefix.with_name(prefix.name + part)
        whole = victim.read_bytes()
        victim.write_bytes(mutate(whole, random))

        def read() -> None:
            try:
                # Bytes that nothing depends on may change; the result may not.
                assert same(TensorBundle(prefix).read(), arrays), f"mutation {i} changed the result"
            finally:
                victim.write_bytes(whole)

        return read

    return _run("checkpoints", count, damage)


def fuzz_configs(config: str, count: int) -> Outcome:
    """Damage the text of a pipeline config; what is read can be written as an experiment."""
    random = np.random.default_rng(3)
    words = [*"{}[]<>:,;'\"\\#", "-", "0x", "1e999", "model", "true", "\n", "9" * 30, "é", "\0"]

    def damage(i: int) -> Callable[[], None]:
        text = config
        for _ in range(int(random.integers(1, 5))):
            at = int(random.integers(0, len(text)))
            length = int(random.integers(0, 12))
            text = text[:at] + str(random.choice(words)) + text[at + length :]

        def read() -> None:
            message = parse_text_proto(text)
            made = written(experiment_of(message, Path("pipeline.config")), "")
            assert isinstance(yaml.safe_load(made), dict)
            read_settings(message)

        return read

    return _run("configs", count, damage)


def _run(what: str, count: int, damage: Callable[[int], Callable[[], None]]) -> Outcome:
    refused, slowest = 0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(count):
        read = damage(i)
        start = time.monotonic()
        try:
            read()
        except (UserError, TextProtoError) as error:
            refused += 1
            assert "\n" not in str(error)
        slowest = max(slowest, time.monotonic() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return Outcome(what, count, refused, slowest, memory)


def mutate(raw: bytes, random: np.random.Generator) -> bytes:
    """Flip, replace, drop, repeat or insert bytes, or cut the end off."""
    out = bytearray(raw)
    for _ in range(int(random.integers(1, 4))):
        at = int(random.integers(0, max(1, len(out))))
        kind = int(random.integers(0, 6))
        if kind == 0 and out:
            out[at] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:
            out[at : at + 1] = bytes([int(random.choice([0, 1, 0x7F, 0x80, 0xFF]))])
        elif kind == 2:
            del out[at : at + int(random.integers(1, 40))]
        elif kind == 3:
            out[at:at] = out[at : at + int(random.integers(1, 40))]
        elif kind == 4:
            out[at:at] = random.integers(0, 256, 8, dtype=np.uint8).tobytes()
        elif random.random() < 0.2:
            del out[at:]
    return bytes(out)


def small_arrays() -> Arrays:
    random = np.random.default_rng(0)
    arrays = {
        f"model/layer_{i:02d}/kernel": random.standard_normal((3, 3, i + 1, 4), dtype=np.float32)
        for i in range(12)
    }
    return arrays | {
        "step": np.array(7, dtype=np.int64),
        "model/half": np.arange(6, dtype=np.float16).reshape(2, 3),
        "model/empty": np.zeros((0, 4), dtype=np.float32),
    }


def same(ours: Arrays, theirs: Arrays) -> bool:
    return {name + SUFFIX for name in theirs} == ours.keys() and all(
        np.array_equal(ours[name + SUFFIX], value) and ours[name + SUFFIX].dtype == value.dtype
        for name, value in theirs.items()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="of either kind")
    parser.add_argument("--out", type=Path, help="the figures as JSON, for docs/fidelity.md")
    options = parser.parse_args()
    started = time.monotonic()
    arrays = small_arrays()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (LARGEST << 10)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tempfile.TemporaryDirectory() as folder:
        prefixes = [
            write_bundle(Path(folder) / f"ckpt-{compress:d}", arrays, compress=compress)
            for compress in (False, True)
        ]
        outcomes = [
            fuzz_checkpoints(prefixes, arrays, options.count),
            fuzz_configs(CONFIG, options.count),
            fuzz_configs(OFFICIAL["voc_to_nonvoc"], options.count // 4),
        ]
    for outcome in outcomes:
        print(outcome)
        outcome.check()
    print(f"{time.monotonic() - started:.0f} s in all")
    if options.out:
        content = [outcome._asdict() for outcome in outcomes]
        options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
