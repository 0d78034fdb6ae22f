"""Deep-MAC as an auto-annotation function of CVAT.

Draw a box, get its mask (an interaction function, run by an agent):

    cvat-cli --server-host HOST function create-native deepmac \\
        --function-file examples/cvat_function.py -p model=str:deepmac-lite

Masks for boxes that exist already, such as a task's own, exported as COCO (a detection function):

    cvat-cli --server-host HOST task auto-annotate TASK \\
        --function-file examples/cvat_function.py -p boxes=str:instances_default.json

Needs ``pip install 'cvat-sdk[masks]' cvat-cli``.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import cvat_sdk.auto_annotation as cvataa
import numpy as np
import PIL.Image
from cvat_sdk.masks import encode_mask

from deepmac import Predictor, load_model
from deepmac.label.masks.polygons import mask_polygons
from deepmac.predict.paste import mask_to_rle


def create(model: str = "deepmac-lite", boxes: str = "", device: str = "cpu") -> Any:
    """What CVAT's tools call, with their ``-p`` parameters.

    Args:
        model: whatever ``deepmac.load_model`` takes.
        boxes: COCO json with boxes of the task's frames; without, boxes are drawn by hand.
        device: where the network runs.
    """
    predictor = Predictor(load_model(model, device=device))
    return MasksOfBoxes(predictor, Path(boxes)) if boxes else MaskOfDrawnBox(predictor)


class MaskOfDrawnBox:
    """One box, one mask; a picture's features are kept while boxes are drawn on it."""

    spec = cvataa.InteractionFunctionSpec(min_pos_points=0, min_bounding_boxes=1)

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def preprocess_image(self, context: Any, image: PIL.Image.Image) -> Predictor:
        """The backbone's pass over a picture."""
        prepared = copy.copy(self._predictor)
        prepared.set_image(image.convert("RGB"))
        return prepared

    def detect(
        self, context: Any, pp_image: Predictor, prompts: cvataa.InteractionPrompts
    ) -> list[cvataa.InteractionResultShape]:
        """The mask of the box that was drawn."""
        (left, top), (right, bottom) = prompts.bounding_box
        masks, _ = pp_image.predict([[left, top, right, bottom]])
        if not masks[0].any():
            return []
        return [cvataa.InteractionResultShape(type="mask", points=encode_mask(masks[0]))]


class MasksOfBoxes:
    """Masks of the boxes that a COCO json has for each frame."""

    def __init__(self, predictor: Predictor, boxes: Path) -> None:
        self._predictor = predictor
        content = json.loads(boxes.read_text(encoding="utf-8"))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        self._boxes: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for entry in content["annotations"]:
            self._boxes[names[entry["image_id"]]].append(entry)
        labels = [cvataa.label_spec(c["name"], c["id"]) for c in content["categories"]]
        self.spec = cvataa.DetectionFunctionSpec(labels=labels)

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image
    ) -> list[cvataa.DetectionAnnotation]:
        """The masks of one frame; those that the model does not trust are left out."""
        entries = self._boxes.get(context.frame_name, [])
        if not entries:
            return []
        boxes = np.array([entry["bbox"] for entry in entries], dtype=float)
        boxes[:, 2:] += boxes[:, :2]
        self._predictor.set_image(image.convert("RGB"))
        masks, scores = self._predictor.predict(boxes)
        shapes = []
        for entry, mask, score in zip(entries, masks, scores, strict=True):
            if not mask.any() or score < (context.conf_threshold or 0.0):
                continue
            label = entry["category_id"]
            if context.conv_mask_to_poly:
                for ring in mask_polygons(mask_to_rle(mask)):
                    shapes.append(cvataa.polygon(label, ring.ravel().tolist()))
            else:
                shapes.append(cvataa.mask(label, encode_mask(mask)))
        return shapes
