"""RoIAlign of a hundred boxes: torchvision's operator, the separable form, and what is chosen."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.table import Row, in_turns
from deepmac.nn.roi_crop import roi_crop


def rows(quick: bool, device: str = "cpu") -> list[Row]:
    """Forward, and with the backward that training adds."""
    count, side = (10, 32) if quick else (100, 128)
    images = 1 if quick else 4
    torch.manual_seed(0)
    features = torch.randn(images, 16, side, side, device=device, requires_grad=True)
    corner = torch.rand(images, count, 2, device=device) * side * 2
    boxes = torch.cat([corner, corner + side * (0.4 + torch.rand_like(corner))], dim=2)
    weight = torch.randn(images, count, 16, 32, 32, device=device)

    def forward(impl: str) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad():
                roi_crop(features, boxes, 32, 0.25, impl=impl)  # type: ignore[arg-type]
            wait(device)

        return run

    def both(impl: str) -> Callable[[], object]:
        def run() -> None:
            crops = roi_crop(features, boxes, 32, 0.25, impl=impl)  # type: ignore[arg-type]
            torch.autograd.grad((crops * weight).sum(), features)
            wait(device)

        return run

    repeats = 2 if quick else 9
    how = f"{images} maps of 16 x {side}², {count} boxes each, 32² cells, 2² samples"
    found = []
    for name, make in (("crops, forward", forward), ("crops, forward and backward", both)):
        separable, torchvision = in_turns([make("separable"), make("torchvision")], repeats)
        found.append(
            Row(f"{name}, separable", "ms", 1e3 * separable, "torchvision", 1e3 * torchvision,
                None, how)
        )  # fmt: skip
    return found


def wait(device: str) -> None:
    """Until a card has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()
