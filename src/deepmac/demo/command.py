"""``deepmac demo --model M``."""

from __future__ import annotations

import argparse
import errno
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from deepmac.errors import UserError

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def command(arguments: Sequence[str]) -> int:
    """Serve until interrupted; returns the exit code.

    Raises:
        UserError: a package is missing, the model cannot be read, the address cannot be had.
    """
    options = _parser().parse_args(list(arguments))
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise UserError(
            f"the demo needs the package {error.name}: pip install 'deepmac[demo]'"
        ) from error

    from deepmac.demo.app import make_app
    from deepmac.demo.pictures import Limits
    from deepmac.models.files import load_model

    limits = Limits(
        upload_megabytes=options.max_megabytes,
        megapixels=options.max_megapixels,
        kept=options.keep,
    )
    model = load_model(options.model, device=options.device)
    app = make_app(model, name=Path(options.model).name, limits=limits, hosts=_hosts(options))
    listener = _listener(options.host, options.port)
    port = listener.getsockname()[1]
    shown = f"[{options.host}]" if ":" in options.host else options.host
    print(f"http://{shown}:{port}  (Ctrl+C ends it)", flush=True)
    if options.host not in _LOOPBACK:
        print(
            f"deepmac: everyone who reaches port {port} of this machine can use this page",
            file=sys.stderr,
        )
    config = uvicorn.Config(
        app, log_level="warning", limit_concurrency=64, timeout_keep_alive=30, server_header=False
    )
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _listener(host: str, port: int) -> socket.socket:
    """Open before the page is announced: a taken port is said at once, early visitors wait."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(64)
    except (OSError, OverflowError) as error:
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        raise UserError(
            f"the port {port} of {host} is taken: give another --port (0 chooses a free one)"
            if taken
            else f"cannot listen at {host}, port {port} ({error}): give another --host or --port"
        ) from error
    return listener


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
        "as PNG or COCO json. Pictures stay on this machine.",
    )
    parser.add_argument(
        "--model",
        default="deepmac-lite",
        metavar="MODEL",
        help="a model's name, folder or checkpoint; default: deepmac-lite",
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
