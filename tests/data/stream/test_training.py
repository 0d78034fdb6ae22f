"""Trainings from chunks, on a disk and in an object store: killed, resumed, on two processes."""

import csv
import json
import os
import random
import signal
import subprocess
import time

import numpy as np
import pytest
import torch

from deepmac.data.stream.shard import Sharding, shard
from tiny import TINY, environment, run, train_py

WORDS = (
    *(w for w in TINY if not w.startswith(("data.batch_size", "data.shapes"))),
    "experiment=shapes",
    "data.source=stream",
    "data.batch_size=2",
    "data.num_workers=1",
    "trainer.max_epochs=3",
    "callbacks.last.init_args.every_n_train_steps=1",
    "callbacks.pictures=null",
    "logger.tensorboard=null",
)
TIMES = ("train/seconds_per_step", "train/data_wait")
SEEN = (
    "+callbacks.seen.class_path=seen_images.SeenImages",
    "+callbacks.seen.init_args.folder=seen",
)


def table(run_dir):
    path = run_dir / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if v and k not in TIMES} for row in rows]


def losses(run_dir):
    return [float(row["train/loss"]) for row in table(run_dir) if "train/loss" in row]


def state(run_dir):
    path = run_dir / "checkpoints/last.ckpt"
    return torch.load(path, map_location="cpu", weights_only=True)["state_dict"]


def assert_same_run(one, other):
    assert table(one) == table(other)
    ours, theirs = state(one), state(other)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def train(cwd, *words, code=0):
    done = run(train_py(*WORDS, *words), cwd=cwd, cache=cwd / "cache")
    assert done.returncode == code, done.stderr[-3000:]
    return done


