"""The network built where weights take no memory: what does not fit is found before any data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deepmac.errors import ConfigError, one_sentence
from deepmac.lightning.module import SegmentationModule, check_image_size
from deepmac.lightning.optim.optimizer import build_optimizer
from deepmac.nn.network import SegmentationNetwork


def rehearse(module: SegmentationModule, image_size: int, *, training: bool = True) -> str:
    """Build the network of a module, and its optimizer.

    Args:
        module: made from settings; it is left as it was.
        image_size: side of the pictures that it is for.
        training: its optimizer is needed.

    Returns:
        What the network is, in two lines.

    Raises:
        ConfigError: settings that do not go together, or a network larger than the memory.
    """
    settings = module.hparams
    if training:
        build_optimizer([{"params": [nn.Parameter(torch.zeros(1))]}], settings)
    network = _without_memory(module)
    check_image_size(network, settings, image_size)
    # Weights, gradients and the two moments of Adam.
    needed = 4 * sum(p.numel() * p.element_size() for p in network.parameters())
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ConfigError(
            f"a training of this network takes {needed / 1e9:.1f} GB for weights alone, and this "
            f"machine has {there / 1e9:.1f} GB: lower model.head_channels, "
            "model.num_init_channels or model.pyramid_width"
        )
    return _told(module.system, settings, network, image_size)


def _without_memory(module: SegmentationModule) -> SegmentationNetwork:
    given = module.network_arguments
    module.network_arguments = {**given, "weights": None}
    try:
        with torch.device("meta"):
            return module.make_network(module.hparams["num_classes"] or 1)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except (RuntimeError, OverflowError, MemoryError) as error:
        raise ConfigError(f"the network cannot be built: {one_sentence(error)}") from error
    finally:
        module.network_arguments = given


def _told(system: str, settings: Mapping[str, Any], network: SegmentationNetwork, size: int) -> str:
    count = sum(p.numel() for p in network.parameters()) / 1e6
    text = f"{system}: {settings['backbone']}, mask head {settings['mask_head']}, "
    text += f"{count:.1f} M parameters"
    try:
        with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(torch.empty(1, 3, size, size))
    except Exception:  # a backbone of somebody else's that looks at its values
        return text
    flop = counter.get_total_flops() / 1e9
    return f"{text}\n{flop:.3g} GFLOP an image of {size} pixels before its masks"
