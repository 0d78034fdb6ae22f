"""Batch norm: padding rows, the original's variants, replicas."""

from __future__ import annotations

import copy
import socket
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from deepmac.nn.norm import (
    BatchNorm2d,
    NormOptions,
    running_statistics_frozen,
)
from deepmac.nn.replicas import Replicas, distributed_sum, share

BIASED = NormOptions(momentum=0.9, biased_running_var=True)
either_options = pytest.mark.parametrize("options", [NormOptions(), BIASED], ids=["house", "tf"])


def rows(count: int, channels: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, 4, 5, generator=generator) * 3 + 1


def norm_with_affine(options: NormOptions | None = None, channels: int = 3) -> BatchNorm2d:
    norm = BatchNorm2d(channels, options)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, channels))
        norm.bias.copy_(torch.linspace(-1, 1, channels))
        norm.running_mean.copy_(torch.linspace(1, 2, channels))
        norm.running_var.copy_(torch.linspace(2, 3, channels))
    return norm


def run(norm: BatchNorm2d, x: Tensor, valid: Tensor | None = None) -> list[Tensor]:
    """Output of the valid rows, then every gradient and running statistic they lead to."""
    x = x.clone().requires_grad_()
    live = torch.ones(len(x), dtype=torch.bool) if valid is None else valid
    out = norm(x, valid)[live]
    (out * torch.linspace(-1, 2, out.numel()).reshape(out.shape)).sum().backward()
    assert x.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
    return [
        out.detach(), x.grad[live], norm.weight.grad, norm.bias.grad,
        norm.running_mean, norm.running_var,
    ]  # fmt: skip


def assert_all_close(left: list[Tensor], right: list[Tensor]) -> None:
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


def test_batch_norm__equals_torch_by_default() -> None:
    ours, theirs = BatchNorm2d(3), nn.BatchNorm2d(3)
    x = rows(4)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@either_options
def test_batch_norm__masked_path_equals_fused_path(options: NormOptions) -> None:
    everything = torch.ones(4, dtype=torch.bool)
    fused = run(norm_with_affine(options), rows(4))
    assert_all_close(run(norm_with_affine(options), rows(4), everything), fused)


@either_options
@given(valid=st.lists(st.booleans(), min_size=1, max_size=6).filter(any), junk=st.floats(-1e4, 1e4))
@settings(max_examples=15, deadline=None)
def test_batch_norm__masked_rows_equal_packed_rows(
    options: NormOptions, valid: list[bool], junk: float
) -> None:
    mask = torch.tensor(valid)
    x = torch.where(mask[:, None, None, None], rows(len(valid)), junk)
    packed = run(norm_with_affine(options), x[mask])
    assert_all_close(run(norm_with_affine(options), x, mask), packed)


def test_batch_norm__nan_in_a_padding_row_stays_there() -> None:
    norm, x = norm_with_affine(), rows(3)
    x[1] = float("nan")
    out = norm(x, torch.tensor([True, False, True]))
    assert out[[0, 2]].isfinite().all()
    assert norm.running_mean.isfinite().all() and norm.running_var.isfinite().all()


def test_batch_norm__padding_rows_get_no_say_in_gradients() -> None:
    x = rows(3).requires_grad_()
    valid = torch.tensor([True, False, True])
    norm_with_affine()(x, valid)[valid].square().sum().backward()
    assert x.grad is not None and (x.grad[1] == 0).all()


@pytest.mark.parametrize("count", [0, 2])
def test_batch_norm__without_valid_rows_keeps_its_statistics(count: int) -> None:
    norm = norm_with_affine()
    before = norm.running_mean.clone(), norm.running_var.clone()
    x = rows(count).requires_grad_()
    out = norm(x, torch.zeros(count, dtype=torch.bool))
    assert out.shape == x.shape and out.isfinite().all()
    assert torch.equal(norm.running_mean, before[0]) and torch.equal(norm.running_var, before[1])
    torch.testing.assert_close(out, norm.eval()(x))


def test_batch_norm__takes_an_empty_batch_and_a_single_value() -> None:
    norm = norm_with_affine()
    assert norm(torch.zeros(0, 3, 4, 4)).shape == (0, 3, 4, 4)
    out = norm(torch.randn(1, 3, 1, 1))
    torch.testing.assert_close(out.flatten(), norm.bias)
    assert norm.running_var.isfinite().all()


