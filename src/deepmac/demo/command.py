"""``deepmac demo --model M``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deepmac.errors import ConfigError, UserError

if TYPE_CHECKING:
    from deepmac.label.masks.calibration import Calibration
    from deepmac.nn.network import SegmentationNetwork

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def command(arguments: Sequence[str]) -> int:
    """Serve until interrupted; returns the exit code.

    Raises:
        UserError: a package is missing, the model or the boxes cannot be read, the address cannot
            be had.
    """
    options = _parser().parse_args(list(arguments))
    if (options.boxes is None) != (options.images is None):
        raise ConfigError("--boxes JSON and --images DIR go together: a data set to put right")
    if options.only is not None and options.boxes is None:
        raise ConfigError("--only FILE chooses pictures of a data set: give --boxes and --images")
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"the demo needs the package {error.name}: pip install 'deepmac[demo]'"
        ) from error
    try:
        return _serve(options)
    except KeyboardInterrupt:  # before the server listens to it
        return 130


def _serve(options: argparse.Namespace) -> int:
    from deepmac.demo.app import make_app
    from deepmac.demo.corrections import Corrections
    from deepmac.demo.pictures import Limits
    from deepmac.demo.serving import listen, serve
    from deepmac.label.marks import read_marks
    from deepmac.models.files import load_model

    limits = Limits(
        upload_megabytes=options.max_megabytes,
        megapixels=options.max_megapixels,
        kept=options.keep,
    )
    corrections = None
    if options.boxes is not None:
        marks = read_marks(options.only) if options.only else None
        corrections = Corrections(options.boxes, options.images, marks)
    model = load_model(options.model, device=options.device)
    app = make_app(
        model,
        name=Path(options.model).name,
        limits=limits,
        hosts=_hosts(options),
        calibration=_calibration(options.model, model),
        corrections=corrections,
        precision=options.precision,
        runtime=options.runtime,
    )
    listener = listen(options.host, options.port)
    port = listener.getsockname()[1]
    shown = f"[{options.host}]" if ":" in options.host else options.host
    print(f"http://{shown}:{port}  (Ctrl+C ends it)", flush=True)
    if options.host not in _LOOPBACK:
        what = "use this page" + (f" and change {options.boxes}" if corrections else "")
        print(
            f"deepmac: everyone who reaches port {port} of this machine can {what}",
            file=sys.stderr,
        )
    serve(app, listener)
    return 0


def _calibration(path_or_name: str, model: SegmentationNetwork) -> Calibration | None:
    """What lies beside the model, as ``deepmac label`` finds it."""
    from deepmac.label.digest import model_digest
    from deepmac.label.masks.calibration import FILE_NAME, Calibration
    from deepmac.models.files import WEIGHTS, model_file

    weights = model_file(path_or_name)
    beside = weights.with_name(FILE_NAME)
    if weights.name != WEIGHTS or not beside.is_file():
        return None
    try:
        return Calibration.read(beside, model_digest(model))
    except UserError as error:
        print(f"deepmac: scores are not calibrated: {error}", file=sys.stderr)
        return None


def _hosts(options: argparse.Namespace) -> tuple[str, ...]:
    """Names under which a browser may ask for the page; others are foreign pages' tricks."""
    if options.allow_host:
        return (*_LOOPBACK, options.host, *options.allow_host)
    if options.host in ("0.0.0.0", "::"):
        return ("*",)
    return (*_LOOPBACK, options.host)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deepmac demo",
        description="Open a picture in the browser, draw boxes, see their masks, take them along "
        "as PNG, COCO json or YOLO. With --boxes: put the masks of a whole data set right. "
        "Pictures stay on this machine.",
    )
    parser.add_argument(
        "--model",
        default="deepmac-lite",
        metavar="MODEL",
        help="a model's name, folder or checkpoint; default: deepmac-lite",
    )
    correct = parser.add_argument_group("putting a data set right")
    correct.add_argument(
        "--boxes", type=Path, metavar="JSON", help="COCO json, such as label's; saved back into it"
    )
    correct.add_argument("--images", type=Path, metavar="DIR", help="folder of its pictures")
    correct.add_argument(
        "--only",
        type=Path,
        metavar="FILE",
        help="marks that the review sheet saved: only pictures with masks to redraw",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine only")
    parser.add_argument("--port", type=int, default=7860, help="default: 7860; 0: a free one")
    parser.add_argument(
        "--allow-host",
        action="append",
        metavar="NAME",
        help="a name the page may be asked for under, where it stands behind a proxy; repeatable",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ...; default: cpu")
    parser.add_argument(
        "--precision",
        choices=("auto", "32", "bf16"),
        default="auto",
        help="auto: bfloat16 where the processor or card computes in it; default: auto",
    )
    parser.add_argument(
        "--runtime",
        choices=("torch", "openvino"),
        default="torch",
        help="openvino: the backbone by OpenVINO, sooner on CPUs; default: torch",
    )
    parser.add_argument(
        "--max-megabytes", type=_positive, default=25.0, help="of a picture file; default: 25"
    )
    parser.add_argument(
        "--max-megapixels", type=_positive, default=50.0, help="of a picture; default: 50"
    )
    parser.add_argument(
        "--keep",
        type=_count,
        default=8,
        help="pictures held in memory; the one longest unused goes first; default: 8",
    )
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value
