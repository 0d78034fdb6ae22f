"""The evaluation at the end of a training whose replicas are processes of their own."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from deepmac.evaluation import format_table
from deepmac.lightning.callbacks.evaluation import EvaluateCoco
from deepmac.lightning.console import terminal


class FinalEvaluation(Callback):
    """Evaluates the last weights before the replicas end, and says the table.

    Elsewhere the process that was started does so after the training; here it never had the
    network, and would score a fresh one.
    """

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run Lightning's validation loop once more, unless these weights were just scored."""
        scored = [c for c in trainer.callbacks if isinstance(c, EvaluateCoco)]  # type: ignore
        if not scored or not trainer.limit_val_batches or trainer.received_sigterm:
            return
        if scored[0].step != trainer.global_step:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True
        if trainer.is_global_zero:
            terminal.print(format_table(scored[0].metrics))
