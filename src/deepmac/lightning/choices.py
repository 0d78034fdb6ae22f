"""``deepmac settings``: the groups of the Hydra tree, their choices, and what each is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from deepmac.errors import ConfigError
from deepmac.lightning.compose import config_tree, take_config_dir

_DEFAULT = re.compile(r"^\s+- (?:override /)?(\w+): (\S+)\s*(?:#\s*(.*))?$")


def command(arguments: Sequence[str]) -> int:
    """``deepmac settings [GROUP | GROUP=CHOICE] [--config-dir DIR]``."""
    words, extra = take_config_dir(arguments)
    trees = [config_tree(), *extra]
    console = Console(highlight=False)
    if any(word in ("-h", "--help") for word in words) or len(words) > 1:
        print(
            "usage: deepmac settings [GROUP | GROUP=CHOICE] [--config-dir DIR]\n\n"
            "Without a group: all groups. With one: its choices. With a choice: its settings."
        )
        return 0 if len(words) <= 1 else 2
    if not words:
        console.print(_table(("group", "default", "what it is"), _groups(trees)))
        console.print(
            "`deepmac settings GROUP` lists the choices of a group, GROUP=CHOICE shows one; "
            "`deepmac fit --help` explains every single setting"
        )
        return 0
    group, _, choice = words[0].partition("=")
    files = _choices(group, trees)
    if not choice:
        rows = [(f"{group}={name}", _about(path)) for name, path in files.items()]
        console.print(_table(("choice", "what it is"), rows))
        return 0
    if choice not in files:
        raise ConfigError(f"{group} has no {choice!r}{_close(choice, files)}")
    print(files[choice].read_text(encoding="utf-8"), end="")
    return 0


def _groups(trees: Sequence[Path]) -> list[tuple[str, str, str]]:
    """Name, default and comment of every line of ``train.yaml``'s defaults."""
    found = []
    for line in (trees[0] / "train.yaml").read_text(encoding="utf-8").splitlines():
        if match := _DEFAULT.match(line):
            found.append((match[1], match[2], match[3] or ""))
    known = {name for name, _, _ in found}
    theirs = {path.name for tree in trees[1:] for path in tree.iterdir() if path.is_dir()}
    return [*found, *((name, "", "") for name in sorted(theirs - known))]


def _choices(group: str, trees: Sequence[Path]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for tree in trees:
        for path in sorted((tree / group).glob("*.yaml")):
            files.setdefault(path.stem, path)
    if not files:
        names = [name for name, _, _ in _groups(trees)]
        raise ConfigError(f"there is no group {group!r}{_close(group, names)}")
    return files


def _about(path: Path) -> str:
    """The comment that a file begins with, up to its first blank or command line."""
    said: list[str] = []
    text = path.read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#") or line.startswith("#  "):
            break
        said.append(line.removeprefix("#").strip())
    if said:
        return " ".join(said)
    values = {k: v for k, v in (yaml.safe_load(text) or {}).items() if k != "defaults"}
    return ", ".join(f"{name}: {value}" for name, value in values.items())


def _close(word: str, known: Sequence[str] | dict[str, Path]) -> str:
    close = get_close_matches(word, list(known), 1)
    return f": did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*names, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    table.columns[0].no_wrap = True
    return table
