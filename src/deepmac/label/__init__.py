"""Boxes in, masks out: ``deepmac label`` gives every box of a data set its mask.

Read in this order: ``read_boxes`` (boxes in any of four formats), ``plan`` (what is to be done,
what is wrong), ``inference`` and ``masks`` (the network's part), ``parts`` (work that survives a
kill), ``merge`` and ``writers`` (the output), ``command``; ``cluster`` for many hosts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ray.data


def dataset(
    ds: ray.data.Dataset,
    model: Any = "deepmac-lite",
    *,
    images: str = "",
    rows: int = 1024,
    actors: int | None = None,
    cpus_per_actor: float = 1.0,
    gpus_per_actor: float | None = None,
    **options: Any,
) -> ray.data.Dataset:
    """Masks for a Ray data set of boxes.

    Args:
        ds: rows with ``image`` (path below ``images``) and ``x1``, ``y1``, ``x2``, ``y2`` in
            pixels; the other columns of ``deepmac.label.cluster.tables.BOXES`` are kept where they
            are. Rows of one image should be neighbours, so that it is read once.
        model: name, folder or file, or a network of ``load_model``.
        images: folder or URL that image paths start from.
        rows: boxes that an actor takes at once.
        actors: copies of the network; as many as the cluster has room for.
        cpus_per_actor: cores.
        gpus_per_actor: cards; 1 where the cluster has one.
        options: of :func:`deepmac.label.cluster.job.work_of`: ``threshold``, ``refine``, ...

    Returns:
        The rows with ``rle``, ``area``, ``raw_score``, ``mask_score``, ``model`` and ``error``, see
        ``MASKS``; lazily, as all of Ray's data sets.

    Raises:
        UserError: the extra ``ray`` is missing, or the model cannot be read.
    """
    from deepmac.label.cluster.command import require_packages

    require_packages()
    from deepmac.label.cluster.engine import Workers, label_dataset
    from deepmac.label.cluster.job import work_of

    if isinstance(model, str) or hasattr(model, "__fspath__"):
        from deepmac.models.files import load_model

        model = load_model(model)
    workers = Workers(actors, cpus_per_actor, gpus_per_actor)
    return label_dataset(ds, model, work_of(model, images, **options), workers, rows)
