"""Which library computes a network's backbone in predictions; torch is loaded when one is made."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from deepmac.errors import UserError

if TYPE_CHECKING:
    import torch

    from deepmac.nn.inference import Precision
    from deepmac.nn.network import SegmentationNetwork

    N = TypeVar("N", bound=SegmentationNetwork)

Runtime = Literal["torch", "openvino"]
"""``openvino``: sooner than torch on CPUs; on them alone, with the package of that name."""

RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)


def require_runtime(runtime: Runtime) -> None:
    """Raise UserError where the package of a runtime is missing."""
    if runtime == "openvino" and find_spec("openvino") is None:
        raise UserError(
            "runtime openvino needs the package openvino: pip install 'deepmac[openvino]', or "
            "leave the runtime at torch"
        )


def prepared_network(
    network: N,
    precision: Precision = "32",
    runtime: Runtime = "torch",
    *,
    runs_on: torch.device | None = None,
) -> N:
    """A copy for predictions alone: ``deepmac.nn.inference.for_inference``, in a runtime.

    A copy that was made here is returned as it is.

    Args:
        network: DeepMAC or DeepMARC.
        precision: see ``deepmac.nn.inference.Precision``.
        runtime: what computes the backbone; all behind it is torch's.
        runs_on: the device that the copy will be moved to; by default it stays where it is.

    Raises:
        ValueError: an unknown precision or runtime, or a copy of another runtime.
        UserError: weights that are not finite; a runtime that is not installed, does not compute on
            that device or cannot take this backbone.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime is {', '.join(RUNTIMES)}, not {runtime!r}")
    from deepmac.nn.inference import for_inference

    if runtime == "torch":
        return for_inference(network, precision, runs_on=runs_on)
    require_runtime(runtime)
    from deepmac.predict.openvino_backbone import OpenVinoBackbone

    if isinstance(network.backbone, OpenVinoBackbone):
        return network
    if network.prepared is not None:
        raise ValueError("this copy was prepared for torch: give the network as it was loaded")
    device = runs_on or next(network.parameters()).device
    if device.type != "cpu":
        raise UserError(
            f"runtime openvino computes on processors, not on {device.type}: choose the cpu, or "
            "leave the runtime at torch"
        )
    prepared = for_inference(network, precision, runs_on=runs_on)
    assert prepared.prepared is not None
    prepared.backbone = OpenVinoBackbone(network.backbone, prepared.prepared)
    return prepared
