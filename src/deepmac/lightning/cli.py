"""LightningCLI on a composed configuration: the one place where objects are built."""

from __future__ import annotations

import os
import signal
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, Namespace
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, Timer
from pytorch_lightning.cli import LightningArgumentParser, SaveConfigCallback
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from deepmac.errors import ConfigError, Interrupted, UserError, one_sentence
from deepmac.evaluation import format_table
from deepmac.files import write_atomically
from deepmac.lightning.arguments import check_whole_numbers
from deepmac.lightning.callbacks.evaluation import EvaluateCoco, monitored
from deepmac.lightning.callbacks.final_evaluation import FinalEvaluation
from deepmac.lightning.callbacks.last_checkpoint import LastCheckpoint
from deepmac.lightning.callbacks.resumption import Resumption
from deepmac.lightning.callbacks.stop_signals import (
    StopSignals,
    name_of,
    signal_behind,
    terminated_by_sigterm,
)
from deepmac.lightning.checkpoint_files import CheckpointFiles, damaged, is_of_restoring
from deepmac.lightning.checks import check_numbers, chosen_checkpoint, synchronized_norms
from deepmac.lightning.console import quiet_library_chatter, say, terminal
from deepmac.lightning.datamodule import CocoDataModule
from deepmac.lightning.going_on import command_to_go_on
from deepmac.lightning.peers import is_lost_peer, watch_children
from deepmac.lightning.private import SettingsCLI, has_checkpoint_files, time_limit
from deepmac.lightning.rehearsal import rehearse
from deepmac.lightning.systems import (
    SYSTEMS,
    chosen_option,
    chosen_system,
    optimizer_of_model,
    todays_options,
    with_model_of,
)
from deepmac.lightning.trackers import check_installed
from deepmac.lightning.xla.strategies import XLAReplicas, take_precision

# Errors come as exceptions, and a printed configuration is nothing but the configuration.
_PARSER = {"exit_on_error": False, "dump_header": []}


def run(
    command: str,
    config: dict[str, Any] | None,
    options: list[str],
    run_dir: str | os.PathLike[str],
    *,
    model_of_checkpoint: bool = False,
) -> float | None:
    """Build everything and run one LightningCLI subcommand.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        config: a composed configuration; None when ``options`` name a ``--config`` file.
        options: LightningCLI's own options.
        run_dir: where everything of this run is written.
        model_of_checkpoint: nothing was said about the model, so a ``ckpt_path`` may.

    Returns:
        After ``fit``: the monitored value of the final evaluation.
    """
    arguments = [command]
    options = optimizer_of_model(options)
    if model_of_checkpoint and config is not None:
        config = with_model_of(chosen_option(options, "--ckpt_path", config["ckpt_path"]), config)
    with tempfile.TemporaryDirectory() as folder:
        options = todays_options(options, Path(folder))
        system = chosen_system(config, options)
        if config is not None:
            check_whole_numbers(config)
            path = Path(folder) / "composed.yaml"
            path.write_text(yaml.safe_dump(config, sort_keys=False))
            arguments += ["--config", str(path)]
        quiet_library_chatter()
        DeepMACCLI.run_dir = Path(run_dir)
        DeepMACCLI.model_of_checkpoint = model_of_checkpoint
        DeepMACCLI.command = command
        DeepMACCLI.running = None
        watch_children(lambda: _peer_lost(DeepMACCLI.running, Path(run_dir)))
        try:
            with terminated_by_sigterm():
                cli = DeepMACCLI(
                    SYSTEMS[system],
                    CocoDataModule,
                    args=[*arguments, *options],
                    auto_configure_optimizers=False,
                    save_config_callback=SaveFlatConfig,
                    parser_kwargs={**_PARSER, command: _PARSER},
                )
        except Exception as error:
            trainer: Trainer | None = DeepMACCLI.running
            if trainer is not None and is_lost_peer(error):
                raise UserError(_peer_lost(trainer, Path(run_dir))) from error
            if trainer is not None and is_of_restoring(error):
                raise damaged(trainer.ckpt_path, error) from error
            if isinstance(error, MisconfigurationException):  # Lightning's word for: settings
                raise ConfigError(one_sentence(error)) from error
            raise
        except (SystemExit, KeyboardInterrupt) as error:
            raise _interrupted(error, command, DeepMACCLI.running, Path(run_dir)) from error
    evaluation = cli.evaluation
    if command != "fit" or evaluation is None or not evaluation.metrics:
        return None
    detector = cli.config[command].model.get("detector", True)
    section, metric, group = monitored(detector=detector).split("/")
    value: float | None = evaluation.metrics[section][metric][group]
    return value


