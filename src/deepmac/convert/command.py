"""``deepmac convert SOURCE --out DIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def command(arguments: Sequence[str]) -> int:
    """Run the command; prints the report and returns the exit code.

    Raises:
        UserError: as :func:`deepmac.convert.convert`, except for missing tensors, which are
            reported here.
    """
    options = _parser().parse_args(list(arguments))

    from deepmac.convert.conversion import convert
    from deepmac.convert.report import ConversionError

    try:
        report = convert(options.source, options.out, options.config, options.label_map)
    except ConversionError as error:
        print(error.report)
        print(f"deepmac: {error}", file=sys.stderr)
        return 1
    print(report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deepmac convert",
        description="Convert published weights: TensorFlow Deep-MAC models, and TensorFlow or "
        "PyTorch CenterNet weights to start a training from. Needs no TensorFlow.",
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="folder or .tar.gz with checkpoint/ and pipeline.config, a checkpoint prefix, or a "
        ".pth of CenterNet or ExtremeNet with hourglass-104",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="pipeline.config, where SOURCE has none"
    )
    parser.add_argument(
        "--label-map",
        type=Path,
        metavar="FILE",
        help="label map .pbtxt with the classes' names (default: the 90 COCO ids)",
    )
    return parser
