"""A copy of a network that answers sooner: norms folded away, weights where they are read soonest,
bfloat16.

The network that was given is left as it is. In float32 the copy's answers differ by rounding.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar, get_args

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from deepmac.errors import UserError
from deepmac.nn.allocator import keep_freed_memory
from deepmac.nn.clicks import Clicks
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.depthwise import as_made
from deepmac.nn.network import SegmentationNetwork
from deepmac.nn.norm import BatchNorm2d
from deepmac.nn.packed import ACTIVATIONS, Followed, Through, can_pack, pack_convolutions

Precision = Literal["auto", "32", "bf16"]
"""``32``: float32. ``bf16``: convolutions in bfloat16. ``auto``: the second where the device
computes in it, the first elsewhere."""

N = TypeVar("N", bound=SegmentationNetwork)

_KEPT = 256 << 20
"""Bytes that a process keeps for the next picture."""
_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)  # subclasses that turn their weights into others are not
_NORMS = (nn.BatchNorm2d, BatchNorm2d)


def for_inference(
    network: N, precision: Precision = "32", *, runs_on: torch.device | None = None
) -> N:
    """A copy of a network for predictions alone, on the same device.

    Batch norms become part of the convolutions before them, and weights lie as convolutions read
    them soonest. A copy that was made here is returned as it is.

    Args:
        network: DeepMAC or DeepMARC.
        precision: see ``Precision``.
        runs_on: the device that the copy will be moved to; by default it stays where it is.

    Raises:
        ValueError: an unknown precision.
        UserError: weights that are not finite.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {', '.join(get_args(Precision))}, not {precision!r}")
    if network.prepared is not None:
        return network
    require_finite_weights(network)
    device = runs_on or next(network.parameters()).device
    if device.type == "cpu":
        keep_freed_memory(_KEPT)
    kind = resolved(precision, device)
    prepared = copy.deepcopy(network).eval().requires_grad_(False)
    as_made(prepared)
    packs = device.type == "cpu" and can_pack()
    with torch.inference_mode(False), torch.no_grad():
        _merge(prepared, activations=packs)
        if device.type in ("cpu", "cuda"):
            prepared.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for part in prepared.inference_parts():
                part.register_forward_pre_hook(_channels_last)
        if kind == "bf16":
            _to_bfloat16(prepared)
        if packs:
            for part in prepared.inference_parts():
                pack_convolutions(part)
    prepared.prepared = kind
    return prepared


def require_finite_weights(network: nn.Module) -> None:
    """Refuse a network whose answers would mean nothing.

    Raises:
        UserError: a weight or a norm's statistic is NaN or infinite.
    """
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(
                f"the model's weights are not finite ({name}): its training has diverged; give an "
                "earlier checkpoint"
            )


def resolved(precision: Precision, device: torch.device) -> Literal["32", "bf16"]:
    """What ``auto`` means on a device."""
    if precision != "auto":
        return precision
    return "bf16" if has_bfloat16(device) else "32"


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies matrices of bfloat16; where it does not, they are emulated."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, flag, bool)()) for flag in flags)


def _channels_last(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        value.contiguous(memory_format=torch.channels_last)
        if isinstance(value, Tensor) and value.ndim == 4
        else value
        for value in inputs
    )


def _to_bfloat16(network: SegmentationNetwork) -> None:
    """Convolutions; crops, boxes and what is exponential stay wide."""
    for part in network.inference_parts():
        part.to(torch.bfloat16)
        part.register_forward_pre_hook(_narrow)
        if not isinstance(network, DeepMAC):
            part.register_forward_hook(_wide)


