"""What a run says to the person who started it: once, whatever the number of processes."""

from __future__ import annotations

import logging
import warnings

from pytorch_lightning.utilities.rank_zero import rank_zero_only


@rank_zero_only
def say(text: str) -> None:
    """Print a line, on the first replica alone."""
    print(text, flush=True)


def quiet_library_chatter() -> None:
    """A run's output is about the run: not other products, not Lightning's own old calls."""
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
    logging.getLogger("pytorch_lightning.trainer.connectors.checkpoint_connector").addFilter(
        lambda record: "`weights_only` was not set" not in record.getMessage()
    )
