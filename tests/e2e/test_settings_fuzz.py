"""Settings at random: accepted or one sentence, before anything is read."""

import random

import pytest

from e2e.settings_fuzz import VALUES, answer, settings

PAIRS = [(name, value) for name in settings() for value in VALUES]
KNOWN = [  # each was a traceback or a crash once
    *(("data.batch_size", value) for value in ("0", "-1", "null")),
    *(("data.image_size", "0"), ("data.image_size", "1000000"), ("data.num_workers", "-1")),
    *(("model.lr", value) for value in ("nan", "-1", "0")),
    *(("trainer.devices", "abc"), ("trainer.devices", "-1"), ("trainer.accelerator", "gpu")),
    *(("trainer.max_steps", "-2"), ("trainer.limit_val_batches", "2.5"), ("ckpt_path", "best")),
    *(("model.head_channels", "0"), ("trainer.accumulate_grad_batches", "0")),
]


@pytest.mark.parametrize(("name", "value"), KNOWN)
def test_known_faults__are_sentences(name, value, tmp_path):
    kind, said, _ = answer(name, value, tmp_path / "run")
    assert kind == "sentence", said


@pytest.mark.parametrize(("name", "value"), random.Random(0).sample(PAIRS, 12))
def test_settings__at_random_are_accepted_or_a_sentence(name, value, tmp_path):
    kind, said, _ = answer(name, value, tmp_path / "run")
    assert kind in ("accepted", "sentence"), said


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), random.Random(1).sample(PAIRS, 60))
def test_settings__many_at_random(name, value, tmp_path):
    kind, said, _ = answer(name, value, tmp_path / "run")
    assert kind in ("accepted", "sentence"), said
