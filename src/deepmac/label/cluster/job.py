"""What a network's masks depend on, from the settings that people give."""

from __future__ import annotations

from pathlib import Path

from deepmac.label.cluster.labeller import Work
from deepmac.label.digest import model_digest
from deepmac.label.masks.calibration import Calibration
from deepmac.label.masks.records import MaskOptions
from deepmac.models.files import own_refine, own_threshold
from deepmac.models.refining import Refine
from deepmac.nn.network import SegmentationNetwork
from deepmac.predict.letterbox import InputSpec


def work_of(
    network: SegmentationNetwork,
    images: str,
    *,
    threshold: float | None = None,
    refine: Refine | None = None,
    box_margin: float = 0.0,
    largest_component: bool = False,
    fill_holes: bool = False,
    calibration: Path | None = None,
    batch_size: int = 4,
    precision: str = "32",
) -> Work:
    """The work for a network; what is left out is the model's own.

    Args:
        network: in eval mode, from ``load_model``.
        images: folder or URL that image paths start from.
        threshold: of the pixels' probability.
        refine: see ``deepmac.models.refining``.
        box_margin: look beyond boxes by this share of their sides.
        largest_component: drop all but a mask's largest part.
        fill_holes: fill what a mask encloses.
        calibration: file that belongs to the model.
        batch_size: pictures that go through the network together.
        precision: ``32`` or ``bf16``.

    Raises:
        UserError: the calibration is of another model.
    """
    digest = model_digest(network)
    options = MaskOptions(
        threshold=own_threshold(network) if threshold is None else threshold,
        refine=own_refine(network) if refine is None else refine,
        box_margin=box_margin,
        largest_component=largest_component,
        fill_holes=fill_holes,
    )
    return Work(
        images,
        options,
        digest,
        InputSpec.of(network),
        batch_size,
        Calibration.read(calibration, digest) if calibration else float,
        precision,
    )
