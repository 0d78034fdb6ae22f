"""The demo's server process: sockets, patience with clients, a quiet end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from deepmac.demo.guard import SECONDS_OF_SILENCE
from deepmac.errors import UserError

_BACKLOG = 512


class _Impatient(H11Protocol):
    """Closes a connection that has not sent a whole request's head in time."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head = self.loop.call_later(SECONDS_OF_SILENCE, self._give_up)

    def handle_events(self) -> None:
        super().handle_events()
        if self._busy() and self._head is not None:
            self._head.cancel()
            self._head = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._head is None and not self.transport.is_closing():
            patience = self.timeout_keep_alive + SECONDS_OF_SILENCE
            self._head = self.loop.call_later(patience, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head is not None:
            self._head.cancel()
        super().connection_lost(exc)

    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _give_up(self) -> None:
        self._head = None
        if not self._busy() and not self.transport.is_closing():
            self.transport.close()


def server_of(app: ASGIApp, port: int | None = None) -> uvicorn.Server:
    """A server with patience for slow clients, but not without end.

    Args:
        app: the application.
        port: of 127.0.0.1; None where sockets are given when it runs.
    """
    config = uvicorn.Config(
        app,
        port=port or 0,
        http=_Impatient,
        ws="none",
        lifespan="off",
        log_level="error",
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
        server_header=False,
        backlog=_BACKLOG,
    )
    return uvicorn.Server(config)


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Answer until Ctrl+C or SIGTERM."""
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again once it has ended
        server_of(app).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Open before the page is announced: a taken port is said at once, early visitors wait.

    Raises:
        UserError: the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        raise UserError(
            f"the port {port} of {host} is taken: give another --port (0 chooses a free one)"
            if taken
            else f"cannot listen at {host}, port {port} ({error}): give another --host or --port"
        ) from error
    return listener
