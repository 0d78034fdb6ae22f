"""The finished runs of a sweep, read from their run directories."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from deepmac.errors import ConfigError, one_sentence
from deepmac.files import parse_yaml
from deepmac.study.cost import HeadCost, head_cost

_FAMILIES = ("fully_connected", "resnet", "hourglass")
_SYSTEMS = ("deepmarc", "deepmac")
_SHARED_DATA = (
    "source",
    "root",
    "train_json",
    "val_json",
    "masked_classes",
    "image_size",
    "batch_size",
    "shapes_train",
    "shapes_val",
    "shapes_size",
    "difficulty",
)
"""Settings of the data that all runs of a table must agree on."""


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        system: ``deepmac`` or ``deepmarc``.
        train_boxes: boxes that masks were learned on: ``gt`` or ``proposals``.
        mask_head: name of the head.
        seed: of everything.
        seen: mean IoU of masks in ground-truth boxes, over classes that had masks in training.
        unseen: the same over the others.
        floor_seen: ``seen`` if every mask were its whole box.
        floor_unseen: ``unseen`` likewise.
    """

    system: str
    train_boxes: str
    mask_head: str
    seed: int
    seen: float
    unseen: float
    floor_seen: float
    floor_unseen: float

    @property
    def group(self) -> tuple[str, str]:
        """System and training boxes: what a panel of the figure shows."""
        return self.system, self.train_boxes


@dataclass(frozen=True)
class Row:
    """The runs of one head that differ in nothing but their seeds.

    Attributes:
        runs: in the order of their seeds.
        cost: of the head.
    """

    runs: tuple[Run, ...]
    cost: HeadCost

    @property
    def mask_head(self) -> str:
        """Name of the head."""
        return self.runs[0].mask_head

    @property
    def group(self) -> tuple[str, str]:
        """See :class:`Run`."""
        return self.runs[0].group

    def values(self, name: str) -> list[float]:
        """``seen`` or another number of each run."""
        return [getattr(run, name) for run in self.runs]

    def mean(self, name: str) -> float:
        """Over the seeds."""
        return mean(self.values(name))

    def spread(self, name: str) -> float | None:
        """Standard deviation over the seeds; None of a single one."""
        return stdev(self.values(name)) if len(self.runs) > 1 else None


@dataclass(frozen=True)
class Study:
    """All that a folder of runs holds.

    Attributes:
        rows: in the order of the table.
        unfinished: names of run directories without a final evaluation.
        settings: what all runs share.
    """

    rows: tuple[Row, ...]
    unfinished: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def groups(self) -> dict[tuple[str, str], list[Row]]:
        """The rows of each system and kind of training boxes."""
        found: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.group, []).append(row)
        return found


def read_study(folder: str | Path) -> Study:
    """Read every run directory below ``folder``.

    Raises:
        ConfigError: there is no finished run, or runs differ in data or budget.
    """
    folder = Path(folder)
    runs: dict[tuple[tuple[str, str], str], list[Run]] = {}
    costs: dict[tuple[tuple[str, str], str], HeadCost] = {}
    unfinished: list[str] = []
    settings: dict[str, Any] = {}
    first = ""
    for path in sorted(folder.glob("*/config.yaml")):
        with _told_of(path.parent):
            config = parse_yaml(path.read_text(encoding="utf-8"))
            metrics = _final_metrics(path.parent, config)
            if metrics is None:
                unfinished.append(path.parent.name)
                continue
            own = _shared(config)
            first = first or path.parent.name
            _check_same(settings or own, own, first, path.parent.name)
            settings = own
            run = _run(path.parent, config, metrics)
            key = (run.group, run.mask_head)
            runs.setdefault(key, []).append(run)
            if key not in costs:
                costs[key] = head_cost(run.system, config["model"])
    if not runs:
        raise ConfigError(f"{folder} holds no finished run (a folder with a metrics.json)")
    keys = sorted(runs, key=lambda key: (_place(key[0]), head_order(key[1])))
    rows = (Row(tuple(sorted(runs[key], key=lambda run: run.seed)), costs[key]) for key in keys)
    return Study(tuple(rows), tuple(unfinished), settings)


@contextmanager
def _told_of(run_dir: Path) -> Iterator[None]:
    """Whatever a damaged file leads to is said of it."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError,
            RuntimeError, yaml.YAMLError) as error:  # fmt: skip
        raise ConfigError(
            f"config.yaml or metrics.json of {run_dir} is damaged "
            f"({type(error).__name__}: {one_sentence(error, longest=80)}): move the run away"
        ) from error


def head_order(name: str) -> tuple[int, int, str]:
    """Sorts heads by family, then depth."""
    digits = re.search(r"\d+", name)
    family = next((i for i, f in enumerate(_FAMILIES) if name.startswith(f)), len(_FAMILIES))
    return family, int(digits.group()) if digits else 0, name


def _place(group: tuple[str, str]) -> tuple[int, str]:
    return _SYSTEMS.index(group[0]), group[1]


def _final_metrics(run_dir: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    path = run_dir / "metrics.json"
    if not path.is_file():
        return None
    metrics: dict[str, Any] = json.loads(path.read_text())
    steps = config["trainer"]["max_steps"]
    return metrics if steps in (-1, metrics["step"]) else None


def _shared(config: Mapping[str, Any]) -> dict[str, Any]:
    data = {f"data.{name}": config["data"][name] for name in _SHARED_DATA}
    return {**data, "trainer.max_steps": config["trainer"]["max_steps"]}


def _check_same(settings: Mapping[str, Any], own: Mapping[str, Any], *names: str) -> None:
    for name, value in own.items():
        if value != settings[name]:
            raise ConfigError(
                f"one table is about one set of data and one budget, but {name} is "
                f"{settings[name]} in {names[0]} and {value} in {names[1]}: move one of them away"
            )


def _run(run_dir: Path, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> Run:
    values = {}
    for prefix, section in (("", "mask_gt_box"), ("floor_", "filled_box")):
        for group in ("seen", "unseen"):
            value = metrics[section]["mIoU"][group]
            if value is None:
                raise ConfigError(
                    f"{run_dir.name} has no {group} classes to measure: the study needs a split "
                    "with masks for some classes only"
                )
            values[prefix + group] = float(value)
    return Run(
        system=config.get("system", "deepmac"),
        train_boxes=config["model"].get("train_boxes", "gt"),
        mask_head=config["model"]["mask_head"],
        seed=int(config["seed_everything"]),
        **values,
    )
