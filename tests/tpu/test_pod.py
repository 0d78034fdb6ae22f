"""The way of a TPU host: replicas in processes that the run starts, here one of them.

torch_xla gives such a process one device on a CPU, so that all of it is tried but the second
replica; `docs/tpu.md` names what only a real slice can show.
"""

import csv
import json
import signal
import time

import pytest
import torch

HOST = ("trainer=tpu_pod", "trainer.accelerator.class_path=probe.Host", "trainer.precision=32-true")
ACCUMULATED = (
    "trainer.accumulate_grad_batches=2",
    "trainer.gradient_clip_val=1.0",
    "trainer.num_sanity_val_steps=0",
    "trainer.log_every_n_steps=1",
    "model.lr=2e-5",
    "model.warmup_start_lr=2e-5",
    "model.adam_epsilon=1e-3",
)
DATA = ("data.shapes_train=16", "data.shapes_val=4", "data.shapes_size=64")


def test_replicas__train_and_evaluate_the_last_weights_within_their_processes(run):
    words = (*DATA, "trainer.max_epochs=-1", "trainer.max_steps=3", *ACCUMULATED)
    done = run("pod", "fit", *words, *HOST).finish()
    metrics = json.loads((done.folder / "metrics.json").read_text())
    assert metrics["step"] == 3 and metrics["images"] == 4
    with (done.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row["train/loss"] for row in rows) and rows[-1]["step"] == "3"
    content = torch.load(done.folder / "checkpoints/last.ckpt", weights_only=True)
    assert content["global_step"] == 3 and content["state_dict"]
    assert "Masks from ground-truth boxes" in done.said
    cpu = ("trainer=cpu", "model.crop_impl=separable", "callbacks.probe=null")
    alone = run("pod_cpu", "fit", *words, *cpu).finish()
    assert done.losses() == pytest.approx(alone.losses(), rel=1e-4)


def test_sigterm__makes_the_replicas_stop_after_the_same_step_and_save_it(run):
    words = (*DATA, *HOST, "trainer.max_epochs=1000", "trainer.check_val_every_n_epoch=1000")
    stopped = run("sigterm", "fit", *words, "trainer.num_sanity_val_steps=0")
    process = stopped.start()
    deadline = time.monotonic() + 400
    while not stopped.probe.exists() or len(stopped.noted("train")) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=100)
    content = torch.load(stopped.folder / "checkpoints/last.ckpt", weights_only=True)
    assert content["global_step"] == stopped.noted("train")[-1]["step"] < 4000, said
