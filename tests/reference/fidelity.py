"""Write ``docs/fidelity.md``: how far every part is from the TensorFlow original.

``python tests/reference/fidelity.py [--out docs/fidelity.md] [--shared DIR]``. Parts whose
fixtures lie in the optional folder are left out, and named, where it is absent.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from test_mask_heads_against_tf import FIXTURES as HEAD_FIXTURES
from test_mask_heads_against_tf import ILL_CONDITIONED, Fixture, effect_of_rounding
from test_mask_heads_against_tf import deviation as relative
from test_models_against_tf import (
    FIXTURES,
    HEADS,
    MODELS,
    SHAPES,
    Arrays,
    detected_crops,
    deviation,
    from_fixture,
    from_variables,
    full512_settings,
    full512_variables,
    original_layout,
    pixels,
    read,
)

from deepmac.nn.backbones import CENTERNET_BGR, Normalize
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.mask_heads import MASK_HEADS
from deepmac.nn.roi_crop import corner_aligned_crop
from deepmac.postprocess import paste_masks, paste_probabilities
from deepmac.predictor import Predictor
from deepmac.preprocess import letterbox

REPOSITORY = Path(__file__).resolve().parents[2]
NOTE = """\
(1) At 32x32 these two heads end in maps of 1x1, and the fixture has three rows: batch statistics
of three numbers, one norm after the other, blow rounding up. The bound is three times what our
float64 logits move when the input moves by one part in a million."""
DIFFERENCES = Path(__file__).with_name("differences.md")


class Row(NamedTuple):
    part: str
    what: str
    error: float
    bound: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "fidelity.md")
    default = os.environ.get("DEEPMAC_SHARED", REPOSITORY.parent / "shared")
    parser.add_argument("--shared", type=Path, default=Path(default))
    options = parser.parse_args()
    torch.manual_seed(0)
    fixtures = options.shared / "reference_fixtures"
    rows = list(measure(fixtures if fixtures.is_dir() else None))
    lines = [
        "# Fidelity to the TensorFlow original",
        "",
        "Written by `python tests/reference/fidelity.py`: the largest difference from numbers "
        "that the original gave, float32 on a CPU. Relative errors are to the largest number of "
        "the tensor.",
        "",
    ]
    if not fixtures.is_dir():
        lines += ["Measured without the optional fixtures: only the parts below.", ""]
    lines += ["| part | quantity | largest error | asked for |", "|---|---|---|---|"]
    lines += [f"| {row.part} | {row.what} | {row.error:.1e} | {row.bound} |" for row in rows]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(
        "\n".join([*lines, "", NOTE, "", DIFFERENCES.read_text(encoding="utf-8")]), encoding="utf-8"
    )
    print(f"{len(rows)} rows written to {options.out}")


def measure(fixtures: Path | None) -> Iterator[Row]:
    """Every part that has a fixture."""
    yield from preprocessing()
    if fixtures:
        yield from cropping(read(fixtures / "crop.npz"))
    yield from mask_heads(fixtures / "heads" if fixtures else HEAD_FIXTURES)
    for name in ("rel_tiny2", "tiny2", "rel_h10", "small_h10"):
        folder = MODELS if (MODELS / f"{name}_io.npz").is_file() else fixtures
        if folder:
            model, io = from_fixture(folder if folder == MODELS else folder / "model", name)
            yield from whole_model(name, model, io)
    if fixtures:
        io = read(fixtures / "full512_outputs.npz")
        variables = full512_variables(fixtures / "checkpoint_keys_512x512.tsv", io)
        io["given::detection_masks"] = io["given_masks"]
        model = from_variables(variables, full512_settings())
        yield from whole_model("official 512", model, io, sampled=8)


def preprocessing() -> Iterator[Row]:
    arrays = read(FIXTURES / "resize.npz")
    grey, normalized = 0.0, 0.0
    for shape in SHAPES:
        image = letterbox(arrays[f"image_{shape}"], 64, "tf_release").image
        ours = image[0].permute(1, 2, 0).numpy()
        grey = max(grey, float(np.abs(ours - arrays[f"resized_{shape}"]).max()))
        ours = Normalize(CENTERNET_BGR)(image).permute(0, 2, 3, 1).numpy()
        normalized = max(normalized, float(np.abs(ours - arrays[f"pre_{shape}"]).max()))
    yield Row("preprocessing", "grey levels, six shapes", grey, "1e-4")
    yield Row("preprocessing", "normalised", normalized, "")


def cropping(arrays: Arrays) -> Iterator[Row]:
    features = torch.from_numpy(arrays["feature"].transpose(0, 3, 1, 2).copy())
    height, width = features.shape[-2:]
    boxes = torch.from_numpy(arrays["boxes"][..., [1, 0, 3, 2]])
    boxes = boxes * torch.tensor([width, height, width, height])
    worst = 0.0
    for key in ("crop_7x7", "crop_32x32", "crop_1x1", "crop_5x9"):
        sides = key.removeprefix("crop_").split("x")
        ours = corner_aligned_crop(features, boxes, (int(sides[0]), int(sides[1])))
        theirs = arrays[key]
        worst = max(worst, deviation(ours.permute(0, 1, 3, 4, 2).numpy(), theirs))
    yield Row("crop of features", "relative, four sizes", worst, "1e-4")
    theirs = arrays["pasted"]
    size = theirs.shape[1:]
    boxes = pixels(arrays["paste_boxes"], theirs[0])
    ours = paste_probabilities(arrays["paste_masks"], boxes, *size, "corner_aligned")
    yield Row("pasting", "probability", float(np.abs(ours - theirs).max()), "")
    masks = paste_masks(arrays["paste_masks"], boxes, *size, 0.5, "corner_aligned")
    yield Row("pasting", "share of differing pixels", float((masks != (theirs > 0.5)).mean()), "")


def mask_heads(folder: Path) -> Iterator[Row]:
    for name in MASK_HEADS:
        if not (folder / f"{name}.npz").is_file():
            continue
        fixture = Fixture(folder / f"{name}.npz")
        head = fixture.head().eval()
        with torch.no_grad():
            error = relative(head(fixture.pixel, fixture.instance), fixture.arrays["logits"])
            yield Row(f"head {name}", "logits, evaluation, relative", error, "1e-4")
            if "logits_training_mode" in fixture.arrays:
                logits = head.train()(fixture.pixel, fixture.instance)
                error = relative(logits, fixture.arrays["logits_training_mode"])
                bound = "1e-4"
                if name in ILL_CONDITIONED:
                    bound = f"{3 * effect_of_rounding(fixture):.1e} (1)"
                yield Row(f"head {name}", "logits, training, relative", error, bound)


def whole_model(name: str, model: DeepMAC, io: Arrays, sampled: int = 1) -> Iterator[Row]:
    predictor = Predictor(model)
    with torch.no_grad():
        stages = model(letterbox(io["image"], predictor.image_size, model.compat).image)
    prefix = "pred" if sampled == 1 else f"pred_s{sampled}"
    worst = max(
        deviation(
            original_layout(stage, head)[:, ::sampled, ::sampled], io[f"{prefix}::{head}::{index}"]
        )
        for index, stage in enumerate(stages)
        for head in HEADS
    )
    part = f"model {name}"
    yield Row(part, "all heads' outputs, relative", worst, "1e-4")
    predictor.set_image(io["image"])
    crops = predictor.predict_crops(pixels(io["boxes"][0], io["image"]))
    error = float(np.abs(crops - io["given::detection_masks"][0]).max())
    yield Row(part, "probabilities in given boxes", error, "1e-4")
    found = predictor.detect()
    error = float(np.abs(found.scores - io["post::detection_scores"][0]).max())
    yield Row(part, "scores of detections", error, "1e-5")
    error = float(np.abs(found.boxes - pixels(io["post::detection_boxes"][0], io["image"])).max())
    yield Row(part, "boxes of detections, pixels", error, "1e-3")
    wrong = float((found.labels - 1 != io["post::detection_classes"][0]).mean())
    yield Row(part, "share of differing classes", wrong, "0")
    error = float(np.abs(detected_crops(predictor) - io["post::detection_masks"][0]).max())
    yield Row(part, "probabilities in detected boxes", error, "")


if __name__ == "__main__":
    main()
