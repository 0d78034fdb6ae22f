"""From published weights to a folder that ``load_model`` and ``model.init_from`` take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from deepmac.convert.labels import class_map_of
from deepmac.convert.report import ConversionError, Report, Shape
from deepmac.convert.settings import Settings, read_settings
from deepmac.convert.source import checkpoint_files
from deepmac.convert.tensor_bundle import TensorBundle
from deepmac.convert.torch_centernet import convert_torch_centernet, is_torch_centernet
from deepmac.convert.variables import SUFFIX, convert_known_variables, is_weight
from deepmac.errors import UserError
from deepmac.files import new_folder, refuse_existing
from deepmac.models.card import ModelCard
from deepmac.models.files import (
    CONFIG,
    INITIALISATION,
    WEIGHTS,
    build_model,
    write_model,
    write_safetensors,
)
from deepmac.nn.backbones import CENTERNET_BGR
from deepmac.nn.hourglass import HOURGLASS_BACKBONES, hourglass_backbone
from deepmac.nn.pretrained import read_tensors
from deepmac.protobuf.text_proto import read_text_proto

_TORCH_SUFFIXES = (".pth", ".pt", ".pkl")
_HEADS = "model/_prediction_head_dict"
_BACKBONE = "backbone.network."

Variables = Mapping[str, NDArray[Any]]


def convert(
    source: str | Path,
    out_dir: str | Path,
    config: str | Path | None = None,
    label_map: str | Path | None = None,
) -> Report:
    """Convert weights of the original, or weights to start a training from.

    A checkpoint with a ``deepmac_mask_estimation`` in its config becomes a whole model; another
    TensorFlow CenterNet checkpoint, or PyTorch weights of CenterNet or ExtremeNet with
    hourglass-104, an initialisation (of the backbone; CenterNet's own heads come along).

    Args:
        source: folder, ``.tar.gz`` or checkpoint prefix of TensorFlow 2, or a ``.pth``.
        out_dir: folder to create; it must not exist, or be empty.
        config: a ``pipeline.config`` instead of the one found.
        label_map: a label map .pbtxt instead of the 90 COCO ids.

    Returns:
        What matched and what did not.

    Raises:
        ConversionError: the network needs tensors that the source lacks. Nothing is written.
        UserError: any other reason why nothing is written.
    """
    source, out = Path(source), Path(out_dir)
    refuse_existing(out)
    if source.suffix in _TORCH_SUFFIXES and source.is_file():
        return _convert_torch(source, out)
    with checkpoint_files(source, Path(config) if config else None) as files:
        bundle = TensorBundle(files.prefix)
        settings = read_settings(read_text_proto(files.config)) if files.config else None
        has_masks = any(key.startswith(f"{_HEADS}/PIXEL_EMBEDDING/") for key in bundle.entries)
        if settings is None and has_masks:
            raise UserError(
                f"{source} is a Deep-MAC checkpoint without its pipeline.config: give --config"
            )
        variables = {
            key.removesuffix(SUFFIX): value for key, value in bundle.read(is_weight).items()
        }
    if settings is not None and settings.network:
        labels = Path(label_map) if label_map else None
        state, card, report = convert_model_variables(
            variables, settings, source=str(source), label_map=labels
        )
        with new_folder(out) as folder:
            write_model(folder, state, card)
        return replace(report, output=out)
    return _convert_backbone(source, out, variables, settings)


def convert_model_variables(
    variables: Variables, settings: Settings, *, source: str, label_map: Path | None = None
) -> tuple[dict[str, Tensor], ModelCard, Report]:
    """A whole model from its variables by checkpoint key.

    Returns:
        The state for ``build_model(card)``, the card, and what matched.

    Raises:
        ConversionError: the network needs variables that are not there.
        ConfigError: the settings contradict each other.
    """
    head = _shape(variables, f"{_HEADS}/object_center/0/layer_with_weights-0/kernel")
    embedding = _shape(variables, f"{_HEADS}/PIXEL_EMBEDDING/0/layer_with_weights-0/kernel")
    card = ModelCard(
        network={
            "backbone": settings.backbone,
            "head_channels": head[3] if len(head) == 4 else 256,
            **settings.network,
            # The newest original has kernels of height 1 there, the release 3x3.
            "compat": "tf_latest" if embedding[:1] == (1,) else "tf_release",
        },
        normalization=settings.normalization,
        class_map=class_map_of(settings.num_classes, settings.masked_ids, label_map),
        image_size=settings.image_size,
    )
    with torch.device("meta"):
        expected = build_model(card, source=f"the pipeline config of {source}").state_dict()
    state, unknown = convert_known_variables(variables)
    report = _compare(source, state, {name: tuple(t.shape) for name, t in expected.items()})
    report = replace(
        report,
        kind="model",
        settings={
            "backbone": settings.backbone,
            "mask head": card.network["mask_head"],
            "classes": len(card.class_map),
            "image size": card.image_size,
            "compat": card.network["compat"],
        },
        unused=[*report.unused, *_with_shapes(unknown, variables)],
    )
    if report.missing:
        raise ConversionError(report)
    return {name: state[name] for name in report.matched}, card, report


def _convert_backbone(
    source: Path,
    out: Path,
    variables: Variables,
    settings: Settings | None,
) -> Report:
    state, unknown = convert_known_variables(variables)
    names = [settings.backbone] if settings else list(HOURGLASS_BACKBONES)
    report, name = min(
        ((_compare(str(source), state, _backbone_shapes(name)), name) for name in names),
        key=lambda pair: len(pair[0].missing) + len(pair[0].unused),
    )
    report = replace(
        report,
        settings={"backbone": name},
        unused=[*report.unused, *_with_shapes(unknown, variables)],
    )
    normalization = settings.normalization if settings else CENTERNET_BGR
    return _write_initialisation(report, out, state, name, normalization.to_dict())


def _convert_torch(source: Path, out: Path) -> Report:
    tensors = read_tensors(source)
    if not is_torch_centernet(tensors):
        raise UserError(
            f"{source} holds no hourglass of CenterNet or ExtremeNet: such weights have tensors "
            "called pre.0.conv.weight and kps.0..."
        )
    state, unknown = convert_torch_centernet(tensors)
    name = "hourglass_104"
    shapes = _backbone_shapes(name)
    heads = {k: tuple(v.shape) for k, v in state.items() if k.startswith("heads.")}
    report = _compare(str(source), state, shapes | heads)
    report = replace(
        report,
        settings={"backbone": name},
        unused=[*report.unused, *((key, tuple(tensors[key].shape)) for key in unknown)],
    )
    return _write_initialisation(report, out, state, name, CENTERNET_BGR.to_dict())


def _write_initialisation(
    report: Report,
    out: Path,
    state: Mapping[str, Tensor],
    backbone: str,
    normalization: Mapping[str, Any],
) -> Report:
    if report.missing:
        raise ConversionError(report)
    described = {
        "format": INITIALISATION,
        "backbone": backbone,
        "normalization": dict(normalization),
    }
    with new_folder(out) as folder:
        write_safetensors(folder / WEIGHTS, {name: state[name].float() for name in report.matched})
        (folder / CONFIG).write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    return replace(report, output=out)


def _compare(source: str, state: Mapping[str, Tensor], expected: Mapping[str, Shape]) -> Report:
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    matched = [name for name, shape in expected.items() if shapes.get(name) == shape]
    done = set(matched)
    return Report(
        source=source,
        kind="initialisation",
        settings={},
        matched=matched,
        missing=[(name, shape) for name, shape in expected.items() if name not in done],
        unused=[(name, shape) for name, shape in shapes.items() if name not in done],
    )


def _backbone_shapes(name: str) -> dict[str, Shape]:
    with torch.device("meta"):
        state = hourglass_backbone(name).state_dict()
    return {f"{_BACKBONE}{key}": tuple(tensor.shape) for key, tensor in state.items()}


def _shape(variables: Variables, key: str) -> Shape:
    return tuple(variables[key].shape) if key in variables else ()


def _with_shapes(keys: list[str], variables: Variables) -> list[tuple[str, Shape]]:
    return [(key, _shape(variables, key)) for key in keys]
