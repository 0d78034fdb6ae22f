"""One order for any number of devices; nothing twice, nothing lost, resumable."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
