"""An optimizer's state before its first step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.optim import Adam


def allocate_state(optimizers: Iterable[torch.optim.Optimizer]) -> int:
    """Give Adam and its kin the zeros that the first step would make, unless they are there.

    On XLA a first step that makes its own state is a graph of its own: as long to compile as all
    the others, and used once.

    Returns:
        How many parameters got a state.
    """
    count = 0
    for optimizer in optimizers:
        if not isinstance(optimizer, Adam) or optimizer.defaults["amsgrad"]:
            continue
        for group in optimizer.param_groups:
            if group["capturable"] or group["fused"]:
                continue
            for parameter in group["params"]:
                if parameter.requires_grad and not optimizer.state[parameter]:
                    optimizer.state[parameter].update(
                        step=torch.tensor(0.0),
                        exp_avg=torch.zeros_like(parameter, memory_format=torch.preserve_format),
                        exp_avg_sq=torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    )
                    count += 1
    return count
