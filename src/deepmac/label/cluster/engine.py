"""A labelling job on Ray Data: units of boxes to actors that hold the network, tables back."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from deepmac.data.stream.store import Store
from deepmac.errors import UserError, one_sentence
from deepmac.label.cluster.labeller import Labeller, Work
from deepmac.label.cluster.tables import Tables, Unit, as_bytes
from deepmac.nn.network import SegmentationNetwork

if TYPE_CHECKING:
    import ray.data

JOB = "_job.json"
_VERSION = 1
_SAID_EVERY = 10.0


@dataclass(frozen=True)
class Workers:
    """What a job may use.

    Attributes:
        actors: copies of the network; None: one for each card of the cluster, or for each
            ``cpus`` of its cores where it has no card.
        cpus: cores for each.
        gpus: cards for each; None: 1 where the cluster has one.
        address: of the cluster; None: ``RAY_ADDRESS``, or else this machine alone.
    """

    actors: int | None = None
    cpus: float = 1.0
    gpus: float | None = None
    address: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes:
        units: tables of masks that there are now, all that there are to be.
        skipped: of these, those that an earlier run had finished.
        boxes: rows that this run wrote.
        errors: of these, rows without a mask.
    """

    units: int
    skipped: int
    boxes: int
    errors: int


def run(
    network: SegmentationNetwork,
    work: Work,
    boxes: str,
    out: str,
    workers: Workers,
    *,
    restart: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Label all boxes of some tables, or those that no earlier run has finished.

    Args:
        network: in eval mode.
        work: what masks depend on.
        boxes: file, folder or URL of the tables.
        out: folder or URL of the tables of masks.
        workers: what may be used.
        restart: drop what another job left in ``out``.
        quiet: no progress.

    Raises:
        UserError: anything that a user can mend; finished tables are kept.
    """
    tables, store = Tables(boxes), Store(out)
    units = tables.units()
    about = tables.about()
    _begin(store, _identity(work, tables), restart)
    there = store.names()
    left = [unit for unit in units if unit.out not in there]
    if not left:
        return Outcome(len(units), len(units), 0, 0)
    told = _Progress(len(left), quiet)
    with _cluster(workers) as ray:
        count, needs = _actors(ray, workers, len(left))
        told.begin(count, needs)
        shared = ray.put(network)
        data = ray.data.from_items(
            [asdict(unit) for unit in left], override_num_blocks=min(len(left), 20_000)
        ).map_batches(
            _UnitActor,
            fn_constructor_kwargs={
                "network": [shared],
                "work": work,
                "boxes": boxes,
                "out": out,
                "about": {**about, "model": work.digest},
            },
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=count),
            **needs,
        )
        try:
            for rows in data.iter_batches(batch_size=None, batch_format="pyarrow"):
                told.add(rows)
        except Exception as error:
            raise _as_sentence(error) from error
    told.end()
    missing = {unit.out for unit in units} - set(store.names())
    if missing:
        raise UserError(f"{store.where(min(missing))} is missing: start again to label its boxes")
    return Outcome(len(units), len(units) - len(left), told.boxes, told.errors)


def label_dataset(
    ds: ray.data.Dataset, network: SegmentationNetwork, work: Work, workers: Workers, rows: int
) -> ray.data.Dataset:
    """See :func:`deepmac.label.dataset`."""
    import ray

    if not ray.is_initialized():
        _start(ray, workers)
    count, needs = _actors(ray, workers, None)
    shared = ray.put(network)
    return ds.map_batches(
        _TableActor,
        fn_constructor_kwargs={"network": [shared], "work": work},
        batch_size=rows,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=count),
        **needs,
    )


class _TableActor:
    """A network in a process of the cluster."""

    def __init__(self, network: list[Any], work: Work) -> None:
        import ray

        self.labeller = Labeller(ray.get(network[0]), work)

    def __call__(self, boxes: pa.Table) -> pa.Table:
        return self.labeller(boxes)


class _UnitActor(_TableActor):
    """Labels units and writes their tables: done twice, a unit is the same file."""

    def __init__(
        self, network: list[Any], work: Work, boxes: str, out: str, about: dict[str, Any]
    ) -> None:
        super().__init__(network, work)
        self.tables, self.store, self.about = Tables(boxes), Store(out), about

    def __call__(self, units: pa.Table) -> pa.Table:
        counts = []
        for fields in units.to_pylist():
            unit = Unit(**fields)
            masks = self.labeller(self.tables.rows(unit))
            self.store.write(unit.out, as_bytes(masks, self.about))
            errors = masks.num_rows - masks["error"].null_count
            counts.append({"boxes": masks.num_rows, "errors": errors, "process": os.getpid()})
        return pa.Table.from_pylist(counts)


def _identity(work: Work, tables: Tables) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "model": work.digest,
        "images": work.images,
        "boxes": [[name, size] for name, size in tables.sizes.items()],
        "image_size": work.spec.image_size,
        "input_shape": work.spec.shape,
        "batch_size": work.batch_size,
        "precision": work.precision,
        **asdict(work.options),
    }


def _begin(store: Store, identity: dict[str, Any], restart: bool) -> None:
    """Make the output's place, or go on in the one that the same job left."""
    if store.folder is not None:
        try:
            store.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write {store.where()} ({error.strerror}): choose another --out"
            ) from None
    try:
        before = json.loads(store.read(JOB))
    except (FileNotFoundError, ValueError):
        before = None
    if before is not None and before != identity and not restart:
        before = before if isinstance(before, dict) else {}
        name = next((n for n in identity if before.get(n) != identity[n]), "version")
        raise UserError(
            f"{store.where()} holds a job with another {name}: start it as before to finish it, "
            "choose another --out, or give --restart to drop it"
        )
    tables = [name for name in store.names() if name.endswith(".parquet")]
    if before is None and tables and not restart:
        raise UserError(f"{store.where()} holds tables of something else: choose another --out")
    if before != identity:
        for name in tables:
            store.remove(name)
        store.write(JOB, json.dumps(identity, indent=1).encode())


