"""What a job of many hosts takes, on paper: ``python -m benchmarks.scale --images 1e9 --hosts 64``.

Rates are given on the command line; everything else is products and quotients, and the narrowest of
the stages is named. ``--measure ROOT`` prints the rates of a core of this machine, for that.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

HOURS = 3600.0


@dataclass(frozen=True)
class Hosts:
    """What does the work.

    Attributes:
        number: hosts.
        cores: for decoding, each host.
        cards: each host; 0: the cores compute too.
        network: bytes a second, each host.
        price: an hour of a host, in any currency.
    """

    number: int
    cores: int = 16
    cards: int = 0
    network: float = 1.25e9
    price: float = 0.0


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        images: pictures that are read, each once an epoch.
        boxes: on each.
        picture_bytes: of a picture's file.
        annotation_bytes: of a box with its mask, packed.
        decode: pictures a second and core, decoded and scaled.
        compute: pictures a second and card (or core, where there is no card).
        per_box: seconds more a box, of the same.
        chunk_bytes: of a chunk or table that is read by one request.
        requests: price of 1,000 of them.
        store: bytes a second that the object store gives all together.
    """

    images: float
    boxes: float = 7.0
    picture_bytes: float = 1.6e5
    annotation_bytes: float = 400.0
    decode: float = 300.0
    compute: float = 5.0
    per_box: float = 0.0
    chunk_bytes: float = 32e6
    requests: float = 0.0004
    store: float = 1e11


@dataclass(frozen=True)
class Estimate:
    """Of a job.

    Attributes:
        seconds: of each stage, were it alone; the job takes the longest.
        bytes: that are read.
        chunks: requests.
        cost: of hosts and requests.
        index_bytes: of the table of chunks, which every host holds.
    """

    seconds: dict[str, float]
    bytes: float
    chunks: int
    cost: float
    index_bytes: float

    @property
    def narrowest(self) -> str:
        """The stage that the others wait for."""
        return max(self.seconds, key=self.seconds.__getitem__)

    @property
    def hours(self) -> float:
        """Of the whole job."""
        return self.seconds[self.narrowest] / HOURS


def estimate(job: Job, hosts: Hosts) -> Estimate:
    """The arithmetic.

    With cards, cores decode while cards compute; without them one core does both in turn.
    """
    total = job.images * (job.picture_bytes + job.boxes * job.annotation_bytes)
    one = 1 / job.compute + job.boxes * job.per_box
    decoding = job.images / job.decode / (hosts.number * hosts.cores)
    seconds = {
        "network of the hosts": total / (hosts.number * hosts.network),
        "object store": total / job.store,
    }
    if hosts.cards:
        seconds["decoding"] = decoding
        seconds["cards"] = job.images * one / (hosts.number * hosts.cards)
    else:
        both = 1 / job.decode + one
        seconds["cores"] = job.images * both / (hosts.number * hosts.cores)
    chunks = math.ceil(total / job.chunk_bytes)
    hours = max(seconds.values()) / HOURS
    cost = hours * hosts.number * hosts.price + chunks / 1000 * job.requests
    return Estimate(seconds, total, chunks, cost, chunks * 56.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for some numbers of hosts."""
    options = _parser().parse_args(arguments)
    if options.measure is not None:
        decode, compute, boxes = rates(options.measure, options.count)
        print(
            f"--decode {decode:.3g} --compute {compute:.3g} --boxes {boxes:.3g}  (deepmac-lite, "
            f"{options.count} pictures, CPU time of one thread)"
        )
        return
    job = Job(
        images=options.images, boxes=options.boxes, picture_bytes=options.picture_kb * 1e3,
        decode=options.decode, compute=options.compute, per_box=options.per_box,
        store=options.store_gb * 1e9,
    )  # fmt: skip
    base = Hosts(1, options.cores, options.cards, options.network_gb * 1e9, options.price)
    print(
        f"on paper: {job.images:.3g} pictures of {options.picture_kb:g} kB, {job.boxes:g} boxes "
        f"each; decoding {job.decode:g}/s a core, {job.compute:g}/s a "
        f"{'card' if base.cards else 'core'}"
    )
    print(f"{'hosts':>6} {'hours':>9} {'read, TB':>9} {'requests':>10} {'cost':>9}  waits for")
    for number in options.hosts:
        found = estimate(job, replace(base, number=number))
        print(
            f"{number:>6} {found.hours:>9.3g} {found.bytes / 1e12:>9.3g} {found.chunks:>10,} "
            f"{found.cost:>9,.0f}  {found.narrowest}"
        )


def rates(root: Path, count: int) -> tuple[float, float, float]:
    """Pictures a second of CPU time: decoded and scaled, and labelled besides; boxes on each.

    Args:
        root: data set in COCO's layout.
        count: pictures.
    """
    import pyarrow as pa
    import torch

    from deepmac.data.annotations.coco import read_coco
    from deepmac.data.annotations.locate import locate_coco
    from deepmac.data.images import read_image
    from deepmac.label.cluster.job import work_of
    from deepmac.label.cluster.labeller import Labeller
    from deepmac.models.files import load_model

    torch.set_num_threads(1)
    index = read_coco(*locate_coco(root, "val"), check_images="none")
    records = [r for r in index.images[: 2 * count] if r.instances][:count]
    network = load_model("deepmac-lite")
    labeller = Labeller(network, work_of(network, str(index.image_dir)), device="cpu")
    rows = [
        {
            "image": r.file_name,
            "image_number": n,
            **dict(zip(("x1", "y1", "x2", "y2"), i.box, strict=True)),
        }
        for n, r in enumerate(records)
        for i in r.instances
    ]
    table = pa.Table.from_pylist(rows)
    labeller(table.slice(0, 8))
    started = time.process_time()
    for record in records:
        labeller.work.spec.letterbox(read_image(record.path))
    decoded = time.process_time()
    labeller(table)
    decode = (decoded - started) / len(records)
    labelled = (time.process_time() - decoded) / len(records)
    return 1 / decode, 1 / (labelled - decode), len(rows) / len(records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    plain, host = Job(1), Hosts(1)
    add = parser.add_argument
    add("--images", type=float, default=1e9, help="(%(default)g)")
    add("--boxes", type=float, default=plain.boxes, help="a picture (%(default)g)")
    add("--hosts", type=int, nargs="+", default=[1, 8, 64, 1024])
    add("--picture-kb", type=float, default=plain.picture_bytes / 1e3, help="(%(default)g)")
    add("--decode", type=float, default=plain.decode, help="pictures/s a core (%(default)g)")
    add("--compute", type=float, default=plain.compute, help="pictures/s a card, or core")
    add("--per-box", type=float, default=plain.per_box, help="seconds more a box (%(default)g)")
    add("--cores", type=int, default=host.cores, help="a host (%(default)s)")
    add("--cards", type=int, default=host.cards, help="a host (%(default)s)")
    add("--network-gb", type=float, default=host.network / 1e9, help="GB/s a host (%(default)g)")
    add("--store-gb", type=float, default=plain.store / 1e9, help="GB/s together (%(default)g)")
    add("--measure", type=Path, metavar="ROOT", help="print the rates of a core on this data set")
    add("--count", type=int, default=24, help="pictures of that (%(default)s)")
    add("--price", type=float, default=0.0, help="of a host's hour")
    return parser


if __name__ == "__main__":
    main()
