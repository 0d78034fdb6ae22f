"""Two processes train together; one is killed: the other says so, and the run goes on exactly."""

import csv
import os
import signal
import subprocess
import time

import pytest
import torch

from tiny import TINY, environment, run, train_py

WORDS = (
    *(w for w in TINY if not w.startswith(("data.batch_size", "trainer.max_epochs"))),
    "data.batch_size=2",
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "trainer.devices=2",
    "trainer.sync_batchnorm=false",
    "trainer.max_epochs=4",
    "callbacks.last.init_args.every_n_train_steps=1",
    "logger.tensorboard=null",
    "callbacks.pictures=null",
)

TIMES = ("train/seconds_per_step", "train/data_wait")


def rows(run_dir):
    path = run_dir / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if v and k not in TIMES} for row in found]


def children(process):
    path = f"/proc/{process.pid}/task/{process.pid}/children"
    with open(path) as file:
        return [int(word) for word in file.read().split()]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_killed_replica__the_other_ends_with_a_sentence_and_resume_is_exact(tmp_path, victim):
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("finding the second process takes /proc")
    cache = tmp_path / "cache"
    done = run(train_py(*WORDS, "hydra.run.dir=whole"), cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr[-3000:]
    said = tmp_path / "said.txt"
    with said.open("w") as file:
        process = subprocess.Popen(
            train_py(*WORDS, "hydra.run.dir=killed"),
            cwd=tmp_path,
            env=environment(cache),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None and len(rows(tmp_path / "killed")) < 10:
            time.sleep(0.05)
        second = children(process)[0]
        os.kill((process.pid, second)[victim], signal.SIGKILL)
        start = time.monotonic()
        process.wait(timeout=60)
        while victim == 0 and os.path.exists(f"/proc/{second}") and time.monotonic() < start + 60:
            time.sleep(0.1)
    assert time.monotonic() - start < 60
    assert "deepmac: another process of this run ended" in said.read_text()
    assert "Traceback" not in said.read_text()
    again = train_py(*WORDS, "hydra.run.dir=killed", "ckpt_path=last")
    done = run(again, cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr[-3000:]
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    ours, theirs = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("killed", "whole")
    )
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
