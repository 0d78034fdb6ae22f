"""Names of Lightning that are not public: an upgrade that moves one is told where it went."""

import re
from pathlib import Path

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.loggers.csv_logs import CSVLogger, ExperimentWriter
from pytorch_lightning.strategies import XLAStrategy
from pytorch_lightning.strategies.launchers.xla import _XLALauncher

SOURCE = Path(__file__).resolve().parents[2] / "src" / "deepmac"
ONLY_IN = "lightning/loop_state.py"


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path_factory.mktemp("run"),
    )


def test_a_trainer__has_the_places_that_loop_state_knows(trainer):
    assert trainer._signal_connector.received_sigterm is False
    assert isinstance(type(trainer._logger_connector).should_update_logs, property)
    epoch = trainer.fit_loop.epoch_loop
    for name in ("_should_check_val_fx", "_should_accumulate", "_num_ready_batches_reached"):
        assert callable(getattr(epoch, name)), name
    assert epoch._batches_that_stepped == 0
    assert trainer.fit_loop._data_fetcher is None, "before a run"
    assert epoch.batch_progress.total.completed == epoch.batch_progress.total.processed == 0


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (LightningCLI, "_parse_ckpt_path"),
        (LightningCLI, "_dump_config"),
        (ExperimentWriter, "_check_log_dir_exists"),
        (XLAStrategy, "_configure_launcher"),
        (_XLALauncher, "launch"),
    ],
)
def test_methods_that_we_override_or_call__are_there(owner, name):
    assert callable(getattr(owner, name))


def test_attributes_that_we_read__are_there(tmp_path):
    assert ModelCheckpoint(dirpath=tmp_path)._last_global_step_saved == 0
    assert CSVLogger(tmp_path)._experiment is None


def test_private_places_of_a_trainer__are_reached_from_one_file():
    reached = re.compile(r"trainer\._(?!trainer\b)[a-z]|_connector\.")
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if any(reached.search(line) for line in path.read_text().splitlines())
    }
    assert found <= {ONLY_IN}
