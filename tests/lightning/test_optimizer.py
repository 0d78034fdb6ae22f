"""Any torch optimizer, from both command lines."""

import json

import pytest
import torch

from deepmac.errors import ConfigError
from deepmac.lightning.optim.optimizer import build_optimizer
from deepmac.lightning.systems import optimizer_of_model

SETTINGS = {"lr": 0.5, "weight_decay": 0.0, "adam_epsilon": 1e-7}


def built(**settings):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1}]
    return build_optimizer(groups, {**SETTINGS, **settings})


def test_names__and_weight_decay():
    assert isinstance(built(optimizer="adam"), torch.optim.Adam)
    for decay in (0.0, 0.1):
        (group,) = built(optimizer="adam", weight_decay=decay).param_groups
        assert (group["weight_decay"], group["decoupled_weight_decay"]) == (decay, decay > 0)
    assert built(optimizer="sgd").defaults["momentum"] == 0.9


def test_class__gets_the_rate_and_its_own_arguments():
    optimizer = built(optimizer="torch.optim.RAdam")
    assert isinstance(optimizer, torch.optim.RAdam)
    assert (optimizer.defaults["lr"], optimizer.param_groups[0]["lr"]) == (0.5, 0.1)
    spelled = {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.7}}
    assert built(optimizer=spelled, weight_decay=0.2).defaults["momentum"] == 0.7


@pytest.mark.parametrize(
    "chosen",
    [
        "adamm",
        "torch.optim.Nothing",
        "torch.nn.Linear",
        "nowhere.Optimizer",
        {"class_path": "torch.optim.SGD", "init_args": {"momentun": 0.7}},
        {"class_path": 3},
        {"momentum": 0.9},
    ],
    ids=str,
)
def test_wrong_ones__are_one_sentence(chosen):
    with pytest.raises(ConfigError, match=r"^model\.optimizer="):
        built(optimizer=chosen)


def test_lightnings_spelling__is_understood():
    words = ["--optimizer=torch.optim.SGD", "--optimizer.momentum=0.8", "--optimizer.lr", "0.01"]
    *kept, chosen, rate = optimizer_of_model(["--trainer.max_steps=3", *words])
    assert (kept, rate) == (["--trainer.max_steps=3"], "--model.lr=0.01")
    name, _, value = chosen.partition("=")
    assert name == "--model.optimizer"
    assert json.loads(value) == {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.8}}
    with pytest.raises(ConfigError, match=r"model\.lr_schedule"):
        optimizer_of_model(["--lr_scheduler=torch.optim.lr_scheduler.StepLR"])