class DeepMACCLI(SettingsCLI):
    """LightningCLI that writes into one run directory and ends ``fit`` with an evaluation."""

    command: str
    run_dir: Path
    model_of_checkpoint: bool
    running: Trainer | None = None

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The one that was asked for: each costs the time to look at every signature again."""
        return {DeepMACCLI.command: SettingsCLI.subcommands()[DeepMACCLI.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Named in every saved configuration, so that it runs again by itself."""
        parser.add_argument("--system", default="deepmac", help="deepmac or deepmarc: the model's")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Ours are made, not typed; the process's own stay as they are, for those it starts.

        Raises:
            ConfigError: a setting that is unknown, of another type or out of its range.
        """
        try:
            self.config = parser.parse_args(args)
        except (
            ArgumentError,
            TypeError,
            ValueError,
            ArithmeticError,
            OSError,
            yaml.YAMLError,
        ) as error:
            raise ConfigError(one_sentence(error)) from error
        check_numbers(self.config[self.command])

    def before_instantiate_classes(self) -> None:
        """Relative paths of callbacks and loggers are relative to the run directory."""
        self.portable_settings()
        settings = self.config[self.subcommand]
        training = self.command == "fit"
        settings.ckpt_path = chosen_checkpoint(
            settings.get("ckpt_path"), self.run_dir, training=training
        )
        held = any((self.run_dir / "checkpoints").glob("*.ckpt"))
        if training and settings.ckpt_path is None and held:
            say("there are checkpoints of an earlier training: this one replaces them")
        take_precision(settings.trainer)
        settings.trainer.sync_batchnorm = synchronized_norms(settings.trainer)
        settings.trainer.default_root_dir = str(self.run_dir)
        detector = settings.model.get("detector", True)
        for group, key in (("callbacks", "dirpath"), ("logger", "save_dir")):
            for entry in settings.trainer.get(group) or []:
                check_installed(entry.class_path)
                arguments = entry.get("init_args") or Namespace()
                if arguments.get("monitor") == "":
                    raise ConfigError(
                        f"{entry.class_path.rpartition('.')[2]}: monitor is empty: name a metric, "
                        "such as mask/AP/all"
                    )
                if arguments.get("monitor") is not None:
                    arguments.monitor = monitored(arguments.monitor, detector=detector)
                if arguments.get(key) is not None:
                    arguments[key] = str(self.run_dir / arguments[key])

    def instantiate_classes(self) -> None:
        """Build everything; nothing has been read yet.

        Raises:
            ConfigError: settings that do not go together, or not with this machine.
        """
        try:
            super().instantiate_classes()
        except UserError:
            raise
        except Exception as error:  # whatever a library raises about an argument
            raise ConfigError(f"these settings cannot be used: {one_sentence(error)}") from error
        if not (self.model_of_checkpoint and self.config[self.command].get("ckpt_path")):
            self.model.import_extensions()
        training = self.command == "fit"
        size = self.datamodule.hparams["image_size"]
        told = rehearse(self.model, size, training=training)
        if training:
            device = type(self.trainer.accelerator).__name__.removesuffix("Accelerator")
            say(f"{told}; on {device}, precision {self.trainer.precision}")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give the callback that saves the configuration the portable text."""
        self.save_config_kwargs = {"content": self.config_dump, "run_dir": self.run_dir}
        trainer = super().instantiate_trainer(**kwargs)
        DeepMACCLI.running = trainer
        trainer.callbacks[:0] = [Resumption(), StopSignals()]  # type: ignore[attr-defined]
        if not has_checkpoint_files(trainer):
            trainer.strategy.checkpoint_io = CheckpointFiles()
        if isinstance(trainer.strategy, XLAReplicas):
            trainer.callbacks.append(FinalEvaluation())  # type: ignore[attr-defined]
        return trainer

    @property
    def evaluation(self) -> EvaluateCoco | None:
        """The callback that scores validations, where it was not switched off."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EvaluateCoco):
                return callback
        return None

    def after_fit(self) -> None:
        """Every training ends with one evaluation of its last weights, and its table."""
        evaluation = self.evaluation
        if any(c.received for c in self.trainer.callbacks if isinstance(c, StopSignals)):  # type: ignore
            raise SIGTERMException  # nothing but the evaluation is left to do
        self._say_what_time_left_undone()
        self._say_what_stopped_early()
        if evaluation is None or not self.trainer.limit_val_batches:
            return
        say(f"run directory: {os.path.relpath(self.run_dir)}")
        if isinstance(self.trainer.strategy, XLAReplicas):
            return  # its processes have done it
        if evaluation.step != self.trainer.global_step or self.config["fit"].trainer.fast_dev_run:
            self.trainer.validate(
                self.model, datamodule=self.datamodule, verbose=False, weights_only=True
            )
        elif self.trainer.is_global_zero:
            terminal.print(format_table(evaluation.metrics))

    def _say_what_time_left_undone(self) -> None:
        """Where ``max_time`` ended the training; it counts from the run's first start."""
        timers = [c for c in self.trainer.callbacks if isinstance(c, Timer)]  # type: ignore
        if timers and (timers[0].time_remaining() or 0) < 0:
            again = timedelta(seconds=round(timers[0].time_elapsed()))
            total = again + timedelta(seconds=time_limit(timers[0]))
            hours, seconds = divmod(total.seconds, 3600)
            text = f"{total.days:02d}:{hours:02d}:{seconds // 60:02d}:{seconds % 60:02d}"
            command = command_to_go_on(self.run_dir, {"trainer.max_time": text})
            step = self.trainer.global_step
            say(f"stopped by trainer.max_time, after step {step}; to go on: {command}")

    def _say_what_stopped_early(self) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.wait_count >= callback.patience:
                say(
                    f"stopped early: {callback.monitor} has not become better than "
                    f"{callback.best_score:.3f} in {callback.wait_count} validations"
                )

    def validate(self, **kwargs: Any) -> None:
        """Our table replaces Lightning's list of values."""
        self.trainer.validate(**{**kwargs, "verbose": False})

    def test(self, **kwargs: Any) -> None:
        """As validate."""
        self.trainer.test(**{**kwargs, "verbose": False})

    def predict(self, **kwargs: Any) -> None:
        """Predictions are written by a callback, not held in memory."""
        self.trainer.predict(**{**kwargs, "return_predictions": False})


