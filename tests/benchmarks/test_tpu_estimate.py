"""The arithmetic of the estimate; the counting is tested in tests/tpu."""

from dataclasses import replace

import pytest
from benchmarks.tpu_estimate import CHIPS, Chip, Graph, estimate, padded
from benchmarks.tpu_step import operations_of

CHIP = Chip(teraflops=100.0, gigabytes=16.0, link_gigabytes=50.0, host_devices=4)
GRAPH = Graph(
    images=4,
    flops=8e12,
    padded_flops=10e12,
    parameters=100_000_000,
    least_activations=2e9,
    most_activations=8e9,
    reductions=1000,
)


def test_products__take_their_share_of_the_peak():
    found = estimate(GRAPH, CHIP, replicas=1, batch=4, images=4000)
    assert found.compute == pytest.approx((0.2, 0.4))
    assert found.step == found.compute and found.gradients == found.reductions == 0
    assert found.days == pytest.approx((1000 * 0.2 / 86400, 1000 * 0.4 / 86400))


def test_replicas__add_the_sum_of_gradients_and_the_small_sums():
    found = estimate(GRAPH, CHIP, replicas=16, batch=4, images=1)
    assert found.gradients == pytest.approx(2 * 15 / 16 * 4e8 / 50e9)
    assert found.reductions == pytest.approx(0.03)
    assert found.step[0] == pytest.approx(0.2 + found.gradients + found.reductions)
    wider = estimate(GRAPH, CHIP, replicas=1024, batch=4, images=1)
    assert wider.reductions == pytest.approx(0.03 * 1.6)


def test_batch__scales_products_and_activations_alone():
    four, one = (estimate(GRAPH, CHIP, replicas=16, batch=n, images=1) for n in (4, 1))
    assert one.compute[0] == pytest.approx(four.compute[0] / 4)
    assert one.gradients == four.gradients
    assert four.gigabytes == pytest.approx((2 + 2, 2 + 8))
    assert one.gigabytes == pytest.approx((2 + 0.5, 2 + 2))


def test_memory__fits_when_the_careful_figure_does():
    assert estimate(GRAPH, CHIP, replicas=1, batch=4, images=1).fits
    assert not estimate(GRAPH, replace(CHIP, gigabytes=9), replicas=1, batch=4, images=1).fits


def test_host__has_to_feed_its_own_devices():
    found = estimate(GRAPH, CHIP, replicas=8, batch=4, images=1)
    assert found.images_per_second == pytest.approx(16 / found.step[0])


def test_channels__fill_up_to_the_matrix_unit():
    assert [padded(n) for n in (1, 128, 129, 576)] == [128, 128, 256, 640]
    assert set(CHIPS) == {"v3", "v4", "v5e"}


def test_operations__are_those_of_the_main_computation():
    text = """HloModule M

%Add.1 (x: f32[], y: f32[]) -> f32[] {
  ROOT %add.3 = f32[] add(f32[] %x, f32[] %y)
}

ENTRY %M.9 (p0.1: f32[2]) -> (f32[2]) {
  %p0.1 = f32[2]{0} parameter(0)
  %all-reduce.4 = (f32[2]{0}, f32[]) all-reduce(f32[2]{0} %p0.1), to_apply=%Add.1
  %get-tuple-element.5 = f32[2]{0} get-tuple-element((f32[2]{0}, f32[]) %all-reduce.4), index=0
  ROOT %tuple.6 = (f32[2]{0}) tuple(f32[2]{0} %get-tuple-element.5)
}
"""
    assert operations_of(text) == {
        "parameter": 1,
        "all-reduce": 1,
        "get-tuple-element": 1,
        "tuple": 1,
    }