def test_batch_norm__running_variance_is_biased_on_request() -> None:
    x = rows(2)
    biased = BatchNorm2d(3, NormOptions(momentum=1.0, biased_running_var=True))
    unbiased = BatchNorm2d(3, NormOptions(momentum=1.0))
    for norm in (biased, unbiased):
        norm(x)
    torch.testing.assert_close(biased.running_var, x.var((0, 2, 3), correction=0))
    torch.testing.assert_close(unbiased.running_var, x.var((0, 2, 3)))


def test_batch_norm__statistics_are_float32_for_bfloat16_input() -> None:
    x = rows(4).bfloat16()
    for valid in (None, torch.ones(4, dtype=torch.bool)):
        norm = BatchNorm2d(3, NormOptions(momentum=1.0))
        assert norm(x, valid).dtype == torch.bfloat16
        torch.testing.assert_close(norm.running_mean, x.float().mean((0, 2, 3)))


@either_options
def test_running_statistics_frozen__changes_no_output(options: NormOptions) -> None:
    free, frozen = norm_with_affine(options), norm_with_affine(options)
    with running_statistics_frozen(nn.Sequential(frozen)):
        torch.testing.assert_close(frozen(rows(3)), free(rows(3)))
    assert torch.equal(frozen.running_mean, norm_with_affine().running_mean)
    frozen(rows(3))
    torch.testing.assert_close(frozen.running_mean, free.running_mean)


def test_one_replica__sums_nothing() -> None:
    plain, alone = norm_with_affine(), norm_with_affine()
    share(nn.Sequential(alone), Replicas(1, lambda sums: sums * 7))
    assert torch.equal(alone(rows(3)), plain(rows(3)))


def test_replicas__sum_statistics_in_their_own_way() -> None:
    norm = norm_with_affine(BIASED)
    calls: list[tuple[int, ...]] = []

    def doubled(sums: Tensor) -> Tensor:
        calls.append(tuple(sums.shape))
        return sums * 2

    share(norm, Replicas(2, doubled))
    twin = norm(rows(3))
    assert calls == [(4,), (3,)]  # sums and count, then centred squares
    expected = norm_with_affine(BIASED)
    both = expected(torch.cat([rows(3), rows(3)]))[:3]
    torch.testing.assert_close(twin, both, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, expected.running_var)


def test_a_copy_of_a_network__has_the_same_replicas() -> None:
    norm = norm_with_affine()
    share(norm, Replicas(2, torch.clone))
    assert copy.deepcopy(norm).replicas is norm.replicas


def test_two_replicas__equal_one_big_batch() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    mp.spawn(_replica, args=(port,), nprocs=2)


def _replica(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank, world_size=2)
    x = rows(5)
    valid = torch.tensor([True, True, False, False, False])
    shares = [slice(0, 3), slice(3, 5)]
    # Rows split unevenly; then all valid rows on one replica, none on the other.
    masks: list[Tensor | None] = [None, valid]
    for mask in masks:
        expected = norm_with_affine()
        whole = x.clone().requires_grad_()
        out = expected(whole, mask)
        weights = torch.linspace(-1, 2, x.numel()).reshape(x.shape)
        if mask is not None:
            weights = weights * mask[:, None, None, None]
        (out * weights).sum().backward()
        norm = norm_with_affine()
        share(norm, Replicas(2, distributed_sum))
        mine = shares[rank]
        part = x[mine].clone().requires_grad_()
        ours = norm(part, None if mask is None else mask[mine])
        (ours * weights[mine]).sum().backward()
        assert whole.grad is not None and part.grad is not None
        assert_all_close(
            [ours, part.grad, norm.running_mean, norm.running_var],
            [out[mine], whole.grad[mine], expected.running_mean, expected.running_var],
        )
    dist.destroy_process_group()


def test_batch_norm__gradients_of_the_masked_path_are_exact() -> None:
    norm = norm_with_affine().double()
    x = rows(3).double().requires_grad_()
    valid = torch.tensor([True, False, True])
    function: Callable[[Tensor], Tensor] = lambda x: norm(x, valid)[valid]  # noqa: E731
    assert torch.autograd.gradcheck(function, (x,))
