"""The command ``deepmac shard``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from deepmac.data.annotations.index import CocoIndex
from deepmac.data.settings import data_folder, read_annotations
from deepmac.data.stream.shard import Sharding, shard
from deepmac.errors import ConfigError, DataError, Interrupted

_SAID_EVERY = 5.0  # seconds


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ConfigError(f"shard: {message}; `deepmac shard --help` lists the options")


def read_options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options, and the settings of the data.

    Raises:
        ConfigError: an option that there is not, or a value that it does not take.
    """
    parser = _Parser(
        prog="deepmac shard",
        usage="deepmac shard data.root=DIR [data.key=value ...] --out PLACE [options]",
        description="Write a data set of any known format as chunks: the pictures with their "
        "annotations, some hundred in a file. Train from them with data.source=stream "
        "data.root=PLACE. Given again, the command goes on where it was stopped.",
        allow_abbrev=False,
    )
    plain = Sharding()
    add = parser.add_argument
    add("--out", required=True, help="folder, s3://bucket/name or gs://bucket/name")
    add("--chunk-mb", type=float, default=plain.chunk_mb, help="pictures in a chunk (%(default)g)")
    add("--longer-side", type=int, help="scale larger pictures down to this side, as JPEG")
    add("--quality", type=int, default=plain.quality, help="of that JPEG (%(default)s)")
    add("--no-shuffle", action="store_true", help="keep the order of the training images")
    add("--seed", type=int, default=plain.seed, help="of their shuffling (%(default)s)")
    add("--workers", type=int, default=min(8, os.cpu_count() or 1), help="processes (%(default)s)")
    add("--part", default="0/1", help="i/n: every n-th chunk from the i-th on, i from 0")
    add("--restart", action="store_true", help="drop an unfinished set that was cut otherwise")
    options, words = parser.parse_known_args(list(arguments))
    unknown = [word for word in words if word.startswith("-")]
    if unknown:
        parser.error(f"there is no option {unknown[0]}")
    for name, least in (("chunk_mb", 0.001), ("longer_side", 8), ("workers", 1)):
        value = getattr(options, name)
        if value is not None and not least <= value < 1e6:
            parser.error(f"--{name.replace('_', '-')} {value} is not at least {least}")
    if not 1 <= options.quality <= 100 or options.seed < 0:
        parser.error("--quality is from 1 to 100, --seed is not negative")
    options.part = _part(options.part)
    return options, words


def command(options: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Run it; returns the exit status.

    Raises:
        UserError: see :func:`deepmac.data.stream.shard.shard`.
    """
    data_folder(settings)  # draws the generated set where that is asked for
    sets: dict[str, CocoIndex] = {"train": read_annotations(settings, "train")}
    print(sets["train"].source, flush=True)
    try:
        val = read_annotations(settings, "val")
        sets["val"] = val.aligned_with(sets["train"].categories, "the training set")
    except DataError as error:
        if "it has no set for val" not in str(error):
            raise
        print("no set for validation: training alone is sharded", flush=True)
    for index in sets.values():
        for line in index.dropped_summary():
            print(line, flush=True)
    how = Sharding(
        chunk_mb=options.chunk_mb,
        longer_side=options.longer_side,
        quality=options.quality,
        shuffle=not options.no_shuffle,
        seed=options.seed,
    )
    with _stoppable():
        report = shard(
            sets,
            options.out,
            how,
            source=sets["train"].source,
            workers=options.workers,
            part=options.part,
            restart=options.restart,
            say=_Teller(),
        )
    images = ", ".join(f"{number:,} images for {name}" for name, number in report.images.items())
    if report.finished:
        print(f"{images} in {report.chunks} chunks, {report.bytes / 1e6:,.1f} MB -> {options.out}")
        print(f"  deepmac fit data.source=stream data.root={options.out}")
    else:
        print(
            f"{report.written} chunks written; the others of {report.chunks} are not there yet: "
            "the last --part to end writes the index"
        )
    return 0


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does, with the processes that it has; what is kept is said."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner, asked = os.getpid(), []

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(0)
        asked.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        how, code = ("SIGTERM", 143) if asked else ("Ctrl-C", 130)
        raise Interrupted(
            f"stopped by {how}: finished chunks are kept; start again to go on", code
        ) from None
    finally:
        signal.signal(signal.SIGTERM, before)


class _Teller:
    """Says now and then how far it is."""

    def __init__(self) -> None:
        self._last = self._started = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if now - self._last >= _SAID_EVERY:
            self._last = now
            print(f"{done} of {of} chunks", file=sys.stderr, flush=True)


def _part(text: str) -> tuple[int, int]:
    try:
        number, _, count = text.partition("/")
        part = int(number), int(count)
    except ValueError:
        part = -1, 0
    if not 0 <= part[0] < part[1]:
        raise ConfigError(f"--part {text:.40} is no i/n with i from 0 to n-1, such as 0/8")
    return part
