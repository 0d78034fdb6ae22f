"""Deep-MAC in a Lightning script of your own: its module and data in your Trainer.

Needs neither Hydra nor a configuration file; what is not said has the published value.

    python examples/own_lightning_script.py COCO_FOLDER
"""

import sys
from typing import Any

import pytorch_lightning as pl

from deepmac.lightning.callbacks.evaluation import EvaluateCoco
from deepmac.lightning.datamodule import CocoDataModule
from deepmac.lightning.deepmac_module import DeepMACModule


def train(root: str, **options: Any) -> pl.Trainer:
    """Train on a folder in COCO's layout: boxes for all classes, masks for some.

    Args:
        root: holds ``annotations/instances_{train,val}.json`` and ``images/``.
        **options: of the trainer.
    """
    module = DeepMACModule(
        backbone="tf_efficientnet_lite0",
        weights="package",  # ImageNet's, which come with the installation
        head_channels=64,
        mask_head="hourglass10",
        num_init_channels=16,
        lr=1e-3,
        warmup_steps=50,
    )
    data = CocoDataModule(root=root, image_size=128, batch_size=4, num_workers=0)
    evaluate = EvaluateCoco()
    trainer = pl.Trainer(callbacks=[evaluate], **options)
    trainer.fit(module, data)
    trainer.validate(module, data, verbose=False)
    print("mean IoU in given boxes:", evaluate.metrics["mask_gt_box"]["mIoU"])
    return trainer


if __name__ == "__main__":
    train(sys.argv[1], max_steps=200)
