"""The command line of ``deepmac label``, made from the settings' classes by jsonargparse."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Sequence

from jsonargparse import ArgumentError, ArgumentParser

from deepmac.errors import ConfigError
from deepmac.label.settings import GROUPS, LabelSettings, setting_names

_METAVARS = {
    "model": "M", "images": "DIR", "boxes": "B", "out": "OUT", "redo": "FILE",
    "box_margin": "SHARE", "calibration": "FILE", "calibrate": "COCO_JSON", "review": "HTML",
    "classes": "A,B",
}  # fmt: skip


def parse_arguments(arguments: Sequence[str]) -> LabelSettings:
    """The settings that a command line gives.

    Raises:
        ConfigError: an unknown option, or a value that its setting does not take.
        SystemExit: after ``--help``.
    """
    parser = label_parser()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options = parser.parse_args(list(arguments))
    except (ArgumentError, argparse.ArgumentError) as error:
        raise ConfigError(
            f"label: {_readable(str(error))}; `deepmac label --help` lists the options"
        ) from None
    return LabelSettings(**{name: options[name] for name in setting_names()})


def label_parser() -> ArgumentParser:
    """A parser with an option for each setting; words are joined by dashes."""
    parser = ArgumentParser(
        prog="deepmac label",
        description="Give every box of a data set its mask. Ids, boxes and unknown keys stay as "
        "they are, masks that people drew are never overwritten. A job that was interrupted goes "
        "on where it stood when the same command is given again; the output appears whole.",
        epilog="exit code: 0 all done, 3 done but faulty items were skipped, 1 stopped by an "
        "error, 130 by Ctrl-C, 143 by SIGTERM",
        exit_on_error=False,
        allow_abbrev=False,
    )
    for group in GROUPS:
        parser.add_class_arguments(group)
    for action in parser._actions:
        action.metavar = _METAVARS.get(action.dest, action.metavar)
        words = [word.replace("_", "-") for word in action.option_strings]
        action.option_strings = words
        parser._option_string_actions |= dict.fromkeys(words, action)
        if action.default is False:  # a switch may stand alone
            action.nargs, action.const, action.metavar = "?", "true", "false"
    return parser


def _readable(message: str) -> str:
    """jsonargparse's words for a value that does not fit, as a user reads them."""
    message = " ".join(message.split())
    message = re.sub(r"<class '(\w+)'>", r"\1", message).replace("typing.Literal", "one of ")
    message = re.sub(
        r'Parser key "(\w+)": Expected an? (.*)\. Got value: (.*)',
        lambda found: f"--{found[1].replace('_', '-')} is {found[3]}, but takes {found[2]}",
        message,
    )
    return message[:300]
