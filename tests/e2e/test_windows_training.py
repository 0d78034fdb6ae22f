"""A training for masks alone, on windows, ended by the clock: it evaluates, loads and labels."""

import json

import numpy as np
import pytest
import torch

import tiny
from deepmac import Predictor, load_model
from deepmac.errors import UserError


@pytest.mark.slow
def test_masks_alone_from_windows_around_objects(tmp_path):
    words = [
        *tiny.TINY,
        "trainer.max_epochs=-1",
        "trainer.check_val_every_n_epoch=1000",
        "+trainer.max_time=00:00:00:08",
        "model.detector=false",
        "model.box_margin=0.1",
        "data.windows=[32,64]",
        "data.window_objects=2",
        "data.max_roi_jitter_ratio=0.1",
        "data.roi_jitter_share=0.5",
        "callbacks=masks_only",
        "hydra.run.dir=run",
    ]
    done = tiny.run(tiny.train_py(*words), cwd=tmp_path, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    model = load_model(checkpoint)
    assert not model.detector
    assert model.box_margin == 0.1
    half = load_model(tmp_path / "run" / "weights")
    for name, tensor in model.state_dict().items():
        assert torch.equal(half.state_dict()[name], tensor.half().to(tensor.dtype)), name
    predictor = Predictor(model)
    predictor.set_image(np.zeros((60, 80, 3), np.uint8))
    masks, _ = predictor.predict([[10.0, 10, 40, 40]])
    assert masks.shape == (1, 60, 80)
    with pytest.raises(UserError, match="no detector"):
        predictor.detect()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["mask_gt_box"]["mIoU"]["all"] > 0
