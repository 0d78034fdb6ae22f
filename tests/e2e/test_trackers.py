"""Weights & Biases and MLflow without a network: where they write, and that nobody warns."""

import os
import re

import pytest

from tiny import TINY, run, train_py

TABLE = re.compile("[│├└┃┏┡]")


def go(place, *words, **changes):
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        return run(train_py(*TINY, "hydra.run.dir=run", *words), cwd=place, cache=place / "cache")
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.slow
def test_wandb__offline_writes_into_the_run_directory_without_a_warning(tmp_path):
    pytest.importorskip("wandb", reason="needs deepmac[wandb]")
    done = go(tmp_path, "logger=wandb", WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "warn" not in (done.stdout + done.stderr).lower()
    (kept,) = (tmp_path / "run/wandb").glob("offline-run-*/*.wandb")
    assert kept.stat().st_size > 1000
    content = kept.read_bytes()
    assert b"train/loss" in content and b"mask/AP/all" in content
    assert not list(tmp_path.glob("wandb")), "nothing beside the run"
    assert f"wandb sync {kept.parent}" in re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)


@pytest.mark.slow
def test_wandb__that_does_not_know_who_asks_is_a_sentence(tmp_path):
    pytest.importorskip("wandb", reason="needs deepmac[wandb]")
    home = tmp_path / "home"
    home.mkdir()
    done = go(tmp_path, "logger=wandb", HOME=str(home), WANDB_MODE="online", WANDB_API_KEY="")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("deepmac: logger=wandb: ") and "WANDB_MODE=offline" in last


@pytest.mark.slow
def test_mlflow__without_a_server_writes_into_the_run_directory_without_a_word(tmp_path):
    pytest.importorskip("mlflow", reason="needs deepmac[mlflow]")
    done = go(tmp_path, "logger=mlflow")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""
    said = [line for line in done.stdout.splitlines() if not TABLE.match(line)]
    assert not any("mlflow" in line.lower() or "xperiment" in line for line in said)
    for name in ("train/loss", "mask/AP/all"):
        assert list((tmp_path / "run/mlflow").glob(f"*/*/metrics/{name}")), name
    assert not list(tmp_path.glob("mlruns*")), "nothing beside the run"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_tracker__that_is_not_installed_is_a_sentence(name, monkeypatch):
    from deepmac.errors import ConfigError
    from deepmac.lightning import trackers

    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    path = {"wandb": "WandB", "mlflow": "MLflow"}[name]
    with pytest.raises(ConfigError, match=rf"logger={name} needs {name}: pip install 'deepmac\["):
        trackers.check_installed(f"deepmac.lightning.trackers.{path}")
    trackers.check_installed("pytorch_lightning.loggers.CSVLogger")
