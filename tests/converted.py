"""A small model's folder as `deepmac convert` writes it."""

from pathlib import Path

from torch import Tensor

from deepmac.class_map import ClassMap
from deepmac.models.files import write_model
from deepmac.nn.backbones import CENTERNET_BGR
from networks import tiny_card, tiny_model


def converted(
    folder: Path, names, compat="tf_release", normalization=CENTERNET_BGR
) -> dict[str, Tensor]:
    """Write it, with the class ``names`` of ids 1, 2, ...; its tensors."""
    ids = tuple(range(1, len(names) + 1))
    card = tiny_card(
        classes=ClassMap(ids, tuple(names), frozenset(ids)),
        normalization=normalization,
        compat=compat,
    )
    model = tiny_model(card, seed=5)
    folder.mkdir(exist_ok=True)
    write_model(folder, model.state_dict(), card)
    return model.state_dict()
