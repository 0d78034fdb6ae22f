"""Names of Lightning that are not public: one file knows them, and each is there."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, Timer, WeightAveraging
from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.strategies import XLAStrategy
from pytorch_lightning.strategies.launchers import subprocess_script
from pytorch_lightning.strategies.launchers.xla import _XLALauncher

from deepmac.lightning import private
from deepmac.lightning.peers import watch_children

SOURCE = Path(__file__).resolve().parents[2] / "src" / "deepmac" / "lightning"
KNOWN_IN = {"private.py", "xla/device.py"}  # Lightning's; torch_xla's


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path_factory.mktemp("run"),
    )


def test_a_trainer__has_the_places_that_we_read(trainer):
    assert trainer._signal_connector.received_sigterm is False
    assert isinstance(type(trainer._logger_connector).should_update_logs, property)
    epoch = trainer.fit_loop.epoch_loop
    for name in ("_should_check_val_fx", "_should_accumulate", "_num_ready_batches_reached"):
        assert callable(getattr(epoch, name)), name
    assert epoch._batches_that_stepped == 0
    assert trainer.fit_loop._data_fetcher is None, "before a run"
    assert epoch.batch_progress.total.completed == epoch.batch_progress.total.processed == 0
    assert not private.has_checkpoint_files(trainer)
    trainer.strategy.checkpoint_io = trainer.strategy.checkpoint_io
    assert private.has_checkpoint_files(trainer)


def test_a_trainer_stops__as_sigterm_would_have_it(trainer):
    private.stop_after_step(trainer)
    assert trainer.received_sigterm


def test_a_module__says_its_trainer_or_none(trainer):
    module = pl.LightningModule()
    assert private.trainer_of(module) is None
    module.trainer = trainer
    assert private.trainer_of(module) is trainer


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (LightningCLI, "_parse_ckpt_path"),
        (LightningCLI, "_dump_config"),
        (ExperimentWriter, "_check_log_dir_exists"),
        (XLAStrategy, "_configure_launcher"),
        (_XLALauncher, "launch"),
        (ModelCheckpoint, "_should_save_on_train_epoch_end"),
        (ModelCheckpoint, "_should_skip_saving_checkpoint"),
        (ModelCheckpoint, "_save_topk_checkpoint"),
        (ModelCheckpoint, "_monitor_candidates"),
        (subprocess_script, "_launch_process_observer"),
    ],
)
def test_methods_that_we_override_or_call__are_there(owner, name):
    assert callable(getattr(owner, name))


def test_lightnings_observer_of_processes__is_the_one_that_it_starts(monkeypatch):
    """The launcher looks the name up in its module, where ours has taken its place."""
    monkeypatch.setattr(subprocess_script, "_launch_process_observer", None)
    launch = subprocess_script._SubprocessScriptLauncher.launch
    assert "_launch_process_observer" in launch.__code__.co_names
    watch_children(lambda: "")
    assert subprocess_script._launch_process_observer.__module__ == "deepmac.lightning.peers"


def test_attributes_that_we_read__are_there(tmp_path):
    writer = private.CheckpointWriter(dirpath=tmp_path, every_n_train_steps=5)
    assert (writer.saved_step, writer.is_due(10), writer.is_due(11)) == (0, True, False)
    writer.saved_step = 10
    assert vars(writer)["_last_global_step_saved"] == 10
    assert private.time_limit(Timer("00:00:01:30")) == 90
    assert private.time_limit(Timer()) == 0
    assert private.averaged_module(WeightAveraging()) is None
    if find_spec("wandb"):
        logger = WandbLogger(save_dir=tmp_path)
        private.without_anonymous(logger)
        assert {"project", "dir"} <= vars(logger)["_wandb_init"].keys() - {"anonymous"}
    assert "_launched" in XLAStrategy.__init__.__code__.co_names  # it cannot be made without XLA


def test_private_names__are_known_to_one_file_for_each_library():
    elsewhere = {
        path.relative_to(SOURCE).as_posix(): names
        for path in SOURCE.rglob("*.py")
        if (names := foreign_private_names(path))
        and path.relative_to(SOURCE).as_posix() not in KNOWN_IN
    }
    assert not elsewhere


def foreign_private_names(path: Path) -> set[str]:
    """Names with one underscore that a file reads or imports and no file of this room defines."""
    tree = ast.parse(path.read_text())
    read = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    read |= {
        alias.name
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom)
        for alias in n.names
    }  # fmt: skip
    read |= {  # overridden in a class that somebody else wrote
        "_configure_launcher", "_check_log_dir_exists", "_parse_ckpt_path", "_dump_config",
    } & {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}  # fmt: skip
    ours = DEFINED | {"_exit", "_asdict", "_fields", "_replace"}  # os's and namedtuple's, public
    return {n for n in read if n.startswith("_") and not n.startswith("__") and n not in ours}


def defined(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own = isinstance(node.value, ast.Name) and node.value.id == "self"
            names |= {node.attr} if own else set()
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


DEFINED = set().union(
    *(defined(p) for p in SOURCE.rglob("*.py") if p.relative_to(SOURCE).as_posix() not in KNOWN_IN)
)
