"""A training step from files: the data module's batch, the module's losses, the original's numbers.

The fixtures' ground truth is written as a COCO data set and read back the way a training with
``compat`` reads it. Two things that such files cannot say are set in the batch: an object of weight
0, and that the lower part of a picture is padding.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from deepmac.class_map import ClassMap
from deepmac.lightning.datamodule import CocoDataModule
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.models.files import card_of
from reference.test_losses_against_tf import ORIGINAL, WEIGHTS, Case, load

SIDE, SLOTS = 64, 8
CASES = ("official_all_classes", "rel_all_classes", "rel_voc_like", "rel_fullres")


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, shared: Path) -> Case:
    return load(shared / "reference_fixtures" / "losses", request.param)


def test_a_training_step__has_the_originals_batch_and_losses(case: Case, tmp_path: Path) -> None:
    module = module_of(case)
    batch = batch_of(case, module, tmp_path)
    truth = {**case.batch, "images": case.batch["images"].float()}
    for name in ("images", "true_sizes", "labels", "valid", "mask_valid", "ignore"):
        assert torch.equal(batch[name], truth[name]), name
    assert torch.allclose(batch["boxes"], truth["boxes"], atol=1e-5)
    assert torch.equal(batch["mask_boxes"], batch["boxes"])

    state = {key: value.clone() for key, value in case.model.state_dict().items()}
    module.train()
    losses = module.compute_losses(batch)
    case.model.load_state_dict(state)
    for name, weight in WEIGHTS.items():
        theirs = float(case.io[f"train_loss::Loss/{ORIGINAL[name]}"])
        assert weight * losses[name].item() == pytest.approx(theirs, rel=1e-4), name


def module_of(case: Case) -> DeepMACModule:
    """With the fixture's network in it."""
    card = card_of(case.model)
    assert card is not None
    assert card.network["compat"] == ("tf_release" if case.release else "tf_latest")
    module = DeepMACModule(**card.network, channels_last=False)
    ids = tuple(range(1, SLOTS + 1))
    module.class_map = ClassMap(ids, tuple(map(str, ids)), frozenset(ids))
    module.network = case.model
    return module


def batch_of(case: Case, module: DeepMACModule, folder: Path) -> dict[str, Tensor]:
    """The first batch of a training on the fixture's ground truth."""
    data = CocoDataModule(
        train_json=str(write(case, folder)),
        val_json=str(folder / "truth.json"),
        image_dir=str(folder),
        masked_classes=[1, 3] if "voc_like" in case.name else "all",
        image_size=SIDE,
        batch_size=2,
        num_workers=0,
        max_boxes=case.batch["boxes"].shape[1],
        flip=0.0,
        color=False,
        crop_scale=None,
    )
    data.targets = module.targets
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    order = batch["image_ids"].argsort()
    batch = {name: values[order] for name, values in batch.items()}
    weightless = ~case.batch["valid"]
    for name in ("valid", "mask_valid"):
        batch[name] = batch[name] & ~weightless
    batch["true_sizes"] = case.batch["true_sizes"]
    return batch


def write(case: Case, folder: Path) -> Path:
    """Pictures and annotations; padding rows are none."""
    pictures, annotations = [], []
    for index, picture in enumerate(case.batch["images"]):
        name = f"{index}.png"
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / name)
        size = {"width": SIDE, "height": SIDE}
        pictures.append({"id": index + 1, "file_name": name, **size})
        rows = zip(case.batch["boxes"][index], case.batch["labels"][index], strict=True)
        for row, (box, label) in enumerate(rows):
            if not box.any():
                continue
            x0, y0, x1, y1 = box.double().tolist()
            mask = np.asfortranarray(case.masks[index, row].numpy().astype(np.uint8))
            rle = coco_mask.encode(mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": int(label) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": {**rle, "counts": rle["counts"].decode("ascii")},
                    # Crowd regions are objects like others there.
                    "iscrowd": int(row == 1),
                }
            )
    categories = [{"id": i, "name": str(i)} for i in range(1, SLOTS + 1)]
    content = {"images": pictures, "annotations": annotations, "categories": categories}
    path = folder / "truth.json"
    path.write_text(json.dumps(content))
    return path
