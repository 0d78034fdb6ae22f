"""``deepmac study FOLDER``: table and figure of the runs that are done so far."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deepmac.guard import guarded
from deepmac.study.report import write_study
from deepmac.study.table import format_study


def command(arguments: Sequence[str]) -> int:
    """Print and write them.

    Raises:
        UserError: there is nothing to show.
    """
    parser = argparse.ArgumentParser(prog="deepmac study", description=__doc__)
    parser.add_argument("folder", type=Path, help="hydra.sweep.dir of the sweep")
    folder = parser.parse_args(arguments).folder
    print(format_study(write_study(folder)))
    print(f"table and figure: {folder}/study.md, {folder}/study.png")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: command(sys.argv[1:])))
