"""``deepmac label --runtime openvino``."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from pycocotools import mask as coco_mask

from deepmac.errors import ConfigError, UserError
from deepmac.label.command import command

installed = pytest.mark.skipif(
    find_spec("openvino") is None, reason="the package openvino is not installed"
)


@pytest.fixture
def job(model_dir: Path, data, boxes_only: Path, tmp_path: Path):
    """The exit code of a job on six pictures that writes to a given place."""
    content = json.loads(boxes_only.read_text())
    content["images"] = content["images"][:6]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
    boxes_only.write_text(json.dumps(content))

    def run(name: str, *more: str) -> int:
        places = {"model": model_dir, "images": data.images, "boxes": boxes_only}
        words = [word for key, value in places.items() for word in (f"--{key}", str(value))]
        return command([*words, "--out", str(tmp_path / name), "--workers", "0", *more])

    return run


def rles(path: Path) -> list[dict]:
    return [entry["segmentation"] for entry in json.loads(path.read_text())["annotations"]]


@installed
def test_masks__are_those_of_torch(job, tmp_path: Path) -> None:
    assert job("torch.json") == job("other.json", "--runtime", "openvino") == 0
    ours, theirs = rles(tmp_path / "other.json"), rles(tmp_path / "torch.json")
    overlaps = [coco_mask.iou([a], [b], [0])[0, 0] for a, b in zip(ours, theirs, strict=True)]
    assert len(overlaps) > 6
    assert min(overlaps) > 0.98 and sum(overlaps) / len(overlaps) > 0.9995
    with pytest.raises(ConfigError, match="exists already"):  # the other runtime's job is another
        job("torch.json", "--runtime", "openvino")


def test_card__is_refused(job) -> None:
    with pytest.raises(ConfigError, match="--runtime openvino computes on processors, not on gpu"):
        job("out.json", "--runtime", "openvino", "--accelerator", "gpu")


def test_missing_package__is_said_before_the_model_is_read(job, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match="needs the package openvino: pip install"):
        job("out.json", "--runtime", "openvino")
    assert not (tmp_path / "out.json").exists()
