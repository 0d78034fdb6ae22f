"""How checkpoints get onto the disk, Lightning's and ours: whole, finite, or not at all."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from lightning_fabric.plugins import TorchCheckpointIO
from torch import Tensor

from deepmac.errors import ConfigError, UserError, one_sentence
from deepmac.files import atomic_binary, sweep_drafts

_NOT_WEIGHTS = ("callbacks", "loops", "lr_schedulers", "hyper_parameters")
"""Entries of a checkpoint whose infinities mean something (a best score of nothing yet)."""


_HANDED_OVER = ".temp.ckpt"
"""Bare weights that Lightning's launcher hands from the replicas to the process that began them."""


class NotFinite(UserError):
    """Losses or weights that are worth no checkpoint."""


class CheckpointFiles(TorchCheckpointIO):
    """A checkpoint replaces the one before once it is whole and on the disk.

    Lightning's own writer drafts in the temporary folder, often another disk: its last step is a
    copy, and a kill or a full disk leaves half a file. Remote paths are fsspec's to write at once.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write, beside the target, then rename.

        Raises:
            OSError: it cannot be written, with the checkpoint's name.
        """
        local = local_path(path)
        if local is None or storage_options is not None:
            TorchCheckpointIO.save_checkpoint(self, checkpoint, path, storage_options)
            return
        local.parent.mkdir(parents=True, exist_ok=True)
        sweep_drafts(local.parent)
        with atomic_binary(local) as file:
            _write(checkpoint, file)

    def load_checkpoint(
        self, path: Any, map_location: Any = lambda storage, _: storage, weights_only: Any = None
    ) -> dict[str, Any]:
        """Read; nothing in the file is executed.

        Raises:
            UserError: it cannot be read, and what else there is to go on from.
        """
        try:
            content = super().load_checkpoint(path, map_location, weights_only)
        except FileNotFoundError as error:
            raise ConfigError(f"ckpt_path={path}: no such file") from error
        except Exception as error:  # the unpickler and the archive reader raise whatever they like
            raise UserError(
                f"{path} cannot be read as a checkpoint ({type(error).__name__}: it is damaged or "
                f"no checkpoint): {_otherwise(path)}"
            ) from error
        if Path(os.fspath(path)).name == _HANDED_OVER:
            return content
        if not isinstance(content, dict) or not isinstance(content.get("state_dict"), Mapping):
            raise UserError(f"{path} is no training checkpoint: {_otherwise(path)}")
        return content


def is_of_restoring(error: BaseException) -> bool:
    """Whether Lightning, or what it calls, failed on a state that it took from a checkpoint."""
    frames = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
    restoring = any(
        code.co_filename.endswith("checkpoint_connector.py")
        and code.co_name.lstrip("_").startswith(("restore", "resume"))
        for code in frames
    )
    return restoring and not isinstance(error, UserError | OSError | MemoryError)


def damaged(path: Any, error: BaseException) -> UserError:
    """A readable checkpoint whose states are not what a training writes."""
    said = one_sentence(error, longest=80)
    return UserError(
        f"{path} cannot be gone on from, its states are not what a training of this model writes "
        f"({type(error).__name__}: {said}): {_otherwise(path)}"
    )


def local_path(path: Any) -> Path | None:
    """The path in the local file system; None for one of another (``s3://``)."""
    system, name = url_to_fs(os.fspath(path))
    return Path(name) if isinstance(system, LocalFileSystem) else None


def _write(checkpoint: dict[str, Any], file: Any) -> None:
    """``torch.save``, which hides what the file system said behind an error of its own."""
    said: list[OSError] = []

    class Listening:
        def write(self, data: Any) -> int:
            try:
                return int(file.write(data))
            except OSError as error:
                said.append(error)
                raise

        def flush(self) -> None:
            file.flush()

    try:
        torch.save(checkpoint, cast(Any, Listening()))
    except Exception:
        if said:
            raise said[0] from None
        raise


def _otherwise(path: Any) -> str:
    """What else in the folder a training can go on from."""
    local = local_path(path)
    found = [] if local is None else sorted(local.parent.glob("[!.]*.ckpt"))
    whole = [(other, step) for other in found if other != local and (step := _step(other))]
    if not whole:
        return "there is no other in its folder, so start anew, without ckpt_path"
    named = ", ".join(f"{other.name} of step {step}" for other, step in whole)
    return f"go on from another, {named}: ckpt_path={whole[0][0]}"


def _step(path: Path) -> int | None:
    """Of a readable checkpoint."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(content["global_step"])
    except Exception:
        return None


def not_finite_part(checkpoint: Mapping[str, Any]) -> str | None:
    """Names the weights, statistics or optimizer state that are not finite; None: all are."""
    names = [
        name
        for key, value in checkpoint.items()
        if key not in _NOT_WEIGHTS
        for name in _not_finite(value, key)
    ]
    if not names:
        return None
    first = names[0].removeprefix("state_dict.").removeprefix("network.")
    more = f" and {len(names) - 1} other tensors" if len(names) > 1 else ""
    return f"{first}{more}"


def _not_finite(value: Any, name: str) -> list[str]:
    found = [(key, t) for key, t in _tensors(value, name) if t.is_floating_point() and t.numel()]
    bad = []
    for device in {t.device for _, t in found}:
        here = [(key, t) for key, t in found if t.device == device]
        flags = torch.stack([torch.isfinite(t).all() for _, t in here]).tolist()  # one transfer
        bad += [key for (key, _), finite in zip(here, flags, strict=True) if not finite]
    return bad


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value.detach()
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors(inner, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            yield from _tensors(inner, f"{name}.{position}")
