"""Composes the Hydra tree in ``conf/`` outside of ``train.py``, without touching global state."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from deepmac.errors import ConfigError
from deepmac.lightning.overrides import prepared
from deepmac.lightning.renamed import check_words

RUN_DIR_VARIABLE = "DEEPMAC_RUN_DIR"


def config_tree() -> Path:
    """The folder ``conf/``: beside the package when installed, else in the checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise ConfigError(f"the settings folder conf/ is missing beside {package}: reinstall deepmac")


def take_config_dir(arguments: Sequence[str]) -> tuple[list[str], list[Path]]:
    """The arguments without ``--config-dir DIR``, and these folders of settings.

    Raises:
        ConfigError: a folder that is not there.
    """
    rest: list[str] = []
    folders: list[Path] = []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in ("--config-dir", "-cd"):
            rest.append(word)
            continue
        folder = Path(os.path.expanduser(value if equals else next(words, ""))).absolute()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder}: no such folder")
        folders.append(folder)
    return rest, folders


def compose(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> tuple[DictConfig, Path]:
    """The configuration of some overrides, and the run directory it names.

    Args:
        overrides: of Hydra's grammar; see :func:`~deepmac.lightning.overrides.prepared`.
        config_dirs: folders with groups and choices beside ours.

    Raises:
        ConfigError: an override names something that the tree does not have.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    check_words(overrides)
    words = prepared(overrides)
    if config_dirs:
        found = ", ".join(f"'file://{folder}'" for folder in config_dirs)
        words.append(f"hydra.searchpath=[{found}]")
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(config_tree())):
            config = hydra_compose("train", overrides=words, return_hydra_config=True)
        # Interpolations below `hydra` look here; Lightning must not, so it is emptied again.
        HydraConfig.instance().set_config(config)
        try:
            directory = run_directory(config.hydra.run.dir)
        finally:
            HydraConfig.instance().cfg = None
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_sentence(error)) from error
    with open_dict(config):
        del config["hydra"]
    return config, directory


def run_directory(named: str | None) -> Path:
    """Where the run writes; processes that this one starts share it."""
    named = os.environ.get(RUN_DIR_VARIABLE) or named
    named = named or f"runs/{datetime.now():%Y-%m-%d_%H-%M-%S}"
    directory = Path(named).absolute()
    os.environ[RUN_DIR_VARIABLE] = str(directory)
    return directory


def lightning_config(config: DictConfig) -> dict[str, Any]:
    """Plain LightningCLI configuration of a composed tree.

    Callbacks and loggers are dicts in the tree, because dicts merge; here they are the lists
    that the trainer takes, without the ones set to null.
    """
    from omegaconf.errors import OmegaConfBaseException

    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_sentence(error)) from error
    assert isinstance(plain, dict)
    content = {str(key): value for key, value in plain.items()}
    for name in ("callbacks", "logger"):
        del content[name]
        entries = content["trainer"][name] or []
        if not isinstance(entries, list):
            raise ConfigError(f"trainer.{name} is made of the group {name}: set {name}.NAME=...")
        chosen = [entry for entry in entries if entry is not None]
        content["trainer"][name] = chosen or ([] if name == "callbacks" else False)
    return content


def _sentence(error: Exception) -> str:
    """A Hydra message on one line, without its hints about Python objects."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("full_key", "object_type", "Set the"))]
    return " ".join(useful)