def killed_and_resumed(cwd, root, kills, seed):
    """Kill a training at random moments of its process's life until it has been through them."""
    draw = random.Random(seed)
    for _ in range(kills):
        words = (f"data.root={root}", "hydra.run.dir=killed")
        began = (cwd / "killed/checkpoints/last.ckpt").exists()
        process = subprocess.Popen(
            train_py(*WORDS, *words, *(["ckpt_path=last"] if began else [])),
            cwd=cwd,
            env=environment(cwd / "cache"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        before = len(losses(cwd / "killed"))
        more = draw.randint(1, 3)
        while process.poll() is None and len(losses(cwd / "killed")) < before + more:
            time.sleep(0.02)
        time.sleep(draw.random() * 0.3)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    train(cwd, *words, "ckpt_path=last")


def test_training__goes_through_train_validate_and_predict(chunks, tmp_path):
    root = f"data.root={chunks}"
    train(tmp_path, root, "hydra.run.dir=run", "trainer.max_epochs=1")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["images"] == metrics["images_in_data_set"] == 7
    for command in ("validate", "predict"):
        words = ("data=coco", "data.source=stream", root, "data.image_size=64",
                 "data.num_workers=0", "trainer=cpu", f"hydra.run.dir={command}",
                 "ckpt_path=run/checkpoints/last.ckpt")  # fmt: skip
        done = run(
            [*train_py()[:1], "-m", "deepmac", command, *words],
            cwd=tmp_path,
            cache=tmp_path / "cache",
        )
        assert done.returncode == 0, done.stderr[-2000:]
    again = json.loads((tmp_path / "validate/metrics.json").read_text())
    assert again["mask"] == metrics["mask"]
    assert (tmp_path / "predict/predictions.json").is_file()


@pytest.mark.slow
def test_another_order__is_refused_at_resumption(chunks, tmp_path):
    root = f"data.root={chunks}"
    train(tmp_path, root, "hydra.run.dir=run", "trainer.max_steps=3", "data.num_workers=0")
    words = (root, "hydra.run.dir=run", "ckpt_path=last", "data.stream_lanes=5")
    said = train(tmp_path, *words, code=1).stderr
    assert "written with data.stream_lanes=" in said and "Traceback" not in said


@pytest.mark.slow
def test_fifty_steps__learn_as_from_the_folder(folder, chunks, tmp_path):
    """The same seeds, but another order of the pictures.

    Three orders of one set (``data.stream_lanes`` of 1, 2 and 3) lie up to 4 % apart in the mean
    of a half, and a factor of 1.4 in its spread: twice as far apart in the mean, and 1.6 times in
    the spread, is what two good runs may be.
    """
    words = ("trainer.max_epochs=3", "trainer.max_steps=50")
    train(tmp_path, f"data.root={chunks}", "hydra.run.dir=stream", *words)
    coco = ("data.source=coco", f"data.root={folder}")
    train(tmp_path, *coco, "hydra.run.dir=folder", *words)
    ours, theirs = (np.array(losses(tmp_path / name)) for name in ("stream", "folder"))
    assert len(ours) == len(theirs) == 50
    for some in (slice(0, 25), slice(25, 50)):
        assert ours[some].mean() == pytest.approx(theirs[some].mean(), rel=0.08)
        assert ours[some].std() == pytest.approx(theirs[some].std(), rel=0.6)


@pytest.mark.slow
def test_killed_ten_times__is_the_run_that_was_not(chunks, tmp_path):
    train(tmp_path, f"data.root={chunks}", "hydra.run.dir=whole")
    killed_and_resumed(tmp_path, chunks, kills=10, seed=17)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_object_store__gives_the_folders_run_and_survives_kills(chunks, bucket, tmp_path):
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).put(str(chunks), f"{bucket}/set", recursive=True)
    train(tmp_path, f"data.root={chunks}", "hydra.run.dir=whole")
    killed_and_resumed(tmp_path, f"{bucket}/set", kills=10, seed=18)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    kept = sum(p.stat().st_size for p in (tmp_path / "cache/chunks").rglob("*.chunk"))
    assert 0 < kept < 16e9


@pytest.mark.slow
def test_two_processes__see_each_image_once_and_one_process_goes_on(chunks, tmp_path, monkeypatch):
    """Two gloo processes for an epoch and a half, then one: 42 images are 10 batches of 4."""
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__), prepend=os.pathsep)
    two = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2",
           "trainer.sync_batchnorm=false", "data.batch_size=2")  # fmt: skip
    words = (f"data.root={chunks}", "hydra.run.dir=run", *SEEN)
    train(tmp_path, *words, *two, "trainer.max_steps=15")
    one = ("data.batch_size=4", "trainer.max_epochs=2", "ckpt_path=last")
    train(tmp_path, *words, *one)
    lines = [
        json.loads(line)
        for path in sorted((tmp_path / "seen").iterdir())
        for line in path.read_text().splitlines()
    ]
    seen = {}
    for line in lines:
        key = "train" if line["phase"] == "train" else (line["run"], line["epoch"])
        seen.setdefault(key, []).extend((line["epoch"], image) for image in line["ids"])
    trained = seen.pop("train")
    assert len(trained) == len(set(trained)) == 80
    assert {line["rank"] for line in lines} == {0, 1}
    assert len(seen) >= 2
    for validated in seen.values():
        assert len(validated) == len(set(validated)) == 7


@pytest.mark.slow
def test_store_that_fails__is_asked_again_then_one_sentence_and_a_checkpoint(
    object_store, sets, bucket, tmp_path
):
    import s3fs

    chunks = tmp_path / "chunks"  # twice as many as the cache has room for
    shard(sets, str(chunks), Sharding(chunk_mb=0.008), source="the tests")
    s3fs.S3FileSystem(skip_instance_cache=True).put(str(chunks), f"{bucket}/set", recursive=True)
    # Room for a few chunks only, so that the run needs the store all the time.
    words = (f"data.root={bucket}/set", "hydra.run.dir=run", "data.cache_gb=0.00009",
             "data.stream_lanes=1", "trainer.max_epochs=200", "data.num_workers=1")  # fmt: skip
    process = subprocess.Popen(
        train_py(*WORDS, *words),
        cwd=tmp_path,
        env={**environment(tmp_path / "cache"), "DEEPMAC_PATIENCE": "3"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and len(losses(tmp_path / "run")) < 12:
        time.sleep(0.05)
    object_store.stop()
    try:
        said = process.communicate(timeout=240)[1]
    finally:
        process.kill()
        object_store.start()
    assert process.returncode == 1, said[-3000:]
    assert "; again in 0.5 s" in said and "has not answered for 3 s" in said
    assert "Traceback" not in said
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] >= 12
