"""The command line ``deepmac``, and what ``train.py`` runs.

Hydra composes ``conf/``; the result is a LightningCLI configuration; LightningCLI alone builds
objects. Both doors end in :func:`deepmac.lightning.cli.run`.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from deepmac.errors import ConfigError
from deepmac.guard import guarded

if TYPE_CHECKING:
    from omegaconf import DictConfig

_HELP = """\
usage: deepmac COMMAND [group=choice] [key.path=value] ...

Deep-MAC: boxes for all classes, masks for some, good masks for every class.

commands
  fit         train, then evaluate          deepmac fit experiment=custom data.root=DIR
  validate    evaluate a checkpoint         deepmac validate experiment=... ckpt_path=last.ckpt
  test        the same on the test json
  predict     write a COCO results json     deepmac predict ... data.predict_json=FILE
  check-data  look at a data set            deepmac check-data data.root=DIR split=voc_to_nonvoc
  shard       chunks to stream from         deepmac shard data.root=DIR --out DIR|s3://...
  convert     published weights to ours     deepmac convert CHECKPOINT --out DIR
  label       boxes in, masks out           deepmac label --model M --images DIR --boxes B --out OUT
  boxes       boxes as Parquet tables       deepmac boxes B --to parquet --out DIR
  masks       Parquet tables as files       deepmac masks DIR --to coco --out OUT
  export      a model as ONNX or torch      deepmac export MODEL --format onnx --out DIR
  demo        draw boxes, see masks         deepmac demo --model M
  settings    groups and their choices      deepmac settings experiment
  study       table of a sweep of heads     deepmac study runs/mask_head_study
  report      runs on one page              deepmac report RUN [RUN ...]

settings come from a Hydra tree (`deepmac settings`; your own choices: --config-dir DIR; a sweep:
deepmac fit -m model.lr=1e-3,5e-4), or from one flat file:
  deepmac fit experiment=custom --print_config > run.yaml
  deepmac fit --config run.yaml --trainer.max_epochs=1
`deepmac COMMAND --help` lists every setting.
"""

_TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
_GO_ON = " (or choose another hydra.run.dir), then go on with ckpt_path=last"
_TOOLS = {
    "convert": "deepmac.convert",
    "label": "deepmac.label.command",
    "boxes": "deepmac.label.cluster.to_parquet",
    "masks": "deepmac.label.cluster.from_parquet",
    "export": "deepmac.export",
    "demo": "deepmac.demo",
    "settings": "deepmac.lightning.choices",
    "study": "deepmac.study.__main__",
    "report": "deepmac.report",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the ``deepmac`` command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _print_anything()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_HELP, end="")
        return 0
    if arguments[0] == "--version":
        from deepmac import __version__

        print(__version__)
        return 0
    command, rest = arguments[0], arguments[1:]
    if command in _TRAINER_COMMANDS:
        return guarded(lambda: _trainer_command(command, rest), go_on=_GO_ON)
    if command == "check-data":
        return guarded(lambda: _check_data(rest))
    if command == "shard":
        return guarded(lambda: _shard(rest), go_on="; start again to go on")
    if command in _TOOLS:
        return guarded(lambda: _tool(command, rest))
    known = ", ".join((*_TRAINER_COMMANDS, "check-data", "shard", *_TOOLS))
    close = get_close_matches(command, (*_TRAINER_COMMANDS, "check-data", "shard", *_TOOLS), 1)
    meant = f"did you mean {close[0]}? " if close else ""
    print(f"deepmac: no command {command!r}; {meant}There are {known}", file=sys.stderr)
    return 2


def _print_anything() -> None:
    """A name in a file may hold what no terminal can show: it is printed as its escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def words_for_hydra(words: Sequence[str]) -> list[str]:
    """``train.py``'s arguments, paths quoted; ends the process where one has an old name."""
    from deepmac.lightning.overrides import prepared
    from deepmac.lightning.renamed import check_words

    ready: list[str] = []

    def job() -> int:
        check_words(words)
        ready.extend(prepared(words))
        return 0

    if code := guarded(job):
        sys.exit(code)
    return ready


