"""``python -m deepmac.study FOLDER``: table and figure of the runs that are done so far."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deepmac.errors import UserError
from deepmac.study.report import write_study
from deepmac.study.table import format_study


def main() -> int:
    """Exit code 1 where there is nothing to show, in one sentence."""
    parser = argparse.ArgumentParser(prog="python -m deepmac.study", description=__doc__)
    parser.add_argument("folder", type=Path, help="hydra.sweep.dir of the sweep")
    folder = parser.parse_args().folder
    try:
        print(format_study(write_study(folder)))
    except UserError as error:
        print(f"deepmac: {error}", file=sys.stderr)
        return 1
    print(f"table and figure: {folder}/study.md, {folder}/study.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
