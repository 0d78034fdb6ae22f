"""Weights to start a training from, and what their file says about them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from deepmac.class_map import ClassMap
from deepmac.errors import ConfigError, UserError
from deepmac.models.card import FORMAT, ModelCard
from deepmac.models.checkpoint import is_ours, parse_checkpoint, read_content
from deepmac.models.files import network_arguments, read_safetensors
from deepmac.models.place import model_file
from deepmac.nn.backbones import Normalization


class WeightFile(NamedTuple):
    """Tensors by name, and what is known about them.

    Attributes:
        state: as a network of this project names them, or as the file does.
        normalization: of the pixels that they were trained with.
        class_map: the classes of their heads' slots.
        settings: arguments of the network that they are of; empty where unknown.
    """

    state: dict[str, Tensor]
    normalization: Normalization | None = None
    class_map: ClassMap | None = None
    settings: Mapping[str, Any] = {}


def read_weight_file(path_or_name: str) -> WeightFile:
    """Weights from any file that a training can start from.

    Takes what ``load_model`` takes, folders of converted backbones, and state dicts (``.pth``,
    ``.safetensors``).

    Raises:
        ConfigError: there is no such file, or it cannot be read.
    """
    where = f"model.init_from={path_or_name}"
    path = Path(path_or_name)
    if not path.exists() and (path.suffix or len(path.parts) > 1):
        raise ConfigError(f"{where}: no such file")
    try:
        path = model_file(path_or_name)
        if path.suffix == ".safetensors":
            return _described(*read_safetensors(path))
        return _of_content(read_content(path), source=str(path))
    except UserError as error:
        raise ConfigError(f"{where}: {error}") from error


def _described(
    state: dict[str, Tensor], values: Mapping[str, Any] | None, source: Path
) -> WeightFile:
    if values is None:
        return WeightFile(state)
    if values.get("format") == FORMAT:
        card = ModelCard.from_dict(values, source=str(source))
        return WeightFile(state, card.normalization, card.class_map, card.network)
    try:
        normalization = Normalization.from_dict(values["normalization"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{source} does not say how pixels are normalised") from error
    return WeightFile(state, normalization)


def _of_content(content: Mapping[str, Any], *, source: str) -> WeightFile:
    """A checkpoint of ours, or a plain state dict, alone or under Lightning's name for one."""
    if not is_ours(content):
        state = content.get("state_dict", content)
        if not isinstance(state, Mapping):
            raise UserError(f"{source} holds no weights by their names")
        return WeightFile({k: v for k, v in state.items() if isinstance(v, Tensor)})
    found = parse_checkpoint(content, source=source)
    names = network_arguments(found.system)
    settings = {name: found.settings[name] for name in names if name in found.settings}
    return WeightFile(found.state, found.normalization, found.class_map, settings)
