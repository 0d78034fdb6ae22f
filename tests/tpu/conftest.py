"""Runs of the product on XLA: each in a process of its own, whose counters are its own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
TINY = (
    "data.image_size=64",
    "data.batch_size=4",
    "data.val_batch_size=3",
    "data.num_workers=0",
    "data.max_boxes=6",
    "model.backbone=hourglass_tiny2",
    "model.weights=null",
    "model.head_channels=8",
    "mask_head=resnet4",
    "model.num_init_channels=4",
    "model.max_detections=4",
    "trainer.log_every_n_steps=2",
    "callbacks.best=null",
    "callbacks.pictures=null",
)
"""A Deep-MAC that compiles within seconds."""

UNCOMPILED = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""The same graphs, made into slower code sooner."""


def pytest_collection_modifyitems(items):
    if importlib.util.find_spec("torch_xla") is None:
        reason = "torch_xla is not in this environment: `make test-tpu` runs these tests"
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


def environment(cache):
    kept = {k: v for k, v in os.environ.items() if k != "DEEPMAC_RUN_DIR"}
    places = [str(HERE), str(HERE.parent), *filter(None, [kept.get("PYTHONPATH")])]
    return {
        **kept,
        "PJRT_DEVICE": "CPU",
        "XLA_FLAGS": UNCOMPILED,
        "PYTHONPATH": os.pathsep.join(places),
        "DEEPMAC_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }


class Run:
    """One command: where it ran, what it said, and what the probe noted.

    ``command`` is that of ``deepmac``, with ``fit`` through train.py.
    """

    def __init__(self, folder, cache, command, *words):
        self.folder, self.probe = Path(folder), Path(folder).with_suffix(".probe")
        start = [str(REPOSITORY / "train.py")] if command == "fit" else ["-m", "deepmac", command]
        self.command = [
            sys.executable,
            *start,
            "experiment=shapes",
            *TINY,
            f"hydra.run.dir={folder}",
            "+callbacks.probe.class_path=probe.Probe",
            *words,
        ]
        self.environment = {**environment(cache), "PROBE_FILE": str(self.probe)}

    def start(self):
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            self.command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, code=0):
        process = self.start()
        self.said = process.communicate(timeout=500)[0]
        assert process.returncode == code, self.said[-3000:]
        return self

    def noted(self, *phases):
        lines = [json.loads(line) for line in self.probe.read_text().splitlines()]
        return [line for line in lines if line["phase"] in phases]

    def losses(self):
        """By optimizer step."""
        import csv

        with (self.folder / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row.get("train/loss")]
        return {int(row["step"]): float(row["train/loss"]) for row in rows}


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def run(tmp_path_factory, cache):
    """``run(name, command, *words)``: made, not yet started."""
    folder = tmp_path_factory.mktemp("runs")
    return lambda name, command, *words: Run(folder / name, cache, command, *words)


@pytest.fixture
def case(cache):
    """Call a function of cases.py in a process of its own."""

    def call(name, **variables):
        done = subprocess.run(
            [sys.executable, "-c", f"import cases; cases.{name}()"],
            env={**environment(cache), **variables},
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    return call
