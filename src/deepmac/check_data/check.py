"""``deepmac check-data``: read a data set as training would, and show what is in it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deepmac.check_data.chunks import checked_chunks
from deepmac.data.annotations.coco import UnusableSet
from deepmac.data.annotations.index import CocoIndex
from deepmac.data.annotations.problems import Problem, count_kinds
from deepmac.data.annotations.records import ImageRecord, decode_mask
from deepmac.data.images import read_picture
from deepmac.data.settings import read_annotations
from deepmac.data.splits import Split, make_split
from deepmac.data.statistics import Statistics, count
from deepmac.drawing import class_color, draw_instances, image_grid, save_png
from deepmac.errors import ConfigError, DataError
from deepmac.files import write_atomically

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PRINTED_PROBLEMS = 50
_PICTURES = {"train": 8, "val": 4}
_CROWD_COLOR = (150, 150, 150)


@dataclass(frozen=True, slots=True)
class Report:
    """What ``check_data`` found.

    Attributes:
        sets: "train" and "val", those that could be read, without their faulty parts.
        statistics: Counts of the same sets.
        split: Classes with and without masks in training; None if no set could be read.
        problems: Everything that would stop a run with ``on_error="stop"``.
        notes: What reading mends, and images that are in both sets.
        problems_file: ``problems.tsv`` with all problems and notes, if there are any.
        picture: ``check_data.png``, if a set could be read.
    """

    sets: Mapping[str, CocoIndex]
    statistics: Mapping[str, Statistics]
    split: Split | None
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    problems_file: Path | None
    picture: Path | None


def check_data(settings: Mapping[str, Any], out_dir: str | Path) -> Report:
    """Read the training and validation sets and list everything wrong with them.

    Writes ``check_data.png`` (a fixed choice of images with few to many objects) and, if anything
    was found, ``problems.tsv`` into ``out_dir``.

    Args:
        settings: the keys of ``conf/data``, all optional: ``root``, ``train_json``, ``val_json``,
            ``image_dir``, ``masked_classes`` (default "annotated"), ``check_images``, and
            ``source`` with ``shapes_*`` for the generated set.
        out_dir: made if it does not exist.

    Raises:
        ConfigError: ``masked_classes`` does not fit the data set.
    """
    out_dir = Path(out_dir)
    root = _root(settings)
    found: list[Problem] = []
    sets: dict[str, CocoIndex] = {}
    for name in ("train", "val"):
        try:
            sets[name] = _read(name, root, settings)
            found.extend(sets[name].problems)
        except DataError as error:
            place = settings.get(f"{name}_json") or root or "."
            if (
                settings.get("source") == "stream"
                and name == "val"
                and "no split val" in str(error)
            ):
                continue
            unusable = Problem("unusable set", str(error), Path(place))
            if unusable not in found:  # both sets of one file are
                found.append(unusable)
            if isinstance(error, UnusableSet):
                found.extend(error.problems)
                if error.index is not None:
                    sets[name] = error.index
    if len(sets) == 2:
        found.extend(_compare(sets["train"], sets["val"]))
    split = None
    picture = None
    if sets:
        split, fault = _split(settings.get("masked_classes"), sets.get("train") or sets["val"])
        found.extend(fault)
        picture, undrawn = _draw(sets, split, out_dir / "check_data.png")
        found.extend(undrawn)
    return Report(
        sets=sets,
        statistics={name: count(index) for name, index in sets.items()},
        split=split,
        problems=tuple(problem for problem in found if not problem.is_note),
        notes=tuple(problem for problem in found if problem.is_note),
        problems_file=_write(found, out_dir / "problems.tsv"),
        picture=picture,
    )


def print_report(report: Report, console: "Console | None" = None) -> None:
    """Show a report as tables, with the first ``PRINTED_PROBLEMS`` problems and notes."""
    from rich.console import Console

    console = console or Console()
    for source in dict.fromkeys(index.source for index in report.sets.values()):
        console.print(f"Read: {source}", markup=False, highlight=False, soft_wrap=True)
    if report.statistics:
        console.print(_sets_table(report))
        console.print(_classes_table(report))
    listed = [*report.problems, *report.notes]
    for problem in listed[:PRINTED_PROBLEMS]:
        word, style = ("note", "yellow") if problem.is_note else ("problem", "red")
        console.print(f"{word}: {problem.message}", style=style, markup=False, highlight=False)
    if len(listed) > PRINTED_PROBLEMS:
        more = len(listed) - PRINTED_PROBLEMS
        console.print(f"... and {more} more, all in {report.problems_file}", markup=False)
    for title, problems in (("Problems", report.problems), ("Notes", report.notes)):
        if problems:
            kinds = ", ".join(f"{kind}: {number}" for kind, number in count_kinds(problems).items())
            console.print(f"{title}: {len(problems)} ({kinds})", markup=False)
    for line in _advice(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not report.problems:
        words = "No problems found" + (", but see the notes." if report.notes else ".")
        console.print(words, style="yellow" if report.notes else "green")
    if report.picture:
        console.print(
            f"Picture: {report.picture} (dashed boxes: classes without masks in training)",
            markup=False,
            soft_wrap=True,
        )


_MENDS = {
    "mask is only its box": "data.rectangle_masks=mask takes them as masks",
    "box and mask disagree": "data.mismatched_masks=drop leaves these masks out",
    "class of crowd regions only": "data.crowds=objects reads them as objects",
    "turned boxes": "data.format=yolo-seg reads them as outlines",
    "outlines of four corners": "data.format=yolo-obb reads them as turned boxes",
    "validation set held out": "data.val_share=0 trains on all images",
}


def _advice(report: Report) -> list[str]:
    """What mends or drops what was found, and how much of the data it is."""
    objects = sum(s.objects for s in report.statistics.values())
    lines = []
    for kind, number in count_kinds(report.notes).items():
        if kind in _MENDS:
            share = f" ({number / objects:.0%} of the objects)" if objects and number > 1 else ""
            lines.append(f"{kind}: {number}{share}; {_MENDS[kind]}")
    if any(p.kind != "unusable set" for p in report.problems):
        lines.append("data.on_error=drop leaves out what is faulty, and counts it")
    return lines


def _root(settings: Mapping[str, Any]) -> Path | str | None:
    root = settings.get("root")
    if settings.get("source") == "stream":
        return settings.get("root")
    if settings.get("source") == "shapes":
        from deepmac.data.shapes.data_set import ensure_shapes

        names = {"shapes_train": "num_train", "shapes_val": "num_val", "shapes_size": "size"}
        names["difficulty"] = "difficulty"
        given = {argument: settings[key] for key, argument in names.items() if key in settings}
        return ensure_shapes(root, **given)
    if root is None:
        return Path(".") if settings.get("train_json") else None
    return Path(os.path.expanduser(root))


def _split(spec: Any, index: CocoIndex) -> tuple[Split, list[Problem]]:
    """Seen and unseen classes; a set without a single mask has none seen, and that is a line."""
    if spec not in (None, "annotated"):
        return make_split(spec, index), []
    try:
        return make_split("annotated", index), []
    except ConfigError as error:
        text = f"{index.json_path}: {error}"
        problem = Problem("no masks", text, index.json_path, is_note=True)
        return Split(frozenset(), frozenset(index.category_ids)), [problem]


def _read(
    name: Literal["train", "val"], root: Path | str | None, settings: Mapping[str, Any]
) -> CocoIndex:
    if root is None:
        raise DataError(
            f"no place to look for the {name} set; give the folder of the data set (data.root) or "
            "its annotation files."
        )
    source = settings.get("source") or "coco"
    given = {**settings, "root": root, "source": source, "on_error": "drop"}
    if source == "shapes":  # drawn already
        given["source"] = "coco"
    if source == "stream":
        return checked_chunks(str(root), name, decode=settings.get("check_images") == "full")
    return read_annotations(given, name)


def _compare(train: CocoIndex, val: CocoIndex) -> list[Problem]:
    """Faults that only show when both sets are looked at."""
    problems: list[Problem] = []
    try:
        aligned = val.aligned_with(train.categories, str(train.json_path))
    except DataError as error:
        problems.append(Problem("classes differ", str(error), val.json_path))
    else:
        problems += aligned.problems[len(val.problems) :]
    training_files = {os.path.abspath(image.path) for image in train.images}
    for image in val.images:
        if os.path.abspath(image.path) in training_files:
            problems.append(
                Problem(
                    "image in train and val",
                    f"{val.json_path}: image {image.id} ({image.file_name}) is also in "
                    f"{train.json_path}; scores on it say nothing about new images.",
                    val.json_path,
                    image.id,
                    is_note=True,
                )
            )
    return problems


def _draw(
    sets: Mapping[str, CocoIndex], split: Split, path: Path
) -> tuple[Path | None, list[Problem]]:
    pictures, titles, problems = [], [], []
    for name, index in sets.items():
        number = _PICTURES[name] if len(sets) > 1 else sum(_PICTURES.values())
        for image in _choose(index.images, number):
            try:
                pictures.append(_draw_image(image, index, split))
            except DataError as error:
                problems.append(Problem("unreadable image", str(error), image.path, image.id))
                continue
            objects = sum(not item.iscrowd for item in image.instances)
            word = "object" if objects == 1 else "objects"
            titles.append(f"{name} {image.id}: {objects} {word}")
    if not pictures:
        return None, problems
    return save_png(image_grid(pictures, 4, titles, cell=(480, 360)), path), problems


def _choose(images: Sequence[ImageRecord], number: int) -> list[ImageRecord]:
    """A fixed choice, evenly from few to most objects, with one that has a crowd region."""
    ordered = sorted(images, key=lambda image: (len(image.instances), image.id))
    if len(ordered) <= number:
        return ordered
    positions = [round(i * (len(ordered) - 1) / (number - 1)) for i in range(number)]
    chosen = [ordered[position] for position in positions]
    crowded = [image for image in ordered if any(item.iscrowd for item in image.instances)]
    if crowded and not any(image in chosen for image in crowded):
        chosen[-2] = crowded[len(crowded) // 2]
    return chosen


def _draw_image(image: ImageRecord, index: CocoIndex, split: Split) -> Any:
    size = image.height, image.width
    names = {category.id: category.name for category in index.categories}
    items = image.instances
    return draw_instances(
        read_picture(image),
        boxes=[item.box for item in items],
        masks=[None if item.segmentation is None else decode_mask(item, *size) for item in items],
        labels=[("crowd of " if i.iscrowd else "") + names[i.category_id] for i in items],
        colors=[
            _CROWD_COLOR if i.iscrowd else class_color(index.label_of[i.category_id]) for i in items
        ],
        dashed=[item.category_id in split.unseen for item in items],
    )


def _write(problems: list[Problem], path: Path) -> Path | None:
    if not problems:
        path.unlink(missing_ok=True)  # of an earlier check
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["severity\tkind\tfile\timage_id\tannotation_id\tmessage"]
    for problem in sorted(problems, key=lambda problem: problem.is_note):
        ids = ("" if i is None else str(i) for i in (problem.image_id, problem.annotation_id))
        severity = "note" if problem.is_note else "problem"
        cells = (severity, problem.kind, str(problem.file), *ids, problem.message)
        lines.append("\t".join(" ".join(cell.split()) for cell in cells))
    write_atomically(path, "\n".join(lines) + "\n")
    return path


def _sets_table(report: Report) -> "Table":
    from rich.table import Table

    table = Table(title="Data set")
    table.add_column("")
    for name in report.statistics:
        table.add_column(name, justify="right")
    every = list(report.statistics.values())

    def row(what: str, *cells: str) -> None:
        table.add_row(what, *cells)

    row("images", *(f"{s.images:,}" for s in every))
    row("images without objects", *(f"{s.empty_images:,}" for s in every))
    row("objects (boxes)", *(f"{s.objects:,}" for s in every))
    row("objects with masks", *(f"{s.masks:,}" for s in every))
    if any(s.model_masks for s in every):
        row("  with masks that a model made", *(f"{s.model_masks:,}" for s in every))
    if any(s.points for s in every):
        row("objects with points", *(f"{s.points:,}" for s in every))
    if report.split is not None:
        for word, ids in report.split.groups().items():
            if word != "all":
                numbers = (sum(s.class_boxes.get(i, 0) for i in ids) for s in every)
                row(f"objects of {len(ids)} {word} classes", *(f"{n:,}" for n in numbers))
    row("crowd regions", *(f"{s.crowds:,}" for s in every))
    for size, limits in (("small", "< 32² px"), ("medium", ""), ("large", "≥ 96² px")):
        row(f"{size} objects {limits}".strip(), *(f"{s.sizes[size]:,}" for s in every))
    for what in every[0].boxes_per_image:
        row(f"objects an image, {what}", *(f"{s.boxes_per_image[what]:.4g}" for s in every))
    return table


def _classes_table(report: Report) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    assert report.split is not None
    table = Table(title="Classes (seen: masks are used in training)")
    table.add_column("id", justify="right")
    table.add_column("class")
    table.add_column("masks")
    for name in report.statistics:
        table.add_column(f"{name} boxes", justify="right")
        table.add_column(f"{name} masks", justify="right")
    for category in next(iter(report.sets.values())).categories:
        cells = []
        for s in report.statistics.values():
            cells.append(f"{s.class_boxes.get(category.id, 0):,}")
            cells.append(f"{s.class_masks.get(category.id, 0):,}")
        seen = "seen" if category.id in report.split.seen else "unseen"
        table.add_row(str(category.id), escape(category.name), seen, *cells)
    return table
