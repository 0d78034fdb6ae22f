"""``deepmac label --engine ray``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deepmac.errors import ConfigError, UserError

SKIPPED = 3


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ConfigError(
            f"label --engine ray: {message}; `deepmac label --engine ray --help` lists the options"
        )


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = _Parser(
        prog="deepmac label --engine ray",
        description="Masks for tables of boxes, on a Ray cluster or on this machine's cores. Boxes "
        "and masks are Parquet tables (docs/label.md has their columns; `deepmac boxes` and "
        "`deepmac masks` convert). Given again, the command goes on where it was stopped; what "
        "cannot be labelled is a row that says why.",
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--engine", choices=["ray"], help=argparse.SUPPRESS)
    add("--model", default="deepmac-lite", help="name, folder, .safetensors or .ckpt")
    add("--images", required=True, metavar="DIR|URL", help="where image paths start from")
    add("--boxes", required=True, metavar="PARQUET|DIR|URL", help="tables of boxes")
    add("--out", required=True, metavar="DIR|URL", help="for the tables of masks")
    add("--threshold", type=float, help="of the pixels' probability; the model's own")
    add("--refine", choices=["none", "edges", "full"], help="the model's own")
    add("--box-margin", type=float, default=0.0, metavar="SHARE", help="look beyond the boxes")
    add("--largest-component", action="store_true", help="drop all but a mask's largest part")
    add("--fill-holes", action="store_true", help="fill what a mask encloses")
    add("--calibration", type=Path, help="calibration.json of the model's folder, where it is")
    add("--batch-size", type=int, default=4, help="pictures at once (%(default)s)")
    add("--precision", choices=["32", "bf16"], default="32", help="(%(default)s)")
    add("--actors", type=int, help="copies of the network; as many as the cluster has room for")
    add("--cpus-per-actor", type=float, default=1.0, help="(%(default)g)")
    add("--gpus-per-actor", type=float, help="1 where the cluster has cards")
    add("--address", help="of the cluster; RAY_ADDRESS, or this machine")
    add("--restart", action="store_true", help="drop another job's tables in --out")
    return made


def command(arguments: Sequence[str]) -> int:
    """Run it; returns the exit status: 0, or 3 where some boxes have no mask.

    Raises:
        UserError: anything that a user can mend.
    """
    options = parser().parse_args(list(arguments))
    for name, holds in (
        ("threshold", lambda v: 0 < v < 1),
        ("box_margin", lambda v: 0 <= v <= 1),
        ("batch_size", lambda v: 1 <= v <= 4096),
        ("actors", lambda v: v >= 1),
        ("cpus_per_actor", lambda v: v > 0),
        ("gpus_per_actor", lambda v: v >= 0),
    ):
        value = getattr(options, name)
        if value is not None and not holds(value):
            raise ConfigError(f"--{name.replace('_', '-')} {value} is out of its range")
    require_packages()

    from deepmac.label.cluster.engine import Workers, run
    from deepmac.label.cluster.job import work_of
    from deepmac.models.files import load_model

    network = load_model(options.model)
    work = work_of(
        network,
        options.images,
        threshold=options.threshold,
        refine=options.refine,
        box_margin=options.box_margin,
        largest_component=options.largest_component,
        fill_holes=options.fill_holes,
        calibration=_calibration(options),
        batch_size=options.batch_size,
        precision=options.precision,
    )
    workers = Workers(
        options.actors, options.cpus_per_actor, options.gpus_per_actor, options.address
    )
    found = run(network, work, options.boxes, options.out, workers, restart=options.restart)
    print(
        f"{found.units} tables of masks -> {options.out} ({found.skipped} were there; "
        f"{found.boxes:,} boxes now, {found.errors:,} of them without a mask)"
    )
    return SKIPPED if found.errors else 0


def require_packages() -> None:
    """Raise UserError unless the extra is there."""
    for package in ("pyarrow", "ray"):
        if find_spec(package) is None:
            raise UserError(f"--engine ray takes the package {package}: pip install 'deepmac[ray]'")


def _calibration(options: argparse.Namespace) -> Path | None:
    from deepmac.label.masks.calibration import FILE_NAME
    from deepmac.models.place import WEIGHTS, model_file

    if options.calibration is not None:
        return Path(options.calibration)
    weights = model_file(options.model)
    beside = weights.with_name(FILE_NAME)
    return beside if weights.name == WEIGHTS and beside.is_file() else None
