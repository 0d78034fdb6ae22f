"""A TensorFlow checkpoint, converted, goes on training in the original's way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml

from deepmac.convert import convert
from deepmac.data.shapes.outlines import SHAPES
from deepmac.models.files import card_of, load_model
from tiny import TINY, run, train_py

MODELS = Path(__file__).parents[1] / "reference" / "fixtures" / "model"
NOT_ARGUMENTS_OF_THE_GROUP = ("backbone", "mask_head")


def test_a_converted_checkpoint__trains_on_and_validates(
    tmp_path: Path, write_bundle: Callable[..., Path]
) -> None:
    with np.load(MODELS / "rel_tiny2_weights.npz") as weights:
        arrays = {key.removeprefix("w::"): weights[key] for key in weights.files}
    with np.load(MODELS / "rel_tiny2_io.npz") as answers:
        config = str(answers["config"])
    write_bundle(tmp_path / "tf" / "checkpoint" / "ckpt-0", arrays)
    (tmp_path / "tf" / "pipeline.config").write_text(f"model {{ {config} }}")
    labels = tmp_path / "labels.pbtxt"
    items = (f'item {{ id: {i + 1} name: "{s.name}" }}' for i, s in enumerate(SHAPES))
    labels.write_text("\n".join(items))
    folder = tmp_path / "model"
    convert(tmp_path / "tf", folder, label_map=labels)

    network = yaml.safe_load((folder / "config.yaml").read_text())["network"]
    overrides = [f"model.{name}={json.dumps(value)}" for name, value in network.items()]
    done = run(
        train_py(
            *TINY,
            *overrides,
            "experiment=shapes",
            "backbone=hourglass_10",
            "model.weights=null",
            f"model.init_from={folder}",
            "data.batch_size=2",
            "data.crop_scale=[0.6,1.3]",
            "data.color=true",
            "trainer.max_epochs=-1",
            "trainer.max_steps=3",
            f"hydra.run.dir={tmp_path}/run",
        ),
        cwd=tmp_path,
        cache=tmp_path / "cache",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "; 0 start fresh; 0 of the file unused" in " ".join(done.stdout.split())
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["mask_gt_box"]["mIoU"]["all"] is not None

    before = load_model(folder)
    after = load_model(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert after.conventions.compat == "tf_release"
    assert card_of(after).class_map.names == tuple(shape.name for shape in SHAPES)
    moved = [
        not torch.equal(one, other)
        for one, other in zip(before.parameters(), after.parameters(), strict=True)
    ]
    assert all(moved)
