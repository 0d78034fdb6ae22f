"""Which image of a sharded set comes when: shuffled, and yet from few chunks at a time.

An epoch's chunks are shuffled and put end to end; that row of images is cut into ``lanes`` of equal
length, images are shuffled within windows of each lane, and the order takes one image of every lane
in turn. It depends on ``(seed, epoch)`` and the set alone: any number of processes can share it.
A process that takes every n-th image meets ``lanes / gcd(lanes, n)`` of the lanes, hence with a
number of processes that divides the lanes each chunk goes to one of them.
"""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.typing import NDArray

MOST_LANES = 64
CHUNKS_PER_LANE = 4
"""A lane is at least that long, where nobody says how many there are."""
_CHUNKS_PER_WINDOW = 2


class StreamOrder:
    """The order of every epoch.

    Args:
        counts: (chunks,) images of each.
        seed: of the order.
        lanes: see the module; None: up to ``MOST_LANES``, none shorter than a few chunks.
    """

    def __init__(self, counts: NDArray[np.int64], *, seed: int, lanes: int | None = None) -> None:
        self.counts, self.seed = np.asarray(counts, "i8"), seed
        self.images = int(self.counts.sum())
        chosen = lanes or min(MOST_LANES, len(counts) // CHUNKS_PER_LANE)
        self.lanes = max(1, min(chosen, self.images))
        per_chunk = -(-self.images // max(1, len(self.counts)))
        self.window = max(1, _CHUNKS_PER_WINDOW * per_chunk)
        self._starts = np.cumsum(self.counts) - self.counts
        self._epoch = -1
        self._drawn: dict[tuple[int, int], NDArray[np.int64]] = {}

    def lanes_of(self, world_size: int) -> int:
        """How many lanes a process meets where it takes every ``world_size``-th image."""
        return self.lanes // gcd(self.lanes, world_size)

    def chunks_at_once(self, world_size: int) -> int:
        """Chunks that a process needs at about the same time, those read ahead included."""
        each = 2 * (_CHUNKS_PER_WINDOW + 1)
        return min(len(self.counts), self.lanes_of(world_size) * each)

    def ahead(self, world_size: int) -> int:
        """Images of a process after which every lane has moved by half a window."""
        return self.lanes_of(world_size) * self.window // 2

    def images_at(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the images that stand at some places of an epoch's order."""
        self._begin(epoch)
        lane, turn = places % self.lanes, places // self.lanes
        short, longer = divmod(self.images, self.lanes)
        starts = lane * short + np.minimum(lane, longer)
        lengths = short + (lane < longer)
        window, within = turn // self.window, turn % self.window
        row = np.empty(len(places), "i8")
        for n in range(len(places)):
            first = int(window[n]) * self.window
            size = min(self.window, int(lengths[n]) - first)
            drawn = self._within(epoch, int(lane[n]), int(window[n]), size)
            row[n] = int(starts[n]) + first + drawn[within[n]]
        chunk = np.searchsorted(self._ends, row, side="right")
        before = self._ends[chunk] - self.counts[self._chunks[chunk]]
        return np.asarray(self._starts[self._chunks[chunk]] + row - before)

    def chunk_of(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """The chunks of some images."""
        return np.asarray(np.searchsorted(self._starts, images, side="right") - 1)

    def _begin(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        self._epoch, self._drawn = epoch, {}
        rng = np.random.default_rng((self.seed, epoch))
        self._chunks = rng.permutation(len(self.counts))
        self._ends = np.cumsum(self.counts[self._chunks])

    def _within(self, epoch: int, lane: int, window: int, size: int) -> NDArray[np.int64]:
        key = lane, window
        if key not in self._drawn:
            self._drawn.pop((lane, window - 2), None)
            rng = np.random.default_rng((self.seed, epoch, lane, window))
            self._drawn[key] = rng.permutation(size)
        return self._drawn[key]
