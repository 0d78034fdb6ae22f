"""Weights & Biases and MLflow, into the run directory and without their noise."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import MLFlowLogger, WandbLogger

from deepmac.errors import ConfigError, UserError, one_sentence
from deepmac.lightning.private import without_anonymous


class WandB(WandbLogger):
    """Lightning's, in a folder that is there, without a setting that W&B has given up.

    Args:
        save_dir: relative to the run directory; W&B makes a folder ``wandb`` in it.
        project: of W&B's.
        name: of the run; null = W&B thinks of one.
        version: W&B's id of a run that goes on.
        offline: keep the run here, for ``wandb sync`` later (also: ``WANDB_MODE=offline``).
        entity: team or user that the project belongs to.
        tags: of the run.
    """

    def __init__(
        self,
        *,
        save_dir: str = ".",
        project: str = "deepmac",
        name: str | None = None,
        version: str | None = None,
        offline: bool = False,
        entity: str | None = None,
        tags: list[str] | None = None,
    ) -> None:
        super().__init__(
            name=name,
            save_dir=save_dir,
            version=version,
            offline=offline,
            project=project,
            entity=entity,
            tags=tags,
        )
        without_anonymous(self)

    @property
    def experiment(self) -> Any:
        """W&B's run, begun when it is first asked for.

        Raises:
            UserError: W&B does not know the user, or cannot be reached.
        """
        from wandb.errors import Error

        if self.save_dir is not None:
            Path(self.save_dir).mkdir(parents=True, exist_ok=True)
        try:
            return super().experiment
        except Error as error:
            raise UserError(
                f"logger=wandb: {one_sentence(error)} (or keep the run here: WANDB_MODE=offline)"
            ) from error


class MLflow(MLFlowLogger):
    """Lightning's; without a server a folder of plain files, which moves with the run.

    Args:
        save_dir: relative to the run directory; of the files.
        experiment_name: of MLflow's.
        run_name: null = MLflow thinks of one.
        run_id: of a run that goes on.
        tracking_uri: of a server; null = files in ``save_dir``.
        tags: of the run.
    """

    def __init__(
        self,
        *,
        save_dir: str = "mlflow",
        experiment_name: str = "deepmac",
        run_name: str | None = None,
        run_id: str | None = None,
        tracking_uri: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        if tracking_uri is None:  # MLflow 3 asks whether files are meant
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        logging.getLogger(MLFlowLogger.__module__).setLevel(logging.ERROR)  # not of a new name
        super().__init__(
            save_dir=save_dir,
            experiment_name=experiment_name,
            run_name=run_name,
            run_id=run_id,
            tracking_uri=tracking_uri or Path(save_dir).absolute().as_uri(),
            tags=tags,
        )


def check_installed(class_path: str) -> None:
    """Of the logger that a configuration names.

    Raises:
        ConfigError: its package is not there.
    """
    for name, kind in {"wandb": WandB, "mlflow": MLflow}.items():
        if class_path == f"{kind.__module__}.{kind.__name__}" and find_spec(name) is None:
            raise ConfigError(f"logger={name} needs {name}: pip install 'deepmac[{name}]'")
