"""Images on which not every object is annotated: where an unmarked place says nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from deepmac.data.annotations.records import ImageRecord


def open_classes(record: ImageRecord, label_of: Mapping[int, int]) -> Tensor:
    """Class slots of which an image may show objects that nobody annotated.

    None on an exhaustive image. Where the file tells which classes were looked for (LVIS's
    ``neg_category_ids`` and ``not_exhaustive_category_ids``, Open Images' verified labels), absent
    classes are closed, and so are annotated ones unless some of their objects may be missing. Where
    it does not, all classes are open.

    Args:
        record: the image.
        label_of: category id -> class slot.

    Returns:
        (C,) bool.
    """
    found = torch.zeros(len(label_of), dtype=torch.bool)
    if record.exhaustive:
        return found
    known = set(record.neg_category_ids)
    partly = set(record.not_exhaustive_category_ids)
    if known or partly:
        known |= {item.category_id for item in record.instances} - partly
    found[[slot for category, slot in label_of.items() if category not in known]] = True
    return found
