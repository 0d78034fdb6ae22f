"""What the prediction heads say on one backbone output: all of it, or what is asked for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from deepmac.nn.centernet import CenterNetHeads, PredictionHead
from deepmac.nn.tracing import static_shapes

_FEW_CELLS = 16  # a head costs nine times as much a cell where it runs around single ones


class StageOutput(NamedTuple):
    """What the heads on one backbone output say; ``h w`` is the map of ``stride`` pixels a cell.

    Attributes:
        heatmap: (B, C, h, w) class logits of object centres, or None without a detector.
        size: (B, 2, h, w) box width and height in cells, or None.
        offset: (B, 2, h, w) x and y of the centre within its cell, in cells, or None.
        pixel_embedding: (B, E, h, w).
        instance_embedding: (B, D, h, w), or None where the mask head uses none.
    """

    heatmap: Tensor | None
    size: Tensor | None
    offset: Tensor | None
    pixel_embedding: Tensor
    instance_embedding: Tensor | None

    def at(self, name: str, y: Tensor, x: Tensor) -> Tensor | None:
        """(B, N, D): the map of that name at rows and columns (B, N) of cells, if there is one."""
        maps: Tensor | None = getattr(self, name)
        return None if maps is None else read_cells(maps, y, x)

    def of_image(self, index: int) -> StageOutput:
        """The maps of one image of the batch."""
        return StageOutput(*(maps if maps is None else maps[index : index + 1] for maps in self))  # type: ignore[arg-type]


class LazyStage:
    """A ``StageOutput`` whose maps are computed when they are first read.

    Masks of given boxes read the embeddings alone, and are spared the detector's three heads.
    Heads run in the autocast that the stage was made in, wherever they are read.

    Args:
        heads: of the stage.
        features: (B, F, h, w) the backbone's output.
    """

    def __init__(self, heads: CenterNetHeads, features: Tensor) -> None:
        self._heads, self.features = heads, features
        self._autocast = _autocast_of(features)

    @cached_property
    def heatmap(self) -> Tensor | None:
        return self._head("heatmap")

    @cached_property
    def size(self) -> Tensor | None:
        return self._head("size")

    @cached_property
    def offset(self) -> Tensor | None:
        return self._head("offset")

    @cached_property
    def pixel_embedding(self) -> Tensor:
        embedding = self._head("pixel_embedding")
        assert embedding is not None
        return embedding

    @cached_property
    def instance_embedding(self) -> Tensor | None:
        return self._head("instance_embedding")

    def at(self, name: str, y: Tensor, x: Tensor) -> Tensor | None:
        """As ``StageOutput.at``; for few cells the head runs around them alone."""
        if name not in self._heads:
            return None
        head = self._heads[name]
        if name in self.__dict__ or static_shapes(y) or not _is_few(y, self.features, head):
            maps: Tensor | None = getattr(self, name)
            assert maps is not None
            return read_cells(maps, y, x)
        assert isinstance(head, PredictionHead)
        with self._as_made():
            return head.at(self.features, y, x)

    def of_image(self, index: int) -> LazyStage:
        """As ``StageOutput.of_image``."""
        with self._as_made():
            return LazyStage(self._heads, self.features[index : index + 1])

    def _head(self, name: str) -> Tensor | None:
        if name not in self._heads:
            return None
        with self._as_made():
            maps: Tensor = self._heads(self.features, only=(name,))[name]
        return maps

    def _as_made(self) -> AbstractContextManager[Any]:
        if self._autocast == _autocast_of(self.features):
            return nullcontext()
        enabled, dtype = self._autocast
        return torch.autocast(self.features.device.type, dtype, enabled=enabled)


def _autocast_of(features: Tensor) -> tuple[bool, torch.dtype | None]:
    device = features.device.type
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False, None
    enabled = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return enabled, torch.get_autocast_dtype(device) if enabled else None


def _is_few(cells: Tensor, features: Tensor, head: nn.Module) -> bool:
    """Whether a head may run around (B, N) cells alone, and is sooner done so.

    In training it is run for no cells too: each parameter has a gradient.
    """
    few = _FEW_CELLS * cells.shape[1] <= features.shape[-2:].numel()
    learns = torch.is_grad_enabled() and not cells.numel()
    return few and not learns and isinstance(head, PredictionHead)


def read_cells(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """(B, N, D): what (B, D, h, w) maps hold at the rows and columns (B, N)."""
    index = (y * maps.shape[-1] + x)[:, None].expand(-1, maps.shape[1], -1)
    return maps.flatten(2).gather(2, index).transpose(1, 2)


Stage = StageOutput | LazyStage
