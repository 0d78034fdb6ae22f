"""``deepmac report RUN [RUN ...]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def command(arguments: Sequence[str]) -> int:
    """Write the page and say where; returns the exit code.

    Raises:
        UserError: a folder that is no run directory, or a page that cannot be written.
    """
    from deepmac.errors import UserError
    from deepmac.report.page import write_page
    from deepmac.report.run_folder import read_run

    parser = argparse.ArgumentParser(
        prog="deepmac report",
        description="One page of a run, or of several runs side by side: curves, classes, worst "
        "and best masks.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="HTML",
        help="default: report.html in the run directory; of several runs, in the current folder",
    )
    options = parser.parse_args(list(arguments))
    runs = [read_run(folder) for folder in options.runs]
    out = options.out or (options.runs[0] if len(runs) == 1 else Path()) / "report.html"
    try:
        print(write_page(runs, out))
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}): choose another --out") from error
    return 0
