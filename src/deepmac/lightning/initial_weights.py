"""Start a network from the weights of another one, and say what fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepmac.errors import ConfigError
from deepmac.lightning.console import say
from deepmac.nn.backbones import Normalization
from deepmac.nn.deepmac import DeepMAC

_LIGHTNING_PREFIX = "network."


def load_initial_weights(network: DeepMAC, path: str, *, normalization: str | None) -> None:
    """Copy every tensor of ``path`` whose name and shape the network has.

    Takes checkpoints of this project (``.ckpt``) and state dicts (``.pth``, ``.safetensors``)
    with its names. The weights' own pixel normalisation comes along, unless the configuration
    names another one, which is refused.

    Raises:
        ConfigError: no such file; not a weight file; nothing of the backbone fits; or the
            normalisation contradicts the one the weights were trained with.
    """
    state, stored_normalization = _read(Path(path))
    own = network.state_dict()
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
    say(
        f"model.init_from={path}: {len(matched)} tensors loaded; "
        f"{len(missing)} start fresh{_examples(missing)}; "
        f"{len(unused)} of the file unused{_examples(unused)}"
    )


def _read(path: Path) -> tuple[dict[str, Tensor], Normalization | None]:
    if not path.is_file():
        raise ConfigError(f"model.init_from={path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path), None
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError(
            f"model.init_from={path} is not a readable weight file ({type(error).__name__})"
        ) from error
    stored = content.get("deepmac_normalization") if isinstance(content, dict) else None
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    tensors = {
        name.removeprefix(_LIGHTNING_PREFIX): value
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
    if stored is None:
        return tensors, None
    return tensors, Normalization.from_dict(stored)


def _examples(names: list[str]) -> str:
    if not names:
        return ""
    return f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
