"""Batches of a sharded set for one process, with the chunks that come next fetched meanwhile."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from deepmac.data.sampler import EpochBatchSampler
from deepmac.data.stream.chunked import ChunkedSplit
from deepmac.data.stream.order import StreamOrder
from deepmac.errors import ConfigError, UserError

_THREADS = 4
_AT_ONCE = 1024  # places of an order that are looked up together


class StreamBatchSampler(EpochBatchSampler):
    """As its base, in a :class:`StreamOrder`: batch k of all devices is run k of that order.

    Args:
        split: what is read.
        order: of its images.
        batch_size: images a batch.
        rank: of this process.
        world_size: how many there are.
    """

    def __init__(
        self,
        split: ChunkedSplit,
        order: StreamOrder,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(
            len(split),
            batch_size,
            seed=order.seed,
            shuffle=True,
            drop_last=True,
            rank=rank,
            world_size=world_size,
        )
        self.split, self.order = split, order
        self.fetcher = Fetcher(split) if split.cache is not None else None

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        epoch, first, self.start_batch = self.epoch, self.start_batch, 0
        coming: deque[int] = deque()
        known: deque[int] = deque(maxlen=max(1, self.order.chunks_at_once(self.world_size)))
        place, end = first * self.batch_size, len(self) * self.batch_size
        wanted = self.order.ahead(self.world_size) + self.batch_size
        for batch in range(first, len(self)):
            while place < end and len(coming) < wanted:
                stop = min(end, place + _AT_ONCE)
                own = np.arange(place, stop) * self.world_size + self.rank
                images = self.order.images_at(epoch, own)
                if self.fetcher is not None:
                    for chunk in dict.fromkeys(self.order.chunk_of(images).tolist()):
                        if chunk not in known:
                            known.append(chunk)
                            self.fetcher.want(chunk)
                coming.extend(images.tolist())
                place = stop
            yield [(epoch, coming.popleft(), batch) for _ in range(self.batch_size)]


class Fetcher:
    """Threads that bring chunks onto this machine; whoever needs one waits for it by itself.

    What fails here is left to that one, whose error is seen.
    """

    def __init__(self, split: ChunkedSplit) -> None:
        self.split = split
        self._queue: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __getstate__(self) -> dict[str, object]:
        return {"split": self.split}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def want(self, chunk: int) -> None:
        """Fetch a chunk soon."""
        while len(self._threads) < _THREADS:
            thread = threading.Thread(target=self._work, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._queue.put(chunk)

    def _work(self) -> None:
        while True:
            chunk = self._queue.get()
            try:
                self.split.fetch(chunk)
            except (UserError, OSError):
                continue


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for settings of the data that need a whole set at hand."""
    for name in ("only_images", "copy_paste", "repeat_threshold"):
        if settings[name]:
            raise ConfigError(
                f"data.{name} chooses from a whole set, and data.source=stream reads a few chunks "
                "at a time: leave it out, or train from a folder"
            )


def told_order(split: ChunkedSplit, order: StreamOrder) -> dict[str, Any]:
    """What a place in an order is a place in, for a checkpoint."""
    return {"set": split.digest, "stream_lanes": order.lanes, "seed": order.seed}


def check_cache(sampler: StreamBatchSampler, machines: int) -> None:
    """Raise ConfigError where the cache cannot hold what the processes of a machine read at once.

    Args:
        sampler: of a training.
        machines: that the training runs on.
    """
    split, order, world_size = sampler.split, sampler.order, sampler.world_size
    on_machine = -(-world_size // machines)
    each = order.chunks_at_once(world_size)
    split.keep_open = max(split.keep_open, each)
    if split.cache is None or not len(split.chunks):
        return
    together = min(len(split.chunks), each * on_machine)
    needed = together * int(split.chunks["bytes"].max())
    if needed > split.cache.limit:
        raise ConfigError(
            f"data.cache_gb={split.cache.limit / 1e9:g} is too small: this order reads {together} "
            f"chunks at once, up to {needed / 1e9:.3g} GB; raise it, or lower data.stream_lanes "
            f"(now {order.lanes})"
        )


def check_order(now: Mapping[str, Any], then: Mapping[str, Any], root: str) -> None:
    """Raise ConfigError where a place in the order of a checkpoint would be one in another order.

    Args:
        now: of :func:`told_order`; empty where nothing is streamed.
        then: the checkpoint's.
        root: of the set.
    """
    if not now or now == then:
        return
    if now["set"] != then.get("set"):
        raise ConfigError(
            f"data.root={root} is another sharding than the checkpoint's, with other images in its "
            "order: give that one, or begin anew with model.init_from"
        )
    raise ConfigError(
        "the checkpoint was written with "
        + ", ".join(f"data.{name}={then.get(name)}" for name in ("stream_lanes", "seed"))
        + ", another order of the images than now: give the same"
    )
