"""Start a network from the weights of another one, and say what fitted."""

from __future__ import annotations

import re

from torch import Tensor

from deepmac.class_map import ClassMap
from deepmac.errors import ConfigError
from deepmac.models.weights import WeightFile, read_weight_file
from deepmac.nn.deepmarc.weights import is_mask_rcnn, torchvision_names
from deepmac.nn.network import SegmentationNetwork

_CLASS_ROWS = re.compile(r"heads\.\d+\.heatmap\.2\.(weight|bias)")
"""Tensors with one row per class slot."""


def load_initial_weights(
    network: SegmentationNetwork,
    path: str,
    *,
    normalization: str | None,
    class_map: ClassMap | None = None,
) -> list[str]:
    """Copy every tensor of ``path`` whose name and shape the network has.

    Takes converted folders and named models, checkpoints of this project (``.ckpt``), and state
    dicts (``.pth``, ``.safetensors``) with its names or torchvision's detectors'. Where the file
    names its classes, each class of this run takes the slot of that name. The weights' own pixel
    normalisation comes along, unless the configuration names another one, which is refused.
    Weights that were taught masks of classes that ``class_map`` leaves without are taken with a
    warning.

    Returns:
        What was done, and what to beware of: sentences for the person who started the run.

    Raises:
        ConfigError: no such file; not a weight file; nothing of the backbone fits; or the
            normalisation contradicts the one the weights were trained with.
    """
    file = read_weight_file(path)
    state, stored_normalization, taught = file.state, file.normalization, file.class_map
    own = network.state_dict()
    if stored_normalization is None:
        state = torchvision_names(state)
    said: list[str] = []
    if taught is not None and class_map is not None and taught.names != class_map.names:
        state, known = _rows_by_name(state, own, taught, class_map)
        said.append(f"{known} of {len(class_map)} classes are known to the weights by their names")
    matched = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    if not any(name.startswith("backbone.") for name in matched):
        raise ConfigError(
            f"model.init_from={path}: none of its {len(state)} tensors fits this backbone; "
            "check model.backbone"
        )
    if stored_normalization is not None:
        current = network.normalize.normalization
        if normalization is not None and current != stored_normalization:
            raise ConfigError(
                f"model.init_from={path} was trained with pixel mean {stored_normalization.mean} "
                f"and deviation {stored_normalization.std}, which model.normalization="
                f"{normalization} contradicts: set it to null"
            )
        network.normalize.set(stored_normalization)
    network.load_state_dict({**own, **matched})
    missing = sorted(own.keys() - matched.keys())
    unused = sorted(state.keys() - matched.keys())
    said.append(
        f"model.init_from={path}: {len(matched)} tensors loaded; "
        f"{len(missing)} start fresh{_examples(missing)}; "
        f"{len(unused)} of the file unused{_examples(unused)}"
    )
    said += _first_click_head(network, matched)
    said += _other_compat(path, network, file)
    if class_map is not None and (taught is not None or is_mask_rcnn(state)):
        said += _known_masks(path, class_map, taught)
    return said


def _first_click_head(network: SegmentationNetwork, matched: dict[str, Tensor]) -> list[str]:
    """A click head that the weights do not have begins as their mask head."""
    head = getattr(network, "click_head", None)
    if head is None or any(name.startswith("click_head.") for name in matched):
        return []
    taken = head.start_from(network.mask_head)
    return [f"the click head starts from {taken} tensors of the mask head"] if taken else []


def _known_masks(path: str, class_map: ClassMap, taught: ClassMap | None) -> list[str]:
    """A result on unseen classes means little when the initial weights have seen their masks."""
    unseen = _names(class_map, masked=False)
    if taught is not None:
        unseen &= _names(taught, masked=True)
    if not unseen:
        return []
    whose = "all of COCO's classes" if taught is None else "other classes too"
    return [
        f"warning: model.init_from={path} was trained with masks of {whose}; {len(unseen)} "
        "classes that have no masks in this run are not new to it, so do not report them as "
        "unseen: start from detection-only weights (Faster R-CNN) or ImageNet's instead"
    ]


def _names(class_map: ClassMap, *, masked: bool) -> set[str]:
    """Of the classes with or without masks; ids of another data set may mean other things."""
    pairs = zip(class_map.category_ids, class_map.names, strict=True)
    return {name for i, name in pairs if (i in class_map.masked_category_ids) == masked}


def _rows_by_name(
    state: dict[str, Tensor], own: dict[str, Tensor], taught: ClassMap, class_map: ClassMap
) -> tuple[dict[str, Tensor], int]:
    """The state with the rows of class slots where this run has these classes, and their count.

    Rows of classes that the weights do not know are the network's own fresh ones.
    """
    slot_of = {name.casefold(): slot for slot, name in enumerate(taught.names)}
    slots = [slot_of.get(name.casefold()) for name in class_map.names]
    pairs = [(ours, theirs) for ours, theirs in enumerate(slots) if theirs is not None]
    moved = dict(state)
    for name, value in state.items():
        if _CLASS_ROWS.fullmatch(name) and name in own and len(own[name]) == len(class_map):
            if value.shape[1:] != own[name].shape[1:]:
                continue
            rows = own[name].clone()
            for ours, theirs in pairs:
                rows[ours] = value[theirs]
            moved[name] = rows
    return moved, len(pairs)


def _other_compat(path: str, network: SegmentationNetwork, file: WeightFile) -> list[str]:
    ours = network.conventions.compat
    if "compat" not in file.settings or file.settings["compat"] == ours:
        return []
    theirs = file.settings["compat"]
    names = [f"compat={'null' if value is None else value}" for value in (theirs, ours)]
    return [
        f"model.init_from={path} was made with {names[0]}, but this run trains with {names[1]}: "
        f"crops, norms and data are not what the weights know; model.{names[0]} goes on in their "
        "way"
    ]


def _examples(names: list[str]) -> str:
    if not names:
        return ""
    return f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
