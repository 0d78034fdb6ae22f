"""Every image once, the same order for any number of processes, few chunks at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmac.data.stream.order import StreamOrder

COUNTS = st.lists(st.integers(1, 9), min_size=1, max_size=40).map(np.array)


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(1, 12), st.integers(0, 3))
def test_an_epoch__has_every_image_once(counts, lanes, epoch):
    order = StreamOrder(counts, seed=7, lanes=lanes)
    images = order.images_at(epoch, np.arange(order.images))
    assert sorted(images.tolist()) == list(range(order.images))


@settings(max_examples=30, deadline=None)
@given(COUNTS, st.integers(1, 12), st.integers(1, 5))
def test_any_place__is_found_without_the_places_before(counts, lanes, step):
    whole = StreamOrder(counts, seed=1, lanes=lanes)
    images = whole.images_at(2, np.arange(whole.images))
    for place in range(0, whole.images, step):
        fresh = StreamOrder(counts, seed=1, lanes=lanes)
        assert fresh.images_at(2, np.array([place])) == images[place]


def test_epochs_and_seeds__differ():
    order, other = (StreamOrder(np.full(40, 25), seed=seed) for seed in (0, 1))
    places = np.arange(1000)
    first = order.images_at(0, places)
    assert not np.array_equal(first, order.images_at(1, places))
    assert not np.array_equal(first, other.images_at(0, places))


@pytest.mark.parametrize("world", [2, 4, 8])
def test_processes_that_divide_the_lanes__share_next_to_no_chunk(world):
    order = StreamOrder(np.full(256, 100), seed=0, lanes=8)
    own = [
        set(order.chunk_of(order.images_at(0, np.arange(rank, order.images, world))).tolist())
        for rank in range(world)
    ]
    assert set().union(*own) == set(range(256))
    assert sum(map(len, own)) == 256


@pytest.mark.parametrize("world", [1, 4])
def test_chunks_at_once__bound_what_a_window_of_the_order_touches(world):
    order = StreamOrder(np.full(400, 50), seed=3, lanes=4)
    images = order.images_at(0, np.arange(0, order.images, world))
    chunks, ahead = order.chunk_of(images), order.ahead(world)
    most = max(len(set(chunks[n : n + ahead].tolist())) for n in range(0, len(chunks), 7))
    assert most <= order.chunks_at_once(world) < 60


def test_order__mixes_as_a_shuffled_list_would():
    """The mean distance of neighbours in the order, against that of a permutation."""
    order = StreamOrder(np.full(256, 40), seed=0)
    images = order.images_at(0, np.arange(order.images))
    distance = np.abs(np.diff(images)).mean()
    assert distance == pytest.approx(order.images / 3, rel=0.1)
