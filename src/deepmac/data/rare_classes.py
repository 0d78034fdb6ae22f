"""Images of rare classes more often: repeat factor sampling, as LVIS trains (Gupta et al. 2019).

Every positive cell of the heatmap is one object already, so that weights on a rare class's loss
would make few cells loud and leave the network with the same few pictures of it. Repeating images
shows it to all heads, masks included, under ever other augmentations; it is what the field
compares with on long-tailed sets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepmac.data.annotations.table import Table


def repeat_factors(table: Table, threshold: float) -> NDArray[np.float64]:
    """How much more often each image should come than one of frequent classes alone.

    A class on a share f of the images has the factor ``max(1, sqrt(threshold / f))``, an image the
    largest of its classes'.

    Args:
        table: the annotations; crowd regions count for nothing.
        threshold: share of the images below which a class is rare; LVIS takes 0.001.

    Returns:
        (images,) of at least 1.
    """
    objects = table.is_object
    images, categories = table.image_of_row[objects], table.category_id[objects]
    pairs = np.unique(np.stack([images, categories], axis=1), axis=0)
    factors = np.ones(len(table))
    if not len(pairs):
        return factors
    _, which, counts = np.unique(pairs[:, 1], return_inverse=True, return_counts=True)
    of_class = np.sqrt(threshold * len(table) / counts).clip(min=1.0)
    np.maximum.at(factors, pairs[:, 0], of_class[which])
    return factors
