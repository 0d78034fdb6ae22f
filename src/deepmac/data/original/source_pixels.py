"""Which pixel of the original image every pixel now shows, for masks warped as the original does.

The TensorFlow original flips, crops and scales full-size masks along with the image, each time
taking whole pixels. All of that moves rows and columns apart from each other, so two lists of
indices hold it for all masks of an image at once.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

OUTSIDE = -1
"""In place of an index: nothing of the image is here."""


class SourcePixels(tv_tensors.TVTensor):
    """Source row of every row and source column of every column, ``OUTSIDE`` where filled.

    An int64 tensor (1 + height + width,): the height, then rows, then columns.
    """

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor) -> SourcePixels:
        """From (height,) and (width,) indices."""
        height = torch.tensor([len(rows)])
        return torch.cat([height, rows.long(), columns.long()]).as_subclass(cls)

    @classmethod
    def identity(cls, height: int, width: int) -> SourcePixels:
        """Of an image that nothing has been done to."""
        return cls.of(torch.arange(height), torch.arange(width))

    @property
    def rows(self) -> Tensor:
        """(height,) int64."""
        plain = self.as_subclass(Tensor)
        return plain[1 : 1 + int(plain[0])]

    @property
    def columns(self) -> Tensor:
        """(width,) int64."""
        plain = self.as_subclass(Tensor)
        return plain[1 + int(plain[0]) :]

    def taken(self, rows: Tensor, columns: Tensor) -> SourcePixels:
        """A new image of the present one's ``rows`` and ``columns``, ``OUTSIDE`` for filling."""
        return SourcePixels.of(_take(self.rows, rows), _take(self.columns, columns))

    def warp(self, mask: NDArray[np.uint8]) -> Tensor:
        """(height, width) uint8: a mask of the original image, where the pixels are now."""
        # One row and column of zeros behind the last: that is where index -1 looks.
        padded = np.pad(mask, ((0, 1), (0, 1)))
        return torch.from_numpy(padded[self.rows.numpy()[:, None], self.columns.numpy()])


@F.register_kernel(F.horizontal_flip, SourcePixels)
def _horizontal_flip(pixels: SourcePixels) -> SourcePixels:
    return SourcePixels.of(pixels.rows, pixels.columns.flip(0))


def _take(sources: Tensor, index: Tensor) -> Tensor:
    return torch.where(index < 0, OUTSIDE, sources[index])
