"""What a run says to the person who started it: once, whatever the number of processes."""

from __future__ import annotations

import logging
import warnings

from pytorch_lightning.utilities.rank_zero import rank_zero_only
from rich.console import Console

terminal = Console(highlight=False)
"""All that a run prints beyond plain lines goes here: above its progress, never through it."""


@rank_zero_only
def say(text: str) -> None:
    """Print a line, on the first replica alone."""
    print(text, flush=True)


def quiet_library_chatter() -> None:
    """A run's output is about the run: warnings and errors of Lightning's, none of its talk."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*isinstance.treespec, LeafSpec.*",
        "You're using the WeightAveraging callback with a model that overrides.*",  # no shards here
        ".*sync_dist=True.*",  # what we log is gathered, and so the same on every replica
        ".*could not find the monitored key.*",  # training may end before the first evaluation
        ".*Checkpoint directory .* exists and is not empty.*",  # ``cli`` says it of a new training
        "The dirpath has changed from .*",  # an evaluation has a run directory of its own
        ".*does not have many workers which may be a bottleneck.*",  # data.num_workers was chosen
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("pytorch_lightning.trainer.connectors.checkpoint_connector").addFilter(
        lambda record: "`weights_only` was not set" not in record.getMessage()
    )
