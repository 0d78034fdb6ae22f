"""Training checkpoints of this project (``.ckpt``): the one place that knows what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepmac.class_map import ClassMap
from deepmac.errors import UserError
from deepmac.nn.backbones import Normalization

_PREFIX = "network."


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says about its network.

    Attributes:
        system: ``deepmac`` or ``deepmarc``.
        state: the network's tensors by its own names.
        settings: the module's arguments, the network's among them.
        data_settings: the data module's.
        class_map: the classes of the network's slots.
        normalization: of pixels.
        step: optimizer steps behind it.
    """

    system: str
    state: dict[str, Tensor]
    settings: Mapping[str, Any]
    data_settings: Mapping[str, Any]
    class_map: ClassMap
    normalization: Normalization
    step: int


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file; nothing in it is executed.

    Raises:
        UserError: it cannot be read, or is no checkpoint of this project.
    """
    return parse_checkpoint(read_content(path), source=str(path))


def read_content(path: str | Path) -> Mapping[str, Any]:
    """Any file of ``torch.save`` that holds a dict by names: a checkpoint, or a state dict.

    Raises:
        UserError: it is something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=_can_map(path))
    except Exception as error:  # the unpickler and the archive reader raise whatever they like
        raise UserError(
            f"{path} is not a readable weight file ({type(error).__name__}): give a .ckpt that a "
            "training wrote"
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{path} holds no weights by their names: give a .ckpt of a training")
    return content


def is_ours(content: Mapping[str, Any]) -> bool:
    """Whether a content is of a checkpoint that a training of this project wrote."""
    return "deepmac_class_map" in content


def parse_checkpoint(content: Mapping[str, Any], *, source: str) -> Checkpoint:
    """Check the content of a checkpoint.

    Args:
        content: as Lightning saves it.
        source: the file, for what is said about it.

    Raises:
        UserError: another project's, or parts of another type than a training writes.
    """
    if not is_ours(content):
        raise UserError(
            f"{source} was not written by a training of this project: convert other weights with "
            "`deepmac convert`"
        )
    parts = {
        name: content.get(name, {})
        for name in ("state_dict", "hyper_parameters", "datamodule_hyper_parameters")
    }
    for name, value in parts.items():
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise _damaged(source, name)
    state = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in parts["state_dict"].items()
        if name.startswith(_PREFIX)
    }
    if not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise _damaged(source, "state_dict")
    try:
        class_map = ClassMap.from_dict(content["deepmac_class_map"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(source, "deepmac_class_map") from error
    try:
        normalization = Normalization.from_dict(content["deepmac_normalization"])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(source, "deepmac_normalization") from error
    system, step = content.get("deepmac_system", "deepmac"), content.get("global_step", 0)
    if not isinstance(system, str) or not isinstance(step, int):
        raise _damaged(source, "global_step" if isinstance(system, str) else "deepmac_system")
    return Checkpoint(
        system,
        state,
        parts["hyper_parameters"],
        parts["datamodule_hyper_parameters"],
        class_map,
        normalization,
        step,
    )


def _damaged(source: str, part: str) -> UserError:
    return UserError(
        f"{source} is damaged: its {part} is not what a training writes there; take another "
        "checkpoint of the run"
    )


def _can_map(path: str | Path) -> bool:
    """Files of old versions of torch are no archives and cannot be mapped into memory."""
    with open(path, "rb") as file:
        return file.read(2) == b"PK"
