"""An experiment made from a file of the original's: its yaml, and what is said of each field."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepmac.protobuf.text_proto import Message


@dataclass(frozen=True)
class Outcome:
    """What became of one field.

    Attributes:
        field: its path in the file, joined by dots.
        value: as the file gives it, shortened, on one line.
        line: of the file, from 1; 0: it is not there, this is its default.
        kind: "setting", "as here" (needs none), "no counterpart" or "unknown".
        text: the setting, or the reason.
    """

    field: str
    value: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        where = f"line {self.line}" if self.line else "left out, which means"
        return f"{self.field} ({where}: {self.value}): {self.text}"


@dataclass
class Experiment:
    """A ``pipeline.config`` in this project's settings.

    Attributes:
        source: the file.
        base: our experiment that says what the file does not.
        choices: group -> choice.
        settings: by path joined by dots.
        outcomes: of every field of the file, in its order, and of defaults that matter.
    """

    source: Path
    base: str
    choices: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[Outcome]:
        """Outcomes of one kind."""
        return [outcome for outcome in self.outcomes if outcome.kind == kind]


def run_command(out: Path) -> str:
    """How the experiment is run."""
    folder = out.absolute().parent
    command = "python train.py --config-dir {} experiment={} data.root=FOLDER"
    if folder.name == "experiment":
        return command.format(shlex.quote(str(out.parent.parent)), out.stem)
    own = folder / "experiment"
    move = f"mkdir {shlex.quote(str(own))} && mv {shlex.quote(str(out))} {shlex.quote(str(own))}"
    return f"{move} && {command.format(shlex.quote(str(folder)), out.stem)}"


def summary(made: Experiment, out: Path) -> Iterator[str]:
    """The table for people, a line a field, and how to go on."""
    yield f"{made.source} -> {out}, on top of experiment={made.base}"
    for kind, title in (
        ("setting", "settings"),
        ("as here", "as this project has it without a setting"),
        ("no counterpart", "without a counterpart"),
        ("unknown", "unknown, not used"),
    ):
        found = made.of_kind(kind)
        if found:
            yield f"{len(found)} {title}:"
        yield from (f"  {_plain(str(outcome))}" for outcome in found)
    yield f"to run it: {run_command(out)}"


def written(made: Experiment, command: str) -> str:
    """The experiment as a file of ``conf/experiment``, with its comments."""
    lines = [
        "# @package _global_",
        f"# Made from {_plain(made.source.name)} by `deepmac convert`. What that file does not say "
        f"is as in experiment={made.base}.",
        f"#   {command}",
    ]
    for kind, title in (
        ("no counterpart", "has no counterpart here"),
        ("unknown", "is unknown to this project"),
    ):
        found = made.of_kind(kind)
        lines += ["#", f"# What {title}:"] if found else []
        lines += [f"#   {_plain(str(outcome))}" for outcome in found]
    lines += ["defaults:", f"  - {made.base}"]
    lines += [f"  - override {group}: {choice}" for group, choice in made.choices.items()]
    tree: dict[str, Any] = {}
    for path, value in made.settings.items():
        *above, name = path.split(".")
        place = tree
        for word in above:
            place = place.setdefault(word, {})
        place[name] = value
    return "\n".join([*lines, *_mapping(tree, 0)]) + "\n"


def _mapping(tree: Mapping[str, Any], depth: int) -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield f"{'  ' * depth}{key}:"
            yield from _mapping(value, depth + 1)
        else:
            yield f"{'  ' * depth}{key}: {yaml_of(value)}"


def yaml_of(value: Any) -> str:
    """JSON is YAML, but for ``1e-07``, which YAML reads as a text."""
    if isinstance(value, float):
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    return json.dumps(value)


def shown(values: list[Any]) -> str:
    """Values of a file on one line of plain characters."""
    words = []
    for value in values[:30]:
        if isinstance(value, Message):
            inner = " ".join(f"{name}: {shown(v)}" for name, v in value.fields.items())
            words.append(f"{{{inner}}}")
        else:
            words.append(json.dumps(value))
    text = ", ".join(words)
    return text if len(text) <= 80 else text[:77] + "..."


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text).replace("${", "$ {")
