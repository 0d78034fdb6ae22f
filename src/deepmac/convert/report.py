"""What became of every tensor of a conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deepmac.errors import UserError

Shape = tuple[int, ...]
_SHOWN = 40


@dataclass(frozen=True)
class Report:
    """The outcome of a conversion.

    Attributes:
        source: what was converted.
        kind: a whole ``model``, or weights to start a training from.
        settings: what was read about the network, for people.
        matched: names of our tensors that were filled.
        missing: our tensors that the source has not, or not in this shape.
        unused: the source's tensors that the network has no place for.
        output: the folder written; None as long as nothing is.
    """

    source: str
    kind: Literal["model", "initialisation"]
    settings: Mapping[str, object]
    matched: Sequence[str]
    missing: Sequence[tuple[str, Shape]]
    unused: Sequence[tuple[str, Shape]]
    output: Path | None = None

    def __str__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        lines = [f"{self.source}: {facts}", f"{len(self.matched)} tensors matched"]
        lines += _listing("of the network missing in the source", self.missing)
        lines += _listing("of the source without use", self.unused)
        if self.output is not None:
            lines.append(f"written to {self.output}")
            if self.kind == "initialisation":
                lines.append(
                    "these are weights to start from, no whole model: "
                    f"model.init_from={self.output / 'model.safetensors'}"
                )
        return "\n".join(lines)


class ConversionError(UserError):
    """The source lacks something that the network needs; nothing was written."""

    def __init__(self, report: Report) -> None:
        self.report = report
        name, shape = report.missing[0]
        hint = "give the pipeline.config and checkpoint of the same model"
        if not any(ours.startswith("mask_head.") for ours in report.matched):
            hint += ", or leave the config out to convert a backbone to start from"
        super().__init__(
            f"{report.source} lacks {len(report.missing)} tensors of the network (such as {name} "
            f"of {_sides(shape)}), so nothing was written: {hint}"
        )


def _listing(what: str, tensors: Sequence[tuple[str, Shape]]) -> list[str]:
    lines = [f"{len(tensors)} {what}" + (":" if tensors else "")]
    lines += [f"  {name} {_sides(shape)}" for name, shape in tensors[:_SHOWN]]
    if len(tensors) > _SHOWN:
        lines.append(f"  and {len(tensors) - _SHOWN} more")
    return lines


def _sides(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a single number"
