"""One model whose weights are the mean of several: better than each, where they come from one.

    python examples/average_weights.py runs/a/weights runs/b/weights --out averaged

The models must be trainings that began at the same weights ("model soups", Wortsman et al., ICML
2022); of others the mean is worth nothing. The first one says all else: classes, input, threshold,
and parts that not every model has, such as a click head. The result is in half precision.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from deepmac.errors import UserError
from deepmac.files import new_folder, refuse_existing
from deepmac.guard import guarded
from deepmac.models.files import card_of, load_model, write_model


def average(states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of each tensor of the first state over all states that have it, in half precision.

    Raises:
        UserError: a tensor of another shape.
    """
    averaged = {}
    for name, first in states[0].items():
        same = [state[name] for state in states if name in state]
        if any(value.shape != first.shape for value in same):
            raise UserError(f"{name} is not of the same shape in all models: average like ones")
        if not first.is_floating_point():
            averaged[name] = first
            continue
        averaged[name] = torch.stack([value.double() for value in same]).mean(0).half()
    return averaged


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="folders, checkpoints or names")
    parser.add_argument("--out", type=Path, required=True, help="folder of the result")
    given = parser.parse_args()
    refuse_existing(given.out)
    networks = [load_model(model) for model in given.models]
    card = card_of(networks[0])
    assert card is not None  # load_model gives one to every network
    with new_folder(given.out) as folder:
        write_model(folder, average([network.state_dict() for network in networks]), card)
    print(f"the mean of {len(networks)} models -> {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
