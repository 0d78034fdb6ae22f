"""What a network needs beside its weights to be of use: its arguments, classes, preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from deepmac.class_map import ClassMap
from deepmac.errors import ConfigError
from deepmac.models.refining import REFINES, Refine
from deepmac.nn.backbones import Normalization

FORMAT = "deepmac-model-1"
InputShape = Literal["square", "picture"]
"""``square``: pictures are padded to one; ``picture``: to a frame of about their own shape."""


@dataclass(frozen=True)
class ModelCard:
    """Everything about a model but its weights; a ``config.yaml`` in plain values.

    Attributes:
        network: arguments of ``DeepMAC`` except classes, normalisation and initial weights.
        normalization: of the pixels.
        class_map: category of every class slot.
        image_size: side of the padded square that images are scaled to, pixels.
        input_shape: ``picture``: to a frame with about as many pixels as that square instead.
        system: ``deepmac`` or ``deepmarc``: which network the arguments are for.
        mask_threshold: a pixel belongs to a mask above this probability, unless told otherwise.
        refine: how masks are refined, unless told otherwise: ``none``, ``edges`` or ``full``.
    """

    network: Mapping[str, Any]
    normalization: Normalization
    class_map: ClassMap
    image_size: int
    system: str = "deepmac"
    mask_threshold: float = 0.5
    refine: Refine = "none"
    input_shape: InputShape = "square"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML or JSON."""
        return {
            "format": FORMAT,
            "system": self.system,
            "image_size": self.image_size,
            **({"input_shape": self.input_shape} if self.input_shape != "square" else {}),
            "mask_threshold": self.mask_threshold,
            **({"refine": self.refine} if self.refine != "none" else {}),
            "network": dict(self.network),
            "normalization": self.normalization.to_dict(),
            "class_map": self.class_map.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Any, *, source: str) -> ModelCard:
        """Inverse of :meth:`to_dict`.

        Raises:
            ConfigError: ``values``, read from ``source``, are something else.
        """
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            raise ConfigError(
                f"{source} does not describe a model (format {FORMAT}): give a folder or file "
                "that `deepmac convert` wrote, or a training checkpoint"
            )
        try:
            card = cls(
                network=dict(values["network"]),
                normalization=Normalization.from_dict(values["normalization"]),
                class_map=ClassMap.from_dict(values["class_map"]),
                image_size=int(values["image_size"]),
                system=str(values.get("system", "deepmac")),
                mask_threshold=float(values.get("mask_threshold", 0.5)),
                refine=values.get("refine", "none"),
                input_shape=values.get("input_shape", "square"),
            )
            if (
                card.refine not in REFINES
                or card.input_shape not in get_args(InputShape)
                or not 0 < card.mask_threshold < 1
                or card.image_size < 1
                or len(card.class_map.names) != len(card.class_map)
            ):
                raise ValueError("numbers that contradict each other")
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(
                f"{source} describes no usable model ({type(error).__name__}: {error}): convert "
                "or train it again"
            ) from error
        return card
