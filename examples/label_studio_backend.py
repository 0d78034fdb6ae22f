"""Deep-MAC as an ML backend of Label Studio: draw a rectangle, get its polygon.

    label-studio-ml init deepmac --script examples/label_studio_backend.py
    LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=IMAGES label-studio-ml start deepmac

The labeling interface needs a rectangle to draw and polygons to get, with the same class names:

    <View>
      <Image name="image" value="$image"/>
      <RectangleLabels name="box" toName="image" smart="true">
        <Label value="thing"/>
      </RectangleLabels>
      <PolygonLabels name="label" toName="image"><Label value="thing"/></PolygonLabels>
    </View>

Rectangles of tasks that are annotated already get polygons as predictions.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from label_studio_ml.model import LabelStudioMLBase

from deepmac import Predictor, load_model
from deepmac.data.images import read_image
from deepmac.label.masks.polygons import mask_polygons
from deepmac.label.writers.labelstudio import polygon_regions
from deepmac.predict.paste import mask_to_rle

MODEL = os.environ.get("DEEPMAC_MODEL", "deepmac-lite")
ROOT = "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"


class DeepMACBackend(LabelStudioMLBase):
    """Polygons of rectangles."""

    _predictor: Predictor | None = None

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **_: Any
    ) -> list[dict[str, Any]]:
        """One prediction for each task.

        Args:
            tasks: as Label Studio sends them.
            context: what was just drawn, in interactive mode.
        """
        return [self._prediction(task, context) for task in tasks]

    def _prediction(self, task: dict[str, Any], context: dict[str, Any] | None) -> dict[str, Any]:
        drawn = (context or {}).get("result") or [
            region for one in task.get("annotations", []) for region in one["result"]
        ]
        rectangles = [region for region in drawn if "rectanglelabels" in region.get("value", {})]
        if not rectangles:
            return {"result": [], "score": 0.0, "model_version": MODEL}
        pixels = read_image(self._path(task["data"]["image"]))
        size = pixels.shape[1], pixels.shape[0]
        if DeepMACBackend._predictor is None:
            DeepMACBackend._predictor = Predictor(load_model(MODEL))
        DeepMACBackend._predictor.set_image(pixels)
        values = [region["value"] for region in rectangles]
        boxes = np.array([[v["x"], v["y"], v["width"], v["height"]] for v in values], dtype=float)
        boxes[:, 2:] += boxes[:, :2]
        masks, scores = DeepMACBackend._predictor.predict(boxes / 100 * np.tile(size, 2))
        result: list[dict[str, Any]] = []
        for region, mask, score in zip(rectangles, masks, scores.tolist(), strict=True):
            name = region["value"]["rectanglelabels"][0]
            rings = mask_polygons(mask_to_rle(mask))
            parts = polygon_regions(rings, size, name, region.get("id", "box"))
            result += [{**part, "score": score} for part in parts]
        return {"result": result, "score": float(np.mean(scores)), "model_version": MODEL}

    def _path(self, url: str) -> Path:
        """Of a picture that Label Studio serves from a folder, or that it has to be asked for."""
        parts = urlsplit(url)
        inner = parse_qs(parts.query).get("d")
        if inner and ROOT in os.environ:
            return Path(os.environ[ROOT]) / inner[0]
        if not parts.scheme and Path(url).is_file():
            return Path(url)
        return Path(self.get_local_path(url))
