"""The result of an evaluation for loggers (flat names) and for people (a table)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

#: Section -> its title in tables. Also the sections whose values are metrics.
SECTIONS = {
    "box": "Boxes",
    "mask": "Masks",
    "mask_gt_box": "Masks from ground-truth boxes",
    "filled_box": "Filled boxes",
}
_FLOOR = "filled_box"
_LABELS = {
    "AP_small": "AP small",
    "AP_medium": "AP medium",
    "AP_large": "AP large",
    "mIoU_class_mean": "mIoU, mean of classes",
    "boundary_IoU": "boundary IoU",
}
_ABSENT = "-"
_FOUND = ("box", "mask")
"""Sections of what a detector found."""
_NO_DETECTOR = "no detector"


def flatten_metrics(nested: Mapping[str, Any]) -> dict[str, float]:
    """``{"mask_gt_box/mIoU/unseen": 0.81, ...}``: what ``Evaluation.compute`` gave, for loggers.

    Values that do not exist (None) are left out, as are the table of classes and the counts.
    """
    return {
        f"{section}/{metric}/{group}": value
        for section in SECTIONS
        for metric, groups in nested.get(section, {}).items()
        for group, value in groups.items()
        if value is not None
    }


def format_table(
    nested: Mapping[str, Any], *, groups: Sequence[str] = ("all", "seen", "unseen")
) -> "Table":
    """A rich table in percent: a row for each metric, a column for each group of classes.

    The floor (the box itself as mask) stands in brackets beside the masks from ground-truth boxes.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(title=_title(nested), caption=_caption(nested), caption_justify="left")
    table.add_column("")
    for group in groups:
        table.add_column(group, justify="right")
    for section, rows in table_rows(nested, groups):
        table.add_section()
        table.add_row(Text(section, style="bold"))
        for label, values, floors in rows:
            cells = [
                Text.assemble(value, (f" {floor}", "dim") if floor else "")
                for value, floor in zip(values, floors, strict=True)
            ]
            table.add_row(Text(f"  {label}"), *cells)
    return table


def format_text(
    nested: Mapping[str, Any], *, groups: Sequence[str] = ("all", "seen", "unseen")
) -> str:
    """The same table as plain ASCII text, for logs and terminals without rich."""
    lines = [["", *groups]]
    for section, rows in table_rows(nested, groups):
        lines.append([section])
        for label, values, floors in rows:
            cells = (f"{v} {f}".strip() for v, f in zip(values, floors, strict=True))
            lines.append([f"  {label}", *cells])
    widths = [
        max(len(line[column]) for line in lines if column < len(line))
        for column in range(len(groups) + 1)
    ]
    text = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    ]
    return "\n".join([_title(nested), *text, _caption(nested)])


def _title(nested: Mapping[str, Any]) -> str:
    images, total = nested["images"], nested["images_in_data_set"]
    objects = nested["instances"]["box"]["all"]
    part = f"{images} of {total} images" if nested["restricted"] else f"{images} images"
    return f"{part}, {objects} objects"


def _caption(nested: Mapping[str, Any]) -> str:
    floor = "; in brackets the floor: the box itself as the mask"
    return "in percent" + (floor if _is_predicted(nested["mask_gt_box"]) else "")


def _is_predicted(section: Mapping[str, Mapping[str, float | None]]) -> bool:
    return any(value is not None for values in section.values() for value in values.values())


def table_rows(
    nested: Mapping[str, Any], groups: Sequence[str]
) -> Iterator[tuple[str, list[tuple[str, list[str], list[str]]]]]:
    """For each predicted section its title and rows (label, values, floors in brackets or "")."""
    for section, title in SECTIONS.items():
        metrics = nested[section]
        if section in _FOUND and not nested.get("detector", True):
            absent = [_ABSENT] * (len(groups) - 1)
            yield title, [("AP", [_NO_DETECTOR, *absent], [""] * len(groups))]
            continue
        if section == _FLOOR or not _is_predicted(metrics):
            continue
        rows = []
        for metric, values in metrics.items():
            floor = nested[_FLOOR].get(metric, {}) if section == "mask_gt_box" else {}
            floors = [f"({_percent(floor.get(group)):>4})" if floor else "" for group in groups]
            label = _LABELS.get(metric, metric)
            rows.append((label, [_percent(values.get(group)) for group in groups], floors))
        yield title, rows


def _percent(value: float | None) -> str:
    return _ABSENT if value is None else f"{100 * value:.1f}"
