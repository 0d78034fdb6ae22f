"""A training that was interrupted and resumed is the training that was not."""

import csv
import random
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch

from tiny import TINY, environment, run, train_py

WORDS = (
    *(w for w in TINY if not w.startswith(("data.batch_size", "trainer.max_epochs"))),
    "data.batch_size=2",
    "data.num_workers=1",
    "trainer.max_epochs=3",
    "callbacks.last.init_args.every_n_train_steps=1",
)
STEPS = 24

TIMES = ("train/seconds_per_step", "train/data_wait")


def losses(run_dir):
    path = run_dir / "metrics.csv"
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/loss")]
    return {int(row["step"]): row["train/loss"] for row in rows}


def table(run_dir):
    """All rows but for times."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if v and k not in TIMES} for row in rows]


def weights(run_dir, name):
    path = run_dir / "checkpoints" / f"{name}.ckpt"
    content = torch.load(path, map_location="cpu", weights_only=True)
    return content["global_step"], content["state_dict"]


def assert_same_run(one, other):
    assert table(one) == table(other)
    for name in ("last", "best"):
        (step, state), (other_step, other_state) = weights(one, name), weights(other, name)
        assert step == other_step
        assert all(torch.equal(value, other_state[key]) for key, value in state.items())
    left = {path.name for path in (other / "checkpoints").iterdir()}
    assert left == {"last.ckpt", "best.ckpt"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def uninterrupted(folder):
    done = run(train_py(*WORDS, "hydra.run.dir=whole"), cwd=folder, cache=folder / "cache")
    assert done.returncode == 0, done.stderr[-3000:]
    curve = losses(folder / "whole")
    assert sorted(curve) == list(range(STEPS))
    return curve


def interrupt(folder, name, how, at, words=WORDS):
    """Start a run, send it ``how`` once ``at`` steps are logged; its exit status and last words."""
    said = folder / f"{name}.txt"
    with said.open("w") as file:
        process = subprocess.Popen(
            train_py(*words, f"hydra.run.dir={name}"),
            cwd=folder,
            env=environment(folder / "cache"),
            stdout=subprocess.DEVNULL,
            stderr=file,
        )
    while process.poll() is None and len(losses(folder / name)) < at:
        time.sleep(0.02)
    process.send_signal(how)
    return process.wait(timeout=120), said.read_text()


def command_that_goes_on(said):
    """As it is printed, with the Python of these tests."""
    (command,) = re.findall(r"to go on: python (.* ckpt_path=last)$", said, re.M)
    return [sys.executable, *shlex.split(command)]


@pytest.mark.parametrize(
    ("how", "status"),
    [
        pytest.param(signal.SIGTERM, 143, id="SIGTERM", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, id="Ctrl-C", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, id="kill-9"),
    ],
)
def test_interrupted_and_resumed__gives_the_same_curve(folder, uninterrupted, how, status, request):
    generator = random.Random(int(how))
    for number in range(request.config.getoption("--kills")):
        name = f"{how.name}_{number}"
        at = generator.randint(2, STEPS - 8)
        code, said = interrupt(folder, name, how, at=at)
        assert code == status
        again = train_py(*WORDS, f"hydra.run.dir={name}", "ckpt_path=last")
        if how != signal.SIGKILL:
            again = command_that_goes_on(said)
        done = run(again, cwd=folder, cache=folder / "cache")
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stderr == "", "nobody warns that a loader is not resumable: it is"
        assert losses(folder / name) == uninterrupted
        assert_same_run(folder / "whole", folder / name)


@pytest.mark.slow
def test_an_averaged_teacher__has_after_a_kill_the_masks_that_it_would_have_given(folder):
    words = (*WORDS, "callbacks=averaged_teacher", "model.detector=false", "model.min_score=0.9")
    words += tuple(
        f"callbacks.averaged_teacher.init_args.{name}={steps}"
        for name, steps in (("warmup_start", 2), ("warmup_steps", 4))
    )
    runs = {}
    for name, more in (("taught", ()), ("untaught", ("callbacks.averaged_teacher=null",))):
        done = run(
            train_py(*words, *more, f"hydra.run.dir={name}"), cwd=folder, cache=folder / "cache"
        )
        assert done.returncode == 0, done.stderr[-3000:]
        runs[name] = losses(folder / name)
    same = [step for step in runs["taught"] if runs["taught"][step] == runs["untaught"][step]]
    assert same == [0, 1, 2], "from the third step on objects without a mask have one"
    code, _ = interrupt(folder, "taught_killed", signal.SIGKILL, at=9, words=words)
    assert code == -9
    again = train_py(*words, "hydra.run.dir=taught_killed", "ckpt_path=last")
    done = run(again, cwd=folder, cache=folder / "cache")
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(folder / "taught_killed") == runs["taught"]
    assert_same_run(folder / "taught", folder / "taught_killed")
