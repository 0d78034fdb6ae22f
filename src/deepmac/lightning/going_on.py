"""The command with which an interrupted training goes on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deepmac.lightning.compose import RUN_DIR_VARIABLE

_started: list[str] = []


def remember_command(words: Sequence[str]) -> None:
    """What the user typed."""
    _started[:] = words


def command_to_go_on(run_dir: Path, settings: Mapping[str, str] | None = None) -> str:
    """The user's own command, changed so that it continues the run in ``run_dir``.

    Args:
        run_dir: of the interrupted run.
        settings: others to change, by dotted name.
    """
    program, *words = _started or sys.argv
    name = Path(program).name
    start = ["python", program] if name.endswith(".py") and name != "__main__.py" else ["deepmac"]
    changes = {"ckpt_path": "last", **(settings or {})}
    if any(word in ("--config", "-c") or word.startswith("--config=") for word in words):
        flat = [f"--{name}={value}" for name, value in changes.items()]
        kept = _without(words, {f"--{name}" for name in changes})
        return (
            f"{RUN_DIR_VARIABLE}={shlex.quote(str(run_dir))} {shlex.join([*start, *kept, *flat])}"
        )
    if not {"-m", "--multirun"} & set(words):
        changes = {"hydra.run.dir": str(run_dir), **changes}
    kept = [word for word in words if word.lstrip("+").split("=")[0] not in changes]
    return shlex.join([*start, *kept, *(f"{name}={value}" for name, value in changes.items())])


def _without(words: Sequence[str], names: set[str]) -> list[str]:
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in names:
            skip = True
        elif word.split("=")[0] not in names:
            kept.append(word)
    return kept
