"""A callback that notes which images each process was given."""

import json
import os
from pathlib import Path

from pytorch_lightning.callbacks import Callback


class SeenImages(Callback):
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).absolute()

    def _note(self, trainer, batch, phase):
        self.folder.mkdir(exist_ok=True)
        ids = batch["image_ids"][~batch["filler"]].tolist()
        run = os.getppid() if trainer.global_rank else os.getpid()
        line = {"phase": phase, "epoch": trainer.current_epoch, "rank": trainer.global_rank,
                "run": run, "ids": ids}  # fmt: skip
        with (self.folder / f"{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._note(trainer, batch, "train")

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if not trainer.sanity_checking:
            self._note(trainer, batch, "val")
