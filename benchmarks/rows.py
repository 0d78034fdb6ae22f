"""The rows of ``make bench`` by name, each measured in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context, set_start_method
from pathlib import Path

from benchmarks import big_network, crop, data_pipeline, evaluation, label, opening, streaming
from benchmarks.table import Row
from deepmac.data.shapes.data_set import ensure_shapes

ROWS = ("network", "step", "label", "crop", "loading", "stream", "evaluation", "opening")


def in_a_process_of_its_own(name: str, quick: bool, root: Path | None) -> list[Row]:
    """What a row leaves behind (gigabytes of freed memory, threads) would slow the next ones."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_rows, name, quick, root).result()


def _rows(name: str, quick: bool, root: Path | None) -> list[Row]:
    set_start_method(None, force=True)  # loaders start their workers as they do elsewhere
    return _maker(name, quick, root)()


def _maker(name: str, quick: bool, root: Path | None) -> Callable[[], list[Row]]:
    plain = {
        "network": big_network.inference,
        "step": big_network.training,
        "crop": crop.rows,
        "evaluation": evaluation.rows,
        "opening": opening.rows,
    }
    if name in plain:
        return partial(plain[name], quick)
    root = root or shapes(quick)
    return partial(
        {"label": label.rows, "loading": data_pipeline.rows, "stream": streaming.rows}[name],
        quick,
        root,
    )


def shapes(quick: bool) -> Path:
    """The generated set, for who gave no folder."""
    count, held, size = (12, 2, 64) if quick else (160, 8, 512)
    return ensure_shapes(num_train=count, num_val=held, size=size)
