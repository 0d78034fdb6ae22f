"""Run the TensorFlow original beside this project and compare: ``make reference SEED=7``.

``run.py --original PYTHON [--seed N] [--fixtures DIR] [--keep DIR] [--out TABLE.json]``. The
original answers in its own environment, in float32 and again in float64, with inputs and weights
drawn from the seed; this project answers the same. Exits 1 when a bound is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import heads
import pieces
import records
import torch
from table import HEADINGS, Answer, Dtype, Row, rows

import models

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parents[3] / "shared" / "reference_fixtures"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--original", type=Path, required=True, help="its environment's python")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fixtures", type=Path, default=default_fixtures())
    parser.add_argument("--keep", type=Path, help="folder for what the original answers")
    parser.add_argument("--out", type=Path, help="the table as JSON, for docs/fidelity.md")
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        for dtype in ("float32", "float64"):  # float64 starts from what float32 drew
            ask(options, folder / dtype, dtype)
        records.ask(options.original, folder / "tfrecord", options.seed)
        table = list(
            rows(answers(folder / "float32", "float32"), answers(folder / "float64", "float64"))
        )
    print(text(table))
    broken = [row for row in table if row.broken]
    seconds = time.monotonic() - started
    print(f"seed {options.seed}: {len(table)} comparisons, {len(broken)} broken, {seconds:.0f} s")
    if options.out:
        content = {"seed": options.seed, "rows": [row._asdict() for row in table]}
        options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 1 if broken else 0


def default_fixtures() -> Path | None:
    shared = os.environ.get("DEEPMAC_SHARED")
    folder = Path(shared) / "reference_fixtures" if shared else FIXTURES
    return folder if folder.is_dir() else None


def ask(options: argparse.Namespace, out: Path, dtype: str) -> None:
    command = [options.original, HERE / "tf_dump.py", out, str(options.seed), dtype]
    command += [options.fixtures] if options.fixtures else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [str(part) for part in command], env=environment, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"the original failed:\n{done.stderr[-3000:]}")


def answers(folder: Path, dtype: Dtype) -> Iterator[Answer]:
    for module in (pieces, heads, models, records):
        yield from module.answers(folder, dtype)


def text(table: list[Row]) -> str:
    lines = [list(HEADINGS), *(row.cells() for row in table)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
