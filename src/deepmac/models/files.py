"""Models from files: converted ones, weight files, and training checkpoints."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from deepmac.errors import ConfigError, UserError
from deepmac.files import parse_yaml, write_atomically
from deepmac.models.card import FORMAT, ModelCard
from deepmac.models.checkpoint import read_checkpoint
from deepmac.models.place import CONFIG, WEIGHTS, model_file
from deepmac.models.refining import Refine
from deepmac.nn.deepmac import DeepMAC, is_of_detector
from deepmac.nn.deepmarc.model import DeepMARC
from deepmac.nn.network import SegmentationNetwork
from deepmac.nn.ranges import check_declared

NETWORKS: dict[str, type[DeepMAC] | type[DeepMARC]] = {"deepmac": DeepMAC, "deepmarc": DeepMARC}

INITIALISATION = "deepmac-initialisation-1"
"""Format of a description of weights that are only good to start a training from."""
_METADATA_KEY = "deepmac"
_MAX_CONFIG = 1 << 20


def load_model(
    path_or_name: str | Path, *, device: str | torch.device = "cpu", detector: bool = True
) -> SegmentationNetwork:
    """A network with its weights, in eval mode.

    Nothing in the file is executed.

    Args:
        path_or_name: ``deepmac-lite``, which comes with the package; a folder that `deepmac
            convert` wrote; a ``.safetensors`` file with its ``config.yaml`` beside it or in its
            metadata; or a ``.ckpt`` of a training.
        device: where the weights go.
        detector: False leaves the detector out, for masks in given boxes alone; a model that has
            none stays as it is.

    Returns:
        The network; :func:`card_of` gives its classes and image size.

    Raises:
        UserError: no such file, one that is damaged or no model, weights that do not fit, or a
            detector that cannot be left out.
    """
    path = model_file(path_or_name)
    if path.suffix == ".safetensors":
        state, card = _read_safetensors(path)
    else:
        state, card = _read_checkpoint(path)
    if not detector:
        if card.system != "deepmac":
            raise UserError(
                f"{path} is a network of two stages, whose detector cannot be left out: its masks "
                "in given boxes do not ask it anyway"
            )
        state = {name: tensor for name, tensor in state.items() if not is_of_detector(name)}
        card = replace(card, network={**card.network, "detector": False})
    model = build_model(card, source=str(path))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the weights in {path} do not fit the network that they are for: {reason}"
        ) from error
    return model.to(device).eval()


def build_model(card: ModelCard, *, source: str) -> SegmentationNetwork:
    """The network that a card describes, with fresh weights.

    Raises:
        ConfigError: arguments, read from ``source``, that the network does not take.
    """
    if card.system not in NETWORKS:
        raise ConfigError(
            f"{source} describes a network of the system {card.system!r}, which this version does "
            f"not know: it has {' and '.join(NETWORKS)}"
        )
    kind = NETWORKS[card.system]
    try:
        check_declared(kind, card.network)
        model = kind(
            num_classes=len(card.class_map), normalization=card.normalization, **card.network
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{source} describes no network that can be built: {error}") from error
    model.card = card
    return model


def card_of(model: SegmentationNetwork) -> ModelCard | None:
    """What :func:`load_model` or :func:`build_model` knows about a network beside its weights."""
    return model.card if isinstance(model.card, ModelCard) else None


def own_threshold(model: SegmentationNetwork) -> float:
    """Above which probability a pixel is of the mask; 0.5 where the model does not say."""
    card = card_of(model)
    return card.mask_threshold if card else 0.5


def own_refine(model: SegmentationNetwork) -> Refine:
    """How its masks are refined; not at all where the model does not say."""
    card = card_of(model)
    return card.refine if card else "none"


def network_arguments(system: str = "deepmac") -> tuple[str, ...]:
    """The names that ``ModelCard.network`` may hold."""
    elsewhere = ("num_classes", "normalization", "weights")
    parameters = inspect.signature(NETWORKS[system]).parameters
    return tuple(name for name in parameters if name not in elsewhere)


def write_model(folder: Path, state: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write ``model.safetensors`` and ``config.yaml`` into an existing folder, each whole."""
    described = card.to_dict()
    text = yaml.safe_dump(described, sort_keys=False, default_flow_style=None, width=100)
    write_atomically(folder / CONFIG, text)
    write_safetensors(folder / WEIGHTS, state, {_METADATA_KEY: json.dumps(described)})


def write_safetensors(
    path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors; unlike the library, with the usual permissions and errors of the system's."""
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    write_atomically(path, save(tensors, dict(metadata) if metadata else None))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any] | None, Path]:
    """The tensors of a file, what describes them (None without), and where that was said.

    Raises:
        UserError: a file or description that cannot be read.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as a safetensors file ({error}): download or convert it again"
        ) from error
    beside = path.with_name(CONFIG)
    values = _read_yaml(beside) if beside.is_file() else None
    if isinstance(values, Mapping) and values.get("format") in (FORMAT, INITIALISATION):
        return state, values, beside
    if _METADATA_KEY not in metadata:
        return state, None, path
    try:
        values = json.loads(metadata[_METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise UserError(f"the description inside {path} is damaged: convert it again") from error
    return state, values if isinstance(values, Mapping) else {}, path


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], ModelCard]:
    state, values, source = read_safetensors(path)
    if values is None or values.get("format") == INITIALISATION:
        raise UserError(
            f"{path} has neither a {CONFIG} beside it nor a description inside: it is no whole "
            "model; to start a training from it set model.init_from"
        )
    return state, ModelCard.from_dict(values, source=str(source))


def _read_yaml(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_CONFIG:
            raise ValueError("it is too large")
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise ConfigError(f"{path} cannot be read as YAML ({reason}): write it again") from error


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], ModelCard]:
    """A checkpoint of one of ``deepmac.lightning.systems``."""
    found = read_checkpoint(path)
    if found.system not in NETWORKS:
        raise UserError(
            f"{path} is of the system {found.system!r}, which this version does not know"
        )
    values = {
        "format": FORMAT,
        "system": found.system,
        "image_size": found.data_settings.get("image_size"),
        "mask_threshold": found.settings.get("mask_threshold", 0.5),
        "network": {
            name: found.settings[name]
            for name in network_arguments(found.system)
            if name in found.settings
        },
        "normalization": found.normalization.to_dict(),
        "class_map": found.class_map.to_dict(),
    }
    return found.state, ModelCard.from_dict(values, source=str(path))
