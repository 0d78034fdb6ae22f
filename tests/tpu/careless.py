"""A callback that makes the mistakes which XLA punishes."""

from pytorch_lightning.callbacks import Callback


class Careless(Callback):
    """Asks the device for a list of unknown length in step 6, and reads a value after step 8."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 6:
            batch["images"] = batch["images"][:2].repeat(2, 1, 1, 1)
            self.found = batch["valid"].nonzero() + 1

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 9:
            self.value = outputs["loss"].item()
