"""Adam in one pass over a CPU's memory: torch's numbers, and torch's checkpoints."""

import copy

import pytest
import torch
from torch import nn

from deepmac.lightning.optim.adam import Adam


def network():
    """Weights in rows, channels last, and neither."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, (1, 3)))
    layers[0].to(memory_format=torch.channels_last)
    layers[2].to(memory_format=torch.channels_last)
    return layers


def train(layers, optimizer, steps=4):
    for step in range(steps):
        optimizer.zero_grad()
        x = torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(step))
        layers(x.to(memory_format=torch.channels_last)).square().sum().backward()
        optimizer.step()
    return [p.detach().clone() for p in layers.parameters()]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps__are_torchs(decay):
    ours, theirs = network(), network()
    mine = Adam(ours.parameters(), lr=0.1, weight_decay=decay, decoupled_weight_decay=decay > 0)
    kind = torch.optim.AdamW if decay else torch.optim.Adam
    of_torch = kind(theirs.parameters(), lr=0.1, weight_decay=decay, foreach=False)
    for one, other in zip(train(ours, mine), train(theirs, of_torch), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_weights__whose_gradients_lie_otherwise_take_the_same_step():
    one = nn.Parameter(torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last))
    gradient = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    one.grad = gradient.clone()
    before = one.detach().clone()
    Adam([one], lr=0.1).step()
    torch.testing.assert_close(before - one.detach(), 0.1 * gradient.sign(), rtol=1e-3, atol=1e-3)


def test_checkpoints__say_nothing_of_it_and_torchs_own_go_on():
    layers = network()
    theirs = torch.optim.Adam(layers.parameters(), lr=0.1)
    train(layers, theirs, 2)
    again = copy.deepcopy(layers)
    mine = Adam(again.parameters(), lr=0.1)
    mine.load_state_dict(copy.deepcopy(theirs.state_dict()))
    for one, other in zip(train(again, mine), train(layers, theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    saved, known = mine.state_dict(), theirs.state_dict()
    assert saved["param_groups"] == known["param_groups"]
    assert saved["param_groups"][0]["fused"] is None
    for mine_of, theirs_of in zip(saved["state"].values(), known["state"].values(), strict=True):
        for name, value in theirs_of.items():
            assert (mine_of[name].shape, mine_of[name].dtype) == (value.shape, value.dtype)


def test_a_step__that_fails_leaves_the_groups_as_they_were():
    optimizer = Adam(network().parameters(), lr=0.1)

    def closure():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        optimizer.step(closure)
    assert optimizer.param_groups[0]["fused"] is None


def test_a_step__returns_what_its_closure_does():
    assert Adam(network().parameters(), lr=0.1).step(lambda: 3.5) == 3.5


def test_other_kernels__stay_chosen():
    for chosen in ({"foreach": True}, {"fused": False}):
        layers = network()
        optimizer = Adam(layers.parameters(), lr=0.1, **chosen)
        seen = []
        real = optimizer._init_group

        def spy(group, *lists, real=real, seen=seen):
            seen.append(group["fused"])
            return real(group, *lists)

        optimizer._init_group = spy
        train(layers, optimizer, 1)
        assert seen == [chosen.get("fused")]
