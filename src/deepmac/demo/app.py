"""The page's server: a few routes around one network."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import urlsplit

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepmac.demo.answers import MAX_BOXES, boxes_of, coco_json, index_png, instances
from deepmac.demo.example import example_png
from deepmac.demo.pictures import Gallery, Limits, Picture, PictureError
from deepmac.errors import UserError
from deepmac.models.files import Network

_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    **{
        f"/{name}": (name, "text/javascript; charset=utf-8")
        for name in ("app.js", "boxes.js", "masks.js", "view.js")
    },
}
_MAX_JSON = 200_000
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}

T = TypeVar("T")


def make_app(
    model: Network,
    *,
    name: str = "",
    limits: Limits | None = None,
    hosts: Sequence[str] = ("127.0.0.1", "localhost"),
) -> Starlette:
    """The application.

    Args:
        model: in eval mode.
        name: of the model, shown on the page.
        limits: of what is taken and held.
        hosts: names that browsers may ask for; ``*`` for any.
    """
    limits = limits or Limits()
    server = _Server(Gallery(model, limits), name)
    routes = [Route(path, _page(*entry)) for path, entry in _PAGE.items()]
    routes += [
        Route("/about", server.about),
        Route("/example.png", server.example),
        Route("/pictures", server.add, methods=["POST"]),
        Route("/pictures/{name}/masks", server.masks, methods=["POST"]),
        Route("/pictures/{name}/coco.json", server.coco, methods=["POST"]),
        Route("/pictures/{name}/masks.png", server.png, methods=["POST"]),
    ]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(_Headers),
            Middleware(_OwnPage, hosts=tuple(hosts)),
        ],
        exception_handlers={UserError: _said, HTTPException: _said, Exception: _failed},
    )
    app.state.gallery = server.gallery
    return app


class _Server:
    """The answers; the network runs in one thread at a time, off the event loop."""

    def __init__(self, gallery: Gallery, name: str) -> None:
        self.gallery = gallery
        self.name = name
        self._one = anyio.CapacityLimiter(1)

    async def about(self, request: Request) -> Response:
        limits = self.gallery.limits
        return JSONResponse(
            {
                "model": self.name,
                "limits": {
                    "megabytes": limits.upload_megabytes,
                    "megapixels": limits.megapixels,
                    "boxes": MAX_BOXES,
                },
            }
        )

    async def example(self, request: Request) -> Response:
        return Response(await self._run(example_png), media_type="image/png")

    async def add(self, request: Request) -> Response:
        content = await _body(request, self.gallery.limits.upload_bytes)
        if content is None:
            raise self.gallery.limits.too_large_file()
        name, picture = await self._run(lambda: self.gallery.add(content))
        return JSONResponse({"id": name, "width": picture.width, "height": picture.height})

    async def masks(self, request: Request) -> Response:
        _, objects, _ = await self._objects(request)
        return JSONResponse({"objects": objects})

    async def coco(self, request: Request) -> Response:
        picture, objects, wanted = await self._objects(request)
        file_name = re.sub(r"[\x00-\x1f/\\]", "_", str(wanted.get("file_name", "")))[:200]
        return JSONResponse(coco_json(objects, picture, file_name or "picture"))

    async def png(self, request: Request) -> Response:
        picture, objects, _ = await self._objects(request)
        content = await self._run(lambda: index_png(objects, picture))
        return Response(content, media_type="image/png")

    async def _objects(
        self, request: Request
    ) -> tuple[Picture, list[dict[str, Any]], dict[str, Any]]:
        """The picture that is asked about, the masks of the boxes, and what else was said."""
        wanted = await _json(request)
        picture = self.gallery.get(request.path_params["name"])
        boxes = boxes_of(wanted.get("boxes"), picture)
        return picture, await self._run(lambda: instances(picture, boxes)), wanted

    async def _run(self, job: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(job, limiter=self._one)


async def _body(request: Request, limit: int) -> bytes | None:
    """What was sent, or None as soon as it is more than ``limit`` bytes."""
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > limit:
        return None
    content = bytearray()
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > limit:
                return None
    except ClientDisconnect:
        raise PictureError("The upload ended early: send it again.") from None
    return bytes(content)


async def _json(request: Request) -> dict[str, Any]:
    content = await _body(request, _MAX_JSON)
    try:
        value = json.loads(content or b"", parse_constant=lambda _: math.nan)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise PictureError("The server did not understand the page: load it again.")
    return value


def _page(name: str, media_type: str) -> Callable[[Request], Response]:
    content = (files("deepmac.demo") / "page" / name).read_bytes()
    return lambda request: Response(content, media_type=media_type)


async def _said(request: Request, error: Exception) -> Response:
    """A sentence that the page shows as it is."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, status_code=error.status_code)
    status = error.status if isinstance(error, PictureError) else 400
    return JSONResponse({"error": str(error)}, status_code=status)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse(
        {"error": "The server failed at this; its terminal says why."}, status_code=500
    )


class _OwnPage:
    """Answers this server's own page only: there is no login that would keep others out.

    A foreign page can send requests here, or have its name resolve to this machine; the browser
    then names another origin, or another host.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_own(Request(scope)):
            refusal = JSONResponse({"error": "This address or page may not use the demo."}, 403)
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


class _Headers:
    """Adds the headers that keep a browser on its guard to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(key.encode(), value.encode()) for key, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        await self.app(scope, receive, guarded)