def _interrupted(
    error: BaseException, command: str, trainer: Trainer | None, run_dir: Path
) -> BaseException:
    """What a signal stopped, in one sentence, and how it goes on."""
    callbacks = [] if trainer is None else trainer.callbacks  # type: ignore[attr-defined]
    heard = [c.received for c in callbacks if isinstance(c, StopSignals) and c.received]
    number = heard[0] if heard else signal_behind(error)
    if not number:
        number = signal.SIGTERM if isinstance(error, SIGTERMException) else 0
    if not number:
        return error
    code = 128 + number
    if trainer is None or not trainer.is_global_zero:
        return Interrupted("" if trainer else f"stopped by {name_of(number)}", code)
    last = [c for c in callbacks if isinstance(c, LastCheckpoint)]
    if command != "fit" or not last or last[0].path is None or not last[0].path.is_file():
        return Interrupted(f"stopped by {name_of(number)}; nothing was saved", code)
    step = trainer.global_step
    state = f"after step {step}, saved in" if last[0].is_of(step) else "an earlier step is in"
    return Interrupted(
        f"stopped by {name_of(number)}, {state} {last[0].path}; to go on: "
        f"{command_to_go_on(run_dir)}",
        code,
    )


def _peer_lost(trainer: Trainer | None, run_dir: Path) -> str:
    """One sentence for those that are left."""
    text = "another process of this run ended or cannot be reached (its own output says why)"
    last = [c.path for c in trainer.callbacks if isinstance(c, LastCheckpoint)] if trainer else []  # type: ignore
    if last and last[0] is not None and last[0].is_file():
        text += f"; {last[0]} is whole; to go on: {command_to_go_on(run_dir)}"
    return text


class SaveFlatConfig(SaveConfigCallback):
    """``config.yaml`` of a run directory: runs again with ``deepmac fit --config``."""

    def __init__(
        self,
        parser: LightningArgumentParser,
        config: Namespace,
        content: dict[str, Any],
        run_dir: Path,
    ) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.content = content
        self.path = run_dir / "config.yaml"

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Written by the first replica, for training runs alone."""
        if stage == "fit":
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, yaml.safe_dump(self.content, sort_keys=False))
