"""What Hydra calls when all jobs of a sweep are done."""

from __future__ import annotations

import sys
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from deepmac.errors import UserError
from deepmac.lightning.console import say
from deepmac.study.report import write_study
from deepmac.study.table import format_study


class WriteStudy(Callback):
    """Ends a sweep with the table and the figure of all finished runs in its folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """See Hydra."""
        folder = config.hydra.sweep.dir
        try:
            study = write_study(folder)
        except UserError as error:
            print(f"deepmac: {error}", file=sys.stderr)
            sys.exit(1)
        say(f"{format_study(study)}\ntable and figure: {folder}/study.md, {folder}/study.png")
