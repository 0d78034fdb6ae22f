"""What stands before the routes: whose requests are answered, how long and how many wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepmac.demo.answers import to_json
from deepmac.demo.pictures import PictureError

SECONDS_OF_SILENCE = 20.0
"""A client that sends nothing for as long in the middle of a request is let go."""
_SECONDS_OF_UPLOAD = 300.0
_WAITING = 500
"""Requests that are read or wait for the network at a time; one more is turned away."""

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Answer(Response):
    """JSON in plain ASCII: nothing in a file's name can fail to be sent."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Bytes of a value."""
        return to_json(content)


class OwnPage:
    """Answers this server's own page only: there is no login that would keep others out.

    A foreign page can send requests here, or have its name resolve to this machine; the browser
    then names another origin, or another host.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is this page's own, refuse the rest."""
        if scope["type"] == "http" and not self._is_own(Request(scope)):
            refusal = Answer({"error": "This address or page may not use the demo."}, 403)
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_own(self, request: Request) -> bool:
        headers = request.headers
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            name = urlsplit(f"//{host}").hostname or ""
            same = origin is None or urlsplit(origin).netloc == host
        except ValueError:
            return False
        if "*" not in self.hosts and name not in self.hosts:
            return False
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        return request.method in ("GET", "HEAD") or (same and not foreign)


class Headers:
    """Adds the headers that keep a browser on its guard to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(key.encode(), value.encode()) for key, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        await self.app(scope, receive, guarded)


class Queue:
    """Lets requests that send something wait for their turn, up to a bound."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or say that too many wait."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        if self.waiting >= _WAITING:
            said = {"error": f"{_WAITING} requests wait already: try again in a minute."}
            await Answer(said, 503, {"retry-after": "30"})(scope, receive, send)
            return
        self.waiting += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.waiting -= 1


class Bodies:
    """Reads what clients send, and bounds the memory of all that is being read.

    Args:
        most: bytes held together. What would go beyond waits until others are done.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    @asynccontextmanager
    async def reading(self, request: Request, limit: int) -> AsyncIterator[bytes | None]:
        """What was sent, or None as soon as it is more than ``limit`` bytes.

        Raises:
            PictureError: the client went away or fell silent, or the server stayed too busy.
        """
        announced = request.headers.get("content-length", "0")
        if not announced.isdecimal() or len(announced) > 15 or int(announced) > limit:
            yield None
            return
        content, mine = bytearray(), 0
        try:
            try:
                with anyio.fail_after(_SECONDS_OF_UPLOAD):
                    chunks = request.stream().__aiter__()
                    while len(content) <= limit:
                        with anyio.fail_after(SECONDS_OF_SILENCE):
                            chunk = await anext(chunks, None)
                        if chunk is None:
                            break
                        while mine and self.held + len(chunk) > self.most:
                            await anyio.sleep(0.05)
                        self.held, mine = self.held + len(chunk), mine + len(chunk)
                        content += chunk
            except ClientDisconnect:
                raise PictureError("The upload ended early: send it again.") from None
            except TimeoutError:
                raise PictureError("The upload took too long: send it again.", 408) from None
            yield bytes(content) if len(content) <= limit else None
        finally:
            self.held -= mine