@contextmanager
def _cluster(workers: Workers) -> Iterator[Any]:
    """Ray, started or joined for the block."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError("--engine ray takes the package ray: pip install 'deepmac[ray]'") from None
    joined = ray.is_initialized()
    if not joined:
        _start(ray, workers)
    try:
        yield ray
    finally:
        if not joined:
            ray.shutdown()


def _start(ray: Any, workers: Workers) -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = workers.address or os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        settings |= {"include_dashboard": False}
        if workers.actors is not None and not workers.gpus:
            wanted = int(workers.actors * workers.cpus)
            settings["num_cpus"] = max(wanted, os.cpu_count() or 1)
    try:
        ray.init(address=address, **settings)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no Ray cluster answers at {address or 'this machine'} "
            f"({one_sentence(error, longest=120)}): check --address, or leave it out"
        ) from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _actors(ray: Any, workers: Workers, units: int | None) -> tuple[int, dict[str, Any]]:
    """How many actors, and what each asks of the cluster."""
    there = ray.cluster_resources()
    gpus = workers.gpus if workers.gpus is not None else float(there.get("GPU", 0) > 0)
    room = there.get("GPU", 0) / gpus if gpus else there.get("CPU", 1) / workers.cpus
    count = workers.actors or max(1, int(room))
    needs: dict[str, Any] = {"num_cpus": workers.cpus}
    if gpus:
        needs["num_gpus"] = gpus
    return max(1, count if units is None else min(count, units)), needs


def _as_sentence(error: Exception) -> Exception:
    """What an actor could not do, as its own sentence."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return UserError(f"{cause}; finished tables are kept: start again to go on")
        inner = getattr(cause, "cause", None)
        cause = inner if isinstance(inner, BaseException) else cause.__cause__
    return error


class _Progress:
    def __init__(self, units: int, quiet: bool) -> None:
        self.units, self.quiet = units, quiet
        self.done = self.boxes = self.errors = 0
        self._started = self._last = time.monotonic()

    def begin(self, actors: int, needs: dict[str, Any]) -> None:
        each = f"{needs.get('num_gpus', 0):g} cards, {needs['num_cpus']:g} cores"
        self._say(f"label: {self.units} tables to write with {actors} actors ({each} each)")

    def add(self, rows: pa.Table) -> None:
        self.done += rows.num_rows
        self.boxes += pc.sum(rows["boxes"]).as_py() or 0
        self.errors += pc.sum(rows["errors"]).as_py() or 0
        now = time.monotonic()
        if now - self._last >= _SAID_EVERY:
            self._last = now
            rate = self.boxes / (now - self._started)
            self._say(
                f"{self.done} of {self.units} tables, {self.boxes:,} boxes ({rate:.0f} a second), "
                f"{self.errors:,} without a mask"
            )

    def end(self) -> None:
        self._last = 0.0

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)
