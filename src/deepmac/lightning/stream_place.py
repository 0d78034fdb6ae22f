"""What a checkpoint says of the order of chunks that its place in an epoch is a place in."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from deepmac.data.annotations.index import CocoIndex
from deepmac.data.stream.chunked import StreamImages
from deepmac.data.stream.order import StreamOrder
from deepmac.data.stream.sampler import check_order, told_order


class StreamPlace(pl.LightningDataModule):
    """The part of a data module that knows the order of a sharded training set."""

    train_index: CocoIndex | None

    def stream_order(self, images: StreamImages) -> StreamOrder:
        """The order that the settings ask for."""
        lanes = self.hparams["stream_lanes"]
        return StreamOrder(images.split.counts, seed=self.hparams["seed"], lanes=lanes)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint; empty where nothing is streamed."""
        images = None if self.train_index is None else self.train_index.images
        if not isinstance(images, StreamImages):
            return {}
        return told_order(images.split, self.stream_order(images))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refuse to go on in another order.

        Raises:
            ConfigError: the chunks, or their order, are not those of the checkpoint.
        """
        check_order(self.state_dict(), state, self.hparams["root"])