def _narrow(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    narrow: tuple[Any, ...] = _cast(inputs, torch.bfloat16)
    return narrow


def _wide(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    return _cast(output, torch.float32)


def _cast(values: Any, dtype: torch.dtype) -> Any:
    if isinstance(values, Tensor):
        return values.to(dtype) if values.is_floating_point() else values
    if isinstance(values, tuple | list):
        return type(values)(_cast(value, dtype) for value in values)
    if isinstance(values, dict):
        return type(values)((name, _cast(value, dtype)) for name, value in values.items())
    return values


def _merge(network: SegmentationNetwork, *, activations: bool) -> None:
    """Make each norm, and each activation if asked, a part of the convolution that feeds it.

    All or nothing, as the answers tell. A click head has no say in what the masks without clicks
    are.
    """
    divisor = int(network.backbone.size_divisor)
    side = divisor * -(-64 // divisor)
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 255
    image = image.to(next(network.parameters()).device)
    merges: list[tuple[tuple[type[nn.Module], ...], Callable[..., None]]] = [(_NORMS, _fold)]
    if activations:
        merges.append((tuple(ACTIVATIONS), _follow))
    for kinds, merge in merges:
        _merge_where_equal(network, kinds, merge, lambda: _answers(network, image))
        if network.takes_clicks:
            clicked = partial(_answers, network, image, clicks=True)
            _merge_where_equal(network, kinds, merge, clicked, "click_head.")


def _merge_where_equal(
    network: SegmentationNetwork,
    kinds: tuple[type[nn.Module], ...],
    merge: Callable[[nn.Module, str, str], None],
    answers: Callable[[], Tensor],
    part: str = "",
) -> None:
    """``merge`` pairs of one part of a network, if its answers stay as they are."""
    before = answers()
    pairs = [pair for pair in _pairs(network, answers, kinds) if pair[1].startswith(part)]
    held = copy.deepcopy(network)
    for convolution, reader in pairs:
        merge(network, convolution, reader)
    if not torch.allclose(before, answers(), rtol=1e-3, atol=1e-4):  # an output has other readers
        network.__dict__.update(held.__dict__)


def _answers(network: SegmentationNetwork, image: Tensor, *, clicks: bool = False) -> Tensor:
    side = image.shape[-1]
    boxes = image.new_tensor([[[1.0, 2.0, side / 2, side - 3]]])
    labels = torch.zeros(1, 1, dtype=torch.int64, device=image.device)
    stage = network.last_stage(image)
    if clicks:
        middle = Clicks(boxes[..., None, 2:] / 2, labels[..., None])
        return network.mask_probabilities(stage, boxes, clicks=middle)
    return network.mask_probabilities(stage, boxes, labels=labels)


def _pairs(
    network: SegmentationNetwork,
    answers: Callable[[], Tensor],
    kinds: tuple[type[nn.Module], ...],
) -> list[tuple[str, str]]:
    """Names of (convolution, module of ``kinds``): the second takes what the first gives, once."""
    outputs: dict[int, tuple[str, Tensor, int]] = {}
    pairs: list[tuple[str, str]] = []
    hooks = []
    for name, module in network.named_modules():
        if type(module) in _CONVOLUTIONS:

            def keep(_: Any, __: Any, output: Tensor, name: str = name) -> None:
                # Held, so that no other gets its id; a sum in place makes it another's output.
                outputs[id(output)] = (name, output, output._version)

            hooks.append(module.register_forward_hook(keep))
        elif isinstance(module, kinds):

            def look(_: Any, inputs: tuple[Any, ...], name: str = name) -> None:
                feeding, _, version = outputs.get(id(inputs[0]), ("", None, 0))
                if feeding and inputs[0]._version == version:
                    pairs.append((feeding, name))

            hooks.append(module.register_forward_pre_hook(look))
    try:
        answers()
    finally:
        for hook in hooks:
            hook.remove()
    times = Counter(name for pair in pairs for name in pair)
    return [pair for pair in pairs if times[pair[0]] == times[pair[1]] == 1]


def _fold(network: nn.Module, convolution_name: str, norm_name: str) -> None:
    """Make a norm part of a convolution: in float64, rounded once."""
    convolution: Any = network.get_submodule(convolution_name)
    norm: Any = network.get_submodule(norm_name)
    weight, bias = fuse_conv_bn_weights(
        convolution.weight.double(),
        None if convolution.bias is None else convolution.bias.double(),
        norm.running_mean.double(),
        norm.running_var.double(),
        norm.options.eps if isinstance(norm, BatchNorm2d) else norm.eps,
        None if norm.weight is None else norm.weight.double(),
        None if norm.bias is None else norm.bias.double(),
    )
    dtype = convolution.weight.dtype
    convolution.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    left = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else Through()
    _replace(network, norm_name, left)  # timm's norms hold an activation


def _follow(network: nn.Module, convolution: str, activation: str) -> None:
    """Have a convolution do an activation."""
    after = network.get_submodule(activation)
    _replace(network, convolution, Followed(network.get_submodule(convolution), after))
    _replace(network, activation, nn.Identity())


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)
