"""Torch and OpenVINO beside each other: a picture and its boxes on one thread.

``python -m benchmarks.runtimes``: deepmac-lite, processor time in milliseconds, in turns, so that
what else the machine does falls on all alike.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.table import in_turns
from deepmac.models.files import load_model
from deepmac.nn.network import SegmentationNetwork
from deepmac.predict.letterbox import InputSpec
from deepmac.predict.masks import crop_probabilities
from deepmac.predict.runtime import RUNTIMES, prepared_network


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="deepmac-lite")
    parser.add_argument("--size", type=int, help="side of the network input; the model's own")
    parser.add_argument("--boxes", type=int, nargs="+", default=[3, 20])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model = load_model(options.model)
    size = InputSpec.of(model, options.size).image_size
    networks = {
        (precision, runtime): prepared_network(model, precision, runtime)
        for precision in ("32", "bf16")
        for runtime in RUNTIMES
    }
    print(f"{options.model}, input {size} x {size}, one thread, median of {options.repeats} turns")
    for count in options.boxes:
        picture = _picture(size, count)
        sides = [_side(network, *picture) for network in networks.values()]
        with torch.inference_mode():
            spent = in_turns(sides, options.repeats, time.process_time)
        found = dict(zip(networks, spent, strict=True))
        for precision in ("32", "bf16"):
            plain, other = (1e3 * found[precision, runtime] for runtime in RUNTIMES)
            print(
                f"  {count} boxes, precision {precision}: torch {plain:.1f} ms, openvino "
                f"{other:.1f} ms, {plain / other:.2f} x"
            )


def _picture(size: int, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, 3, size, size), generator=generator).to(torch.uint8)
    corners = torch.rand(1, count, 2, generator=generator) * 0.6 * size
    sides = (0.1 + 0.3 * torch.rand(1, count, 2, generator=generator)) * size
    return image, torch.cat([corners, corners + sides], dim=2)


def _side(network: SegmentationNetwork, image: Tensor, boxes: Tensor) -> Callable[[], object]:
    return lambda: crop_probabilities(network, network.last_stage(image), boxes)


if __name__ == "__main__":
    main()
