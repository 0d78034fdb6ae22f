"""The original's ``pipeline.config`` as arguments of our network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deepmac.errors import ConfigError
from deepmac.nn.backbones import Normalization
from deepmac.nn.hourglass import HOURGLASS_BACKBONES
from deepmac.nn.mask_heads import MASK_HEADS
from deepmac.protobuf.text_proto import Message

_LARGEST = 1 << 14  # of any count or size: hostile settings must not build huge networks


@dataclass(frozen=True)
class Settings:
    """What a ``pipeline.config`` says about a model.

    Attributes:
        backbone: one of ``HOURGLASS_BACKBONES``.
        normalization: of the pixels.
        image_size: side of the padded square, pixels.
        num_classes: class slots.
        network: the remaining arguments of ``DeepMAC``; empty for a detector without masks.
        masked_ids: 1-based classes whose masks were used in training; empty = all.
    """

    backbone: str
    normalization: Normalization
    image_size: int
    num_classes: int
    network: Mapping[str, Any]
    masked_ids: tuple[int, ...]


def read_settings(config: Message) -> Settings:
    """Interpret a parsed ``pipeline.config``; its defaults are those of the original's protos.

    Raises:
        ConfigError: no CenterNet model, or one that this project has no counterpart for.
    """
    model = config.message("model.center_net") or config.message("center_net")
    if model is None:
        raise ConfigError(
            "the pipeline config describes no center_net model: only CenterNet-based Deep-MAC "
            "models can be converted"
        )
    extractor = model.message("feature_extractor") or Message()
    backbone = _value(extractor, "type", str, "")
    if backbone not in HOURGLASS_BACKBONES:
        raise ConfigError(
            f"the pipeline config has the feature extractor {backbone!r}: only "
            f"{', '.join(HOURGLASS_BACKBONES)} can be converted"
        )
    centers = model.message("object_center_params") or Message()
    masks = model.message("deepmac_mask_estimation")
    network: dict[str, Any] = {}
    masked: tuple[int, ...] = ()
    if masks is not None:
        network = {
            "max_detections": _count(centers, "max_box_predictions", 100),
            **_mask_arguments(masks),
        }
        ids = masks.scalars("allowed_masked_classes_ids")
        if not all(type(i) is int for i in ids):
            raise ConfigError("allowed_masked_classes_ids of the pipeline config are no numbers")
        masked = tuple(i for i in ids if isinstance(i, int))
    return Settings(
        backbone=backbone,
        normalization=_normalization(extractor),
        image_size=_image_size(model),
        num_classes=_count(model, "num_classes", None),
        network=network,
        masked_ids=masked,
    )


def _mask_arguments(masks: Message) -> dict[str, Any]:
    head = _value(masks, "network_type", str, "hourglass52")
    if head not in MASK_HEADS:
        raise ConfigError(
            f"the pipeline config has the mask head {head!r}; known are {', '.join(MASK_HEADS)}"
        )
    return {
        "mask_head": head,
        "num_init_channels": _count(masks, "num_init_channels", 64),
        "mask_size": _count(masks, "mask_size", 32),
        "pixel_embedding_dim": _count(masks, "pixel_embedding_dim", 16),
        "dim": _count(masks, "dim", 256),
        "use_xy": _value(masks, "use_xy", bool, True),
        "use_instance_embedding": _value(masks, "use_instance_embedding", bool, True),
        "predict_full_resolution_masks": _value(
            masks, "predict_full_resolution_masks", bool, False
        ),
        "postprocess_crop_size": _count(masks, "postprocess_crop_size", 256),
    }


def _normalization(extractor: Message) -> Normalization:
    """Means and deviations stand in the order of the channels that the network sees."""
    bgr = _value(extractor, "bgr_ordering", bool, False)
    triples = []
    for name, default in (("channel_means", 0.0), ("channel_stds", 1.0)):
        values = [float(v) for v in extractor.scalars(name) if isinstance(v, int | float)] or [
            default
        ] * 3
        finite = all(abs(v) < 1e6 for v in values)
        if len(values) != 3 or not finite or (name == "channel_stds" and min(values) <= 0):
            raise ConfigError(
                f"{name} of the pipeline config must be three numbers, not {values[:4]}"
            )
        triples.append(tuple(values[::-1] if bgr else values))
    return Normalization(triples[0], triples[1], bgr)  # type: ignore[arg-type]


def _image_size(model: Message) -> int:
    resizer = model.message("image_resizer.keep_aspect_ratio_resizer")
    if resizer is None:
        raise ConfigError(
            "the pipeline config has no keep_aspect_ratio_resizer: models with another image "
            "resizer cannot be converted"
        )
    shortest = _count(resizer, "min_dimension", 600)
    longest = _count(resizer, "max_dimension", 1024)
    if shortest != longest or not _value(resizer, "pad_to_max_dimension", bool, False):
        raise ConfigError(
            "the pipeline config does not pad images to a square: only models with "
            "min_dimension = max_dimension and pad_to_max_dimension can be converted"
        )
    return longest


def _count(message: Message, name: str, default: int | None) -> int:
    value: int = _value(message, name, int, default)
    if not 0 < value <= _LARGEST:
        raise ConfigError(f"{name} in the pipeline config is {value}, beyond any real model's")
    return value


def _value(message: Message, name: str, kind: type, default: Any) -> Any:
    """A field's value (the last one, as protobuf has it) or its default."""
    if name not in message.fields:
        if default is None:
            raise ConfigError(f"the pipeline config does not say {name}: give the model's own")
        return default
    value = message.fields[name][-1] if message.fields[name] else None
    if type(value) is not kind:
        raise ConfigError(f"{name} in the pipeline config must be a {kind.__name__}, not {value!r}")
    return value
