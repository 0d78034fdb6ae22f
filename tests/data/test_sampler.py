"""One order for any number of devices; nothing twice, nothing lost, resumable."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmac.data.annotations.records import ImageRecord, Instance
from deepmac.data.annotations.table import pack
from deepmac.data.rare_classes import repeat_factors
from deepmac.data.sampler import EpochBatchSampler


def samplers(num_images: int, batch_size: int, world_size: int, **changes):
    arguments = {"seed": 3, "shuffle": True, "drop_last": True, **changes}
    return [
        EpochBatchSampler(num_images, batch_size, rank=rank, world_size=world_size, **arguments)
        for rank in range(world_size)
    ]


@settings(max_examples=30, deadline=None)
@given(
    num_images=st.integers(0, 60),
    batch_size=st.integers(1, 4),
    world_size=st.integers(1, 4),
    epoch=st.integers(0, 5),
)
def test_training__global_batches_are_the_same_for_any_number_of_devices(
    num_images, batch_size, world_size, epoch
):
    (alone,) = samplers(num_images, batch_size * world_size, 1)
    together = samplers(num_images, batch_size, world_size)
    for sampler in (alone, *together):
        sampler.set_epoch(epoch)
    expected = list(alone)
    parts = [list(sampler) for sampler in together]
    assert all(len(part) == len(sampler) for part, sampler in zip(parts, together, strict=True))
    assert len(parts[0]) == len(expected) == num_images // (batch_size * world_size)
    for number, whole in enumerate(expected):
        assert sorted(key for part in parts for key in part[number]) == sorted(whole)


@settings(max_examples=30, deadline=None)
@given(num_images=st.integers(0, 60), batch_size=st.integers(1, 4), world_size=st.integers(1, 4))
def test_evaluation__every_image_comes_exactly_once_over_all_devices(
    num_images, batch_size, world_size
):
    parts = samplers(num_images, batch_size, world_size, shuffle=False, drop_last=False)
    batches = [list(part) for part in parts]
    assert [len(batch) for batch in batches] == [len(part) for part in parts]
    assert all(0 < len(keys) <= batch_size for batch in batches for keys in batch)
    seen = [image for batch in batches for keys in batch for _, image, _ in keys]
    assert sorted(seen) == list(range(num_images))


def test_order__depends_on_seed_and_epoch_only():
    (sampler,) = samplers(50, 5, 1)
    (again,) = samplers(50, 5, 1)
    (other,) = samplers(50, 5, 1, seed=4)
    assert list(sampler) == list(again) == list(sampler)
    assert list(other) != list(sampler)
    first = [image for keys in sampler for _, image, _ in keys]
    sampler.set_epoch(1)
    keys = [key for batch in sampler for key in batch]
    assert {epoch for epoch, _, _ in keys} == {1}
    assert [image for _, image, _ in keys] != first


def test_start_batch__skips_once():
    (sampler,) = samplers(20, 4, 1)
    whole = list(sampler)
    sampler.start_batch = 3
    assert len(sampler) == 5
    assert list(sampler) == whole[3:]
    assert list(sampler) == whole


def test_lightning__finds_set_epoch():
    data = pytest.importorskip("lightning_fabric.utilities.data")
    from torch.utils.data import DataLoader

    (sampler,) = samplers(20, 4, 1)
    data._set_sampler_epoch(DataLoader(range(20), batch_sampler=sampler), 7)
    assert sampler.epoch == 7


@settings(max_examples=40, deadline=None)
@given(
    factors=st.lists(st.floats(1, 6), min_size=1, max_size=40),
    epoch=st.integers(0, 4),
    world_size=st.integers(1, 3),
)
def test_factors__give_each_image_its_share_of_an_epoch_that_is_as_long(factors, epoch, world_size):
    shares = np.array(factors) * len(factors) / sum(factors)
    parts = samplers(len(factors), 1, world_size, factors=np.array(factors), drop_last=False)
    keys = []
    for sampler in parts:
        sampler.set_epoch(epoch)
        assert list(sampler) == list(sampler), "drawn by seed and epoch"
        keys += [key for batch in sampler for key in batch]
    counts = np.bincount([key[1] for key in keys], minlength=len(factors))
    assert counts.sum() == len(factors)
    assert (np.abs(counts - shares) < 1 + 1e-6).all()
    for image in range(len(factors)):
        again = sorted(key[3] if len(key) > 3 else 0 for key in keys if key[1] == image)
        assert again == list(range(counts[image]))


def test_factors__of_one_are_every_image_once():
    (plain,) = samplers(30, 5, 1)
    (same,) = samplers(30, 5, 1, factors=np.ones(30))
    images = [sorted(key[1] for batch in s for key in batch) for s in (plain, same)]
    assert images[0] == images[1] == list(range(30))


def test_repeat_factors__are_those_of_lvis():
    boxes = {1: [1, 1, 1], 2: [1, 2], 3: [1], 4: []}  # image: classes of its objects
    images = [
        ImageRecord(i, f"{i}.png", Path(f"{i}.png"), 9, 9, tuple(
            Instance(10 * i + n, c, (0.0, 0.0, 5.0, 5.0), None, c == 3, 25.0)
            for n, c in enumerate(classes)))
        for i, classes in boxes.items()
    ]  # fmt: skip
    factors = repeat_factors(pack(images), 0.5)
    # Class 1 is on 3 of 4 images, class 2 on 1 of 4: sqrt(0.5 / 0.25).
    np.testing.assert_allclose(factors, [1, 2**0.5, 1, 1])
    np.testing.assert_array_equal(repeat_factors(pack(images[3:]), 0.5), [1])
