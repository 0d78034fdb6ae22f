"""Where a training stands in its data, told so that another number of devices can go on there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

KEY = "deepmac_position"
"""The checkpoint's entry."""


class Pace(NamedTuple):
    """How a run walks through the data.

    Attributes:
        images: per batch, over all devices.
        batches: per epoch.
    """

    images: int
    batches: int


def moved(loops: dict[str, Any], old: Mapping[str, int], new: Pace) -> None:
    """Rewrite Lightning's batch counters, which count batches of the run that wrote them.

    An epoch's order does not depend on the number of devices, so only the place in it has to be
    told in other batches. Between two batches of the new run, the earlier one: its images come
    again.

    Args:
        loops: ``checkpoint["loops"]``, changed in place.
        old: the ``Pace`` of the run that wrote it, as a dict.
        new: of this run.
    """
    if (old["images"], old["batches"]) == new:
        return
    progress = loops["fit_loop"]["epoch_loop.batch_progress"]
    total, current = progress["total"], progress["current"]
    done = current["processed"]
    epochs = round((total["processed"] - done) / max(1, old["batches"]))
    now = new.batches if done >= old["batches"] else done * old["images"] // new.images
    now = min(now, new.batches)
    for counts, start in ((total, epochs * new.batches + now), (current, now)):
        before = counts["processed"]
        for name in counts:
            counts[name] = start + counts[name] - before
