"""Hydra overrides as people type them: paths need no quotes, a data folder says it all."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

_PATHS = frozenset(
    {
        "ckpt_path",
        "data.image_dir",
        "data.predict_json",
        "data.root",
        "data.train_json",
        "data.val_json",
        "hydra.run.dir",
        "hydra.sweep.dir",
        "model.init_from",
        "model.weights",
    }
)
"""Settings whose values are names of files or folders."""


def prepared(words: Sequence[str]) -> list[str]:
    """Overrides for Hydra; words that are no overrides stay as they are.

    Paths are quoted, so that Hydra's grammar does not read them, and a leading ``~`` is the home
    folder. A data folder without another word on the data means ``experiment=custom``: the default
    experiment draws pictures of its own.
    """
    swept = any(word in ("-m", "--multirun") for word in words)
    ready = [_quoted(word, swept) for word in words]
    given = {_name(word) for word in words if word != "data.source=stream"}
    own = given & {"data.root", "data.train_json"}
    if own and not given & {"data", "data.source", "experiment"}:
        ready.append("experiment=custom")
    return ready


def _name(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _quoted(word: str, swept: bool) -> str:
    name, equals, value = word.partition("=")
    plain = not value or value == "null" or value[0] in "'\""
    if not equals or name.lstrip("+") not in _PATHS or plain or (swept and "," in value):
        return word
    value = os.path.expanduser(value)
    # Hydra takes a backslash before a quote, or at the end, for an escape.
    value = re.sub(r"(\\*)'", lambda found: found[1] * 2 + r"\'", value)
    value = re.sub(r"(\\+)$", lambda found: found[1] * 2, value)
    return f"{name}='{value}'"
