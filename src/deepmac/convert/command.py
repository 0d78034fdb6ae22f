"""``deepmac convert SOURCE --out DIR``, ``deepmac convert pipeline.config --out FILE.yaml``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deepmac.errors import ConfigError

_CONFIGS = (".config", ".pbtxt", ".prototxt")


def command(arguments: Sequence[str]) -> int:
    """Run the command; prints the report and returns the exit code.

    Raises:
        UserError: as :func:`deepmac.convert.convert`, except for missing tensors, which are
            reported here.
    """
    options = _parser().parse_args(list(arguments))
    if options.source.suffix in _CONFIGS and not options.source.is_dir():
        return _experiment(options)

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


def _experiment(options: argparse.Namespace) -> int:
    """A ``pipeline.config`` as an experiment."""
    from deepmac.convert.experiment import summary
    from deepmac.convert.pipeline import convert_pipeline

    if options.config is not None or options.label_map is not None:
        raise ConfigError(
            f"{options.source} is a config by itself: leave --config, --label-map out"
        )
    for line in summary(convert_pipeline(options.source, options.out), options.out):
        print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deepmac convert",
        description="Convert published weights: TensorFlow Deep-MAC models, and TensorFlow or "
        "PyTorch CenterNet weights to start a training from. A pipeline.config alone becomes an "
        "experiment to train. Needs no TensorFlow.",
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="folder or .tar.gz with checkpoint/ and pipeline.config, a checkpoint prefix, or a "
        ".pth of CenterNet or ExtremeNet with hourglass-104; or a pipeline.config alone",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to create; of a "
        "pipeline.config the experiment, such as my_conf/experiment/NAME.yaml",
    )
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