def train(config: DictConfig) -> float | None:
    """``train.py``: run ``fit`` on a configuration that Hydra composed."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from deepmac.lightning.compose import lightning_config

    value: list[float | None] = []

    def job() -> int:
        flat, hydra = lightning_config(config), HydraConfig.get()
        run_dir = hydra.runtime.output_dir
        _announce("fit", run_dir)
        from deepmac.lightning.cli import run
        from deepmac.lightning.finished import finished_value

        if hydra.mode == RunMode.MULTIRUN and flat["ckpt_path"] == "last":
            done = finished_value(run_dir, flat)
            if done is not None:
                print(f"done already: {run_dir}", flush=True)
                value.append(done)
                return 0
        value.append(run("fit", flat, [], run_dir))
        return 0

    code = guarded(job, go_on=_GO_ON)
    if code:
        sys.exit(code)
    return value[0]


def _trainer_command(command: str, arguments: list[str]) -> int:
    """Words with a leading dash go to LightningCLI, the others to Hydra."""
    from deepmac.lightning.compose import (
        compose,
        lightning_config,
        run_directory,
        take_config_dir,
    )
    from deepmac.lightning.going_on import remember_command

    remember_command(["deepmac", command, *arguments])
    if command == "fit" and {"-m", "--multirun"} & set(arguments):
        return _sweep(arguments)
    arguments, config_dirs = take_config_dir(arguments)
    overrides, options = _sort(arguments)
    if any(option == "--config" or option.startswith(("--config=", "-c")) for option in options):
        if overrides:
            raise ConfigError(
                f"--config FILE is a whole configuration: give changes as --key.path=value, not "
                f"as the override {overrides[0]!r}"
            )
        run_dir = run_directory(None)
        _announce(command, run_dir, options)
        from deepmac.lightning.cli import run

        run(command, None, options, run_dir)
        return 0
    config, run_dir = compose(overrides, config_dirs)
    flat = lightning_config(config)
    _announce(command, run_dir, options)
    from deepmac.lightning.cli import run

    chosen = ("model", "experiment", "backbone", "mask_head")
    own_model = any(
        word.lstrip("+~").split("=")[0].split(".")[0].split("@")[0] in chosen for word in overrides
    )
    run(command, flat, options, run_dir, model_of_checkpoint=not own_model)
    return 0


def _announce(command: str, run_dir: Any, options: Sequence[str] = ()) -> None:
    """The first line, before the seconds that loading PyTorch takes; once for all processes."""
    asks = any(option in ("-h", "--help") or "print_config" in option for option in options)
    if not asks and os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"{command}, into {os.path.relpath(run_dir)}", flush=True)


def _sweep(arguments: Sequence[str]) -> int:
    """As ``python train.py -m``, for those who have no ``train.py``."""
    import hydra

    from deepmac.lightning.compose import config_tree

    sys.argv[1:] = words_for_hydra(arguments)
    hydra.main(version_base="1.3", config_path=str(config_tree()), config_name="train")(train)()
    return 0


def _check_data(arguments: list[str]) -> int:
    from deepmac.check_data.check import check_data, print_report
    from deepmac.lightning.compose import compose, take_config_dir

    arguments, config_dirs = take_config_dir(arguments)
    overrides, options = _sort(arguments)
    if options:
        raise ConfigError(f"check-data takes no option {options[0]!r}; settings are key=value")
    if not any(word.startswith(("data=", "experiment=")) for word in overrides):
        overrides = ["experiment=custom", *overrides]
    config, run_dir = compose(overrides, config_dirs)
    report = check_data(config.data, run_dir)
    print_report(report)
    return 1 if report.problems else 0


def _shard(arguments: list[str]) -> int:
    from deepmac.data.stream.command import command, read_options
    from deepmac.lightning.compose import compose, take_config_dir

    options, words = read_options(arguments)
    words, config_dirs = take_config_dir(words)
    if not any(word.startswith(("data=", "experiment=")) for word in words):
        words = ["experiment=custom", *words]
    config, _ = compose(words, config_dirs)
    return command(options, config.data)


def _tool(name: str, arguments: list[str]) -> int:
    """A command with options of its own: the function ``command`` of its module."""
    from importlib import import_module

    code: int = import_module(_TOOLS[name]).command(arguments)
    return code


def _sort(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Hydra overrides, and LightningCLI options with the values that follow them."""
    overrides: list[str] = []
    options: list[str] = []
    takes_value = False
    for word in arguments:
        if word.startswith("-"):
            options.append(word)
            flag = word in ("-h", "--help") or word.startswith("--print_config")
            takes_value = "=" not in word and not flag
        elif takes_value:
            options.append(word)
            takes_value = False
        else:
            overrides.append(word)
    return overrides, options
