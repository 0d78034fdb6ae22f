"""Which annotation files the settings of the data mean, and reading them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from deepmac.class_map import ClassMap
from deepmac.data.annotations.coco import CocoIndex, read_coco
from deepmac.data.annotations.locate import locate_coco
from deepmac.data.annotations.reading import Reading
from deepmac.data.shapes.data_set import ensure_shapes
from deepmac.data.splits import masked_category_ids
from deepmac.errors import ConfigError, DataError

Split = Literal["train", "val", "predict"]
Settings = Mapping[str, Any]
"""Arguments of :class:`~deepmac.lightning.datamodule.CocoDataModule` by name."""


def data_folder(settings: Settings) -> Path:
    """The root that other paths are relative to; the generated set is drawn where it is missing.

    Raises:
        ConfigError: no setting says where the data is, or pictures would be drawn into it.
    """
    if settings["source"] == "shapes":
        if settings["root"] is not None:
            _check_draws_nothing_into(Path(settings["root"]))
        return ensure_shapes(
            None if settings["root"] is None else Path(settings["root"]),
            num_train=settings["shapes_train"],
            num_val=settings["shapes_val"],
            size=settings["shapes_size"],
            difficulty=settings["difficulty"],
        )
    if settings["root"] is None and settings["train_json"] is None:
        raise ConfigError(
            "data.root is not set: give the folder that holds annotations/ and images/"
        )
    return Path(settings["root"] or ".")


def _check_draws_nothing_into(root: Path) -> None:
    """Somebody's own data is not what generated pictures are put beside."""
    if root.is_dir() and any(not entry.name.startswith("shapes-") for entry in root.iterdir()):
        raise ConfigError(
            f"data.root={root} holds other files, and this experiment draws pictures of its own: "
            "for your data add data=coco or experiment=custom, else leave data.root out"
        )


def read_annotations(settings: Settings, split: Split) -> CocoIndex:
    """Read and check the json of a split.

    Raises:
        DataError: a file is missing or faulty.
    """
    return read_coco(
        *_located(settings, split),
        on_error=settings["on_error"],
        check_images=settings["check_images"],
        require_annotations=split != "predict",
        reading=Reading(exhaustive=split != "train" or settings["exhaustive"]),
    )


def read_classes(
    settings: Settings,
    train: CocoIndex | None,
    val: CocoIndex | None,
    predict: CocoIndex | None,
) -> ClassMap:
    """Classes of the training json, and which of them have masks.

    Args:
        settings: of the data.
        train: what has been read already, as the others.
        val: gives the classes where there is no training json: in an evaluation alone, where a
            checkpoint's own replace them anyway.
        predict: the last resort.

    Raises:
        ConfigError: ``masked_classes`` names what the data does not have.
        DataError: the training json is faulty.
    """
    source = train
    if source is None:
        try:
            located = _located(settings, "train")
        except DataError:
            source = val or predict
        else:
            source = read_coco(*located, on_error="drop", check_images="none")
    assert source is not None
    masked = masked_category_ids(settings["masked_classes"], source)
    return ClassMap.from_categories(source.categories, masked)


def _located(settings: Settings, split: Split) -> tuple[Path, Path]:
    """The json and image folder of a split; predicting without a json takes validation's."""
    json = settings[f"{split}_json"] or (settings["val_json"] if split == "predict" else None)
    return locate_coco(
        data_folder(settings),
        "val" if split == "predict" else split,
        json=json,
        image_dir=settings["image_dir"],
    )
