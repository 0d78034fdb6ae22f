"""What a network without a detector saves: ``python -m benchmarks.masks_only [--model MODEL]``.

Prints parameters, size of the file, and seconds a picture of the same model with and without its
detector, in one process on one thread, runs of the two taking turns: masks of given boxes as
``deepmac label`` and the demo ask for them (which spare a detector that is there), as an exported
graph's runtime does, and a step of training.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from deepmac.models.card import ModelCard
from deepmac.models.files import build_model, card_of, load_model, write_model


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.masks_only", description=__doc__)
    parser.add_argument("--model", default="deepmac-lite")
    parser.add_argument("--boxes", type=int, default=8, help="a picture")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    whole, masks_only = _with_detector(options.model), load_model(options.model, detector=False)
    size = _card(whole).image_size
    print(
        f"{options.model}, {size} x {size}, {options.boxes} boxes a picture, float32, one thread; "
        f"medians of {options.rounds} runs that take turns"
    )
    _row("", "with detector", "without", "ratio")
    pair = whole, masks_only
    count = [sum(p.numel() for p in network.parameters()) / 1e6 for network in pair]
    _row("parameters, millions", *(f"{n:.3f}" for n in count), f"{count[1] / count[0]:.3f}")
    mega = [_megabytes(network) for network in pair]
    _row("file, float32, MB", *(f"{n:.2f}" for n in mega), f"{mega[1] / mega[0]:.3f}")
    images = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)
    corner = torch.rand(1, options.boxes, 2) * size * 0.5
    boxes = torch.cat([corner, corner + size * (0.1 + 0.3 * torch.rand(1, options.boxes, 2))], 2)
    for name, job in (
        ("masks of given boxes, s", _given),
        ("every head and masks, s", _everything),
        ("forward and backward, s", _training),
    ):
        seconds = _paired([_job(job, network, images, boxes) for network in pair], options.rounds)
        shown = [f"{statistics.median(own):.3f}" for own in seconds]
        ratio = statistics.median(b / a for a, b in zip(*seconds, strict=True))
        _row(name, *shown, f"{ratio:.3f}")


def _with_detector(name: str) -> Any:
    """The model; one that has no detector gets a fresh one, which costs what a learned one does."""
    model = load_model(name)
    card = _card(model)
    if model.detector:
        return model
    described = ModelCard.from_dict(
        {**card.to_dict(), "network": {**card.network, "detector": True}}, source=name
    )
    return build_model(described, source=name).eval()


def _card(model: Any) -> ModelCard:
    card = card_of(model)
    assert card is not None
    return card


def _megabytes(model: Any) -> float:
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), model.state_dict(), _card(model))
        return (Path(folder) / "model.safetensors").stat().st_size / 1e6


def _job(job: Any, *given: Any) -> Callable[[], None]:
    return lambda: job(*given)


def _given(network: Any, images: torch.Tensor, boxes: torch.Tensor) -> None:
    with torch.inference_mode():
        network.mask_probabilities(network.last_stage(images), boxes)


def _everything(network: Any, images: torch.Tensor, boxes: torch.Tensor) -> None:
    with torch.inference_mode():
        network.mask_probabilities(network(images)[-1], boxes)


def _training(network: Any, images: torch.Tensor, boxes: torch.Tensor) -> None:
    network.train()
    stage = network(images)[-1]
    total = network.mask_logits(stage, boxes).mean()
    for answer in (stage.heatmap, stage.size, stage.offset):
        if answer is not None:
            total = total + answer.mean()
    total.backward()
    network.zero_grad()
    network.eval()


def _paired(jobs: Sequence[Callable[[], None]], rounds: int) -> list[list[float]]:
    """CPU seconds of this process, of each job in turn; the first round warms up."""
    seconds: list[list[float]] = [[] for _ in jobs]
    for number in range(rounds + 1):
        for own, job in zip(seconds, jobs, strict=True):
            started = time.process_time()
            job()
            if number:
                own.append(time.process_time() - started)
    return seconds


def _row(name: str, *cells: str) -> None:
    print(f"  {name:26}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
