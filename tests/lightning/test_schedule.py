"""The learning rate of the original configs."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from deepmac.class_map import ClassMap
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.lightning.optim.schedule import learning_rate_factor

OFFICIAL = {"total_steps": 50_000, "warmup_steps": 5000, "warmup_factor": 0.25}


def test_schedule__warms_up_then_falls_to_zero():
    assert learning_rate_factor(0, **OFFICIAL) == 0.25
    assert learning_rate_factor(2500, **OFFICIAL) == 0.625
    assert learning_rate_factor(5000, **OFFICIAL) == 1.0
    assert learning_rate_factor(27_500, **OFFICIAL) == pytest.approx(0.5)
    assert learning_rate_factor(50_000, **OFFICIAL) == pytest.approx(0)


def test_schedule__an_endless_run_stays_at_the_peak():
    assert learning_rate_factor(10**6, **{**OFFICIAL, "total_steps": math.inf}) == 1.0
    assert learning_rate_factor(49_000, **OFFICIAL, shape="constant") == 1.0


def test_schedule__follows_the_clock_where_time_is_what_ends_the_run():
    """An endless run of a given time: the cosine falls by the share that has gone by."""
    endless = partial(
        learning_rate_factor, total_steps=math.inf, warmup_steps=10, warmup_factor=0.1
    )
    assert endless(5, time_share=0.01) == pytest.approx(0.55)  # the warm-up counts steps
    assert [endless(10_000, time_share=s) for s in (0.0, 0.5, 1.0)] == pytest.approx([1, 0.5, 0])
    both = partial(endless, total_steps=110)
    assert both(60, time_share=0.1) == pytest.approx(0.5)  # whichever ends sooner
    assert both(20, time_share=0.9) == endless(20, time_share=0.9)


def test_against_tf__learning_rates(reference_file):
    reference = np.load(reference_file("misc.npz"))
    names = {name: reference[name] for name in reference.files if "lr" in name.lower()}
    steps = next(value for name, value in names.items() if "step" in name.lower())
    rates = next(value for name, value in names.items() if "step" not in name.lower())
    ours = [1e-3 * learning_rate_factor(int(step), **OFFICIAL) for step in steps]
    assert np.allclose(ours, rates, rtol=1e-5, atol=1e-10)


def test_steps__go_on_with_a_tenth_at_every_drop():
    at = partial(
        learning_rate_factor,
        total_steps=100,
        warmup_steps=10,
        warmup_factor=0.5,
        shape="steps",
        drops=[50, 80],
    )
    factors = [at(step) for step in (0, 5, 10, 49, 50, 79, 80, 99)]
    assert factors == pytest.approx([0.5, 0.75, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(("meant", "scale"), [(None, 1.0), (128, 0.5)])
def test_learning_rate__follows_the_batch_over_all_devices_where_told(meant, scale):
    module = DeepMACModule(
        backbone="hourglass_tiny2",
        mask_head="hourglass10",
        num_init_channels=4,
        head_channels=8,
        lr=1e-3,
        warmup_start_lr=2e-4,
        lr_batch_size=meant,
        backbone_lr_factor=0.5,
    )
    module.build(ClassMap((1,), ("cat",), frozenset({1})))
    # 4 images a device, 8 devices, every second batch a step: 64 images.
    module._trainer = SimpleNamespace(
        accumulate_grad_batches=2,
        world_size=8,
        max_steps=100,
        max_epochs=None,
        callbacks=[],
        datamodule=SimpleNamespace(hparams={"batch_size": 4}),
    )
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert [group["lr"] for group in groups] == pytest.approx([1e-4 * scale, 2e-4 * scale])
