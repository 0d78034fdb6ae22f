"""Which image comes when: the same order for any number of devices, resumable in mid-epoch."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler


class EpochBatchSampler(Sampler[list[tuple[int, ...]]]):
    """Batches of ``(epoch, image, batch)`` keys for one of ``world_size`` devices.

    An epoch's order depends on ``(seed, epoch)`` only. Device r takes every ``world_size``-th image
    from the r-th on, so the k-th batches of all devices together are the k-th run of
    ``batch_size * world_size`` images of that order, and without ``drop_last`` each image comes
    exactly once: devices may differ by one image and hence by one batch, none is repeated as
    filling.

    With ``factors`` an epoch is as long, but its images come in proportion to theirs: rounded up or
    down, by chance in each epoch. The key of an image that came before in the epoch has a fourth
    number, how often it did.

    With ``drop_last`` the incomplete last run is left out on every device alike; fewer images than
    one full run give no batch.

    Attributes:
        epoch: of the next iteration; see :meth:`set_epoch`.
        start_batch: batches to skip at the start of the next iteration, once: set it to continue
            inside an epoch. ``len`` always counts the whole epoch.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        rank: int = 0,
        world_size: int = 1,
        factors: NDArray[np.float64] | None = None,
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"batch_size {batch_size}, rank {rank} of {world_size}")
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.factors = factors
        self.epoch = 0
        self.start_batch = 0

    @property
    def sampler(self) -> "EpochBatchSampler":
        """Itself: Lightning calls ``batch_sampler.sampler.set_epoch`` before every epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order (and augmentations) the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.drop_last:
            return self.num_images // (self.batch_size * self.world_size)
        own = max(0, self.num_images - self.rank + self.world_size - 1) // self.world_size
        return -(-own // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        epoch, first, self.start_batch = self.epoch, self.start_batch, 0
        own = self._order(epoch)[self.rank :: self.world_size]
        for batch in range(first, len(self)):
            start = batch * self.batch_size
            some = own[start : start + self.batch_size]
            yield [(epoch, image, batch, *([again] if again else [])) for image, again in some]

    def _order(self, epoch: int) -> list[tuple[int, int]]:
        """Images, and how often each came before."""
        if not self.shuffle:
            return [(image, 0) for image in range(self.num_images)]
        generator = np.random.default_rng((self.seed, epoch))
        order = generator.permutation(self.num_images)
        if self.factors is None:
            return [(image, 0) for image in order.tolist()]
        ends = np.cumsum(self.factors[order])
        marks = (np.arange(self.num_images) + generator.random()) * (ends[-1] / self.num_images)
        drawn = order[np.searchsorted(ends, marks, side="right").clip(max=self.num_images - 1)]
        seen: Counter[int] = Counter()
        times = []
        for image in generator.permutation(drawn).tolist():
            times.append((image, seen[image]))
            seen[image] += 1
        return times
