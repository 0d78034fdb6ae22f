"""A callback for the runs of these tests: what torch_xla has counted after every batch."""

import json
import os

from pytorch_lightning.callbacks import Callback

from deepmac.lightning.xla import device as xla
from deepmac.lightning.xla.strategies import XLADevices


class Probe(Callback):
    """Writes one line per batch to the file that ``PROBE_FILE`` names."""

    def note(self, phase, trainer, batch):
        counted = xla.metrics()
        line = {
            "phase": phase,
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "objects": batch["valid"].shape[1],
            "images": len(batch["images"]),
            "compiles": counted.get("CompileTime", 0),
            "to_host": counted.get("TransferFromDeviceTime", 0),
            "fallbacks": {
                name: count
                for name, count in counted.items()
                if name.startswith(("aten::", "torchvision::"))
            },
        }
        with open(os.environ["PROBE_FILE"], "a") as file:
            print(json.dumps(line), file=file)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.note("train", trainer, batch)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, d=0):
        self.note("sanity" if trainer.sanity_checking else "validate", trainer, batch)

    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, d=0):
        self.note("predict", trainer, batch)


class Host(XLADevices):
    """Claims the two devices of a TPU host, so that the run starts processes of its own.

    On a CPU torch_xla gives such a process one device: everything but the second replica.
    """

    @staticmethod
    def parse_devices(devices):
        return 2

    @staticmethod
    def auto_device_count():
        return 2
