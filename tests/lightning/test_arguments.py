"""Numbers are held against the ranges in their types, before anything is read or allocated."""

from dataclasses import dataclass
from typing import Annotated

import pytest

from deepmac.errors import ConfigError
from deepmac.lightning.arguments import check_arguments
from deepmac.lightning.datamodule import CocoDataModule
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.lightning.deepmarc_module import DeepMARCModule
from deepmac.nn.ranges import NonNegativeInt, OpenShare, Range

INFINITY = float("inf")


@dataclass
class Inner:
    share: OpenShare = 0.5


class Outer:
    count: NonNegativeInt
    pair: tuple[Annotated[float, Range(0, 2, open_low=True)], float] | None
    limit: Annotated[int, Range(1)] | Annotated[float, Range(0, 1)] | None
    inner: Inner
    flag: bool | Annotated[int, Range(5)]


@pytest.mark.parametrize(
    "values",
    [
        {"count": 0, "pair": (2.0, -7), "limit": None, "inner": Inner(), "flag": True},
        {"pair": None, "limit": 0.5, "inner": {"share": 0.1}, "flag": 5},
        {"limit": 3, "unheard_of": INFINITY},
        {"limit": 0},  # as a share
    ],
)
def test_check__takes_what_the_types_say(values):
    check_arguments("it", values, Outer)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"count": -1}, "it.count=-1 is out of its range: 0 or more"),
        ({"count": None}, "it.count=null: it has to have a value"),
        ({"count": 10**30}, r"it.count=1000.* is out of its range"),
        ({"pair": (0.0, 1.0)}, r"it.pair\[0\]=0.0 is out of its range: above 0 and at most 2"),
        ({"pair": (1.0, INFINITY)}, r"it.pair\[1\]=inf is no number to compute with"),
        ({"limit": 2.5}, "it.limit=2.5 is out of its range: 0 to 1"),
        ({"inner": {"share": 1}}, "it.inner.share=1 is out of its range: above 0 and below 1"),
        ({"flag": 4}, "it.flag=4 is out of its range: 5 or more"),
    ],
)
def test_check__names_the_setting_and_its_range(values, sentence):
    with pytest.raises(ConfigError, match=sentence):
        check_arguments("it", values, Outer)


@pytest.mark.parametrize("kind", [DeepMACModule, DeepMARCModule])
@pytest.mark.parametrize(
    "setting",
    [
        {"lr": 0.0},
        {"lr": float("nan")},
        {"warmup_steps": -1},
        {"head_channels": 0},
        {"mask_threshold": 1.0},
        {"num_classes": 0},
        {"losses": {"mask_weight": -1.0}},
    ],
    ids=str,
)
def test_modules__refuse_them_in_a_script_too(kind, setting):
    name = next(iter(setting))
    with pytest.raises(ConfigError, match=f"^model.{name}"):
        kind(**setting)


def test_modules__refuse_what_the_network_does_not_take():
    with pytest.raises(TypeError, match="haed"):
        DeepMACModule(haed=1)


@pytest.mark.parametrize(
    "setting",
    [
        {"batch_size": 0},
        {"num_workers": -1},
        {"image_size": 1_000_000},
        {"crop_scale": (1.3, 0.6)},
        {"flip": 1.5},
        {"seed": -1},
    ],
    ids=str,
)
def test_data__refuses_them_too(setting):
    with pytest.raises(ConfigError, match=f"^data.{next(iter(setting))}"):
        CocoDataModule(**setting)
