import torch

from deepmac.lightning.optim.adam import Adam
from deepmac.lightning.optim.tensorflow_adam import TensorFlowAdam
from deepmac.lightning.xla.optimizer_state import allocate_state


def trained(kind, allocate, steps=3):
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 2)
    optimizer = kind(layer.parameters(), lr=0.1)
    if allocate:
        assert allocate_state([optimizer]) == 2
    for _ in range(steps):
        optimizer.zero_grad()
        layer(torch.ones(1, 4)).square().sum().backward()
        optimizer.step()
    return layer, optimizer


def test_allocated_state__trains_exactly_as_state_made_by_the_first_step():
    for kind in (torch.optim.Adam, torch.optim.AdamW, Adam, TensorFlowAdam):
        (early, one), (late, other) = trained(kind, True), trained(kind, False)
        assert torch.equal(early.weight, late.weight)
        mine, theirs = one.state_dict()["state"], other.state_dict()["state"]
        for index, state in theirs.items():
            assert state.keys() == mine[index].keys()
            for name, value in state.items():
                assert value.dtype == mine[index][name].dtype
                assert torch.equal(value, mine[index][name])


def test_existing_state__and_other_optimizers_are_left_alone():
    layer, optimizer = trained(torch.optim.Adam, False)
    before = optimizer.state[layer.weight]["exp_avg"].clone()
    assert allocate_state([optimizer, torch.optim.SGD(layer.parameters(), lr=0.1)]) == 0
    assert torch.equal(optimizer.state[layer.weight]["exp_avg"], before)
    assert allocate_state([torch.optim.Adam(layer.parameters(), amsgrad=True)]) == 0
