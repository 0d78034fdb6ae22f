"""The page's server: a few routes around one network."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, TypeVar

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deepmac.demo.answers import (
    MAX_BOXES,
    boxes_of,
    coco_json,
    instances,
    points_of,
    refine_of,
    text_of,
    threshold_of,
)
from deepmac.demo.corrections import Corrections
from deepmac.demo.downloads import checked_rles, index_png, masks_zip, yolo_zip
from deepmac.demo.example import BOXES, FILE_NAME, example_jpeg
from deepmac.demo.guard import Answer, Bodies, Headers, OwnPage, Queue
from deepmac.demo.pictures import Gallery, Limits, Picture, PictureError
from deepmac.errors import UserError
from deepmac.label.masks.calibration import Calibration
from deepmac.models.files import own_refine, own_threshold
from deepmac.models.refining import REFINES
from deepmac.nn.inference import Precision
from deepmac.nn.network import SegmentationNetwork
from deepmac.predict.runtime import Runtime

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_MAX_JSON = 200_000
_MAX_MASKS = 64_000_000  # bytes of masks that the page sends to have them written
_UPLOADS_HELD = 16  # largest files that may lie in memory at a time while they are read

T = TypeVar("T")


def make_app(
    model: SegmentationNetwork,
    *,
    name: str = "",
    limits: Limits | None = None,
    hosts: Sequence[str] = ("127.0.0.1", "localhost"),
    calibration: Calibration | None = None,
    corrections: Corrections | None = None,
    precision: Precision = "32",
    runtime: Runtime = "torch",
) -> Starlette:
    """The application.

    Args:
        model: in eval mode.
        name: of the model, shown on the page.
        limits: of what is taken and held.
        hosts: names that browsers may ask for; ``*`` for any.
        calibration: of the model: scores become the IoU to expect.
        corrections: a data set to put right; None for pictures that the browser opens.
        precision: see ``Predictor``.
        runtime: likewise.
    """
    limits = limits or Limits()
    server = _Server(Gallery(model, limits, precision, runtime), name, calibration, corrections)
    page = files("deepmac.demo") / "page"
    routes = [
        Route("/" if entry.name == "index.html" else f"/{entry.name}", _page(entry))
        for entry in page.iterdir()
        if entry.name[entry.name.rfind(".") :] in _TYPES
    ]
    routes += [
        Route("/about", server.about),
        Route("/example.jpg", server.example),
        Route("/pictures", server.add, methods=["POST"]),
        Route("/pictures/{name}/picture.png", server.picture),
        Route("/pictures/{name}/masks", server.masks, methods=["POST"]),
        Route("/pictures/{name}/coco.json", server.coco, methods=["POST"]),
        Route("/pictures/{name}/masks.png", server.png, methods=["POST"]),
        Route("/rles", server.rles, methods=["POST"]),
        Route("/downloads/{kind}", server.download, methods=["POST"]),
        Route("/job", server.job),
        Route("/job/{number:int}", server.job_boxes),
        Route("/job/{number:int}/picture", server.job_picture),
        Route("/job/{number:int}", server.job_save, methods=["POST"]),
    ]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(Headers),
            Middleware(OwnPage, hosts=tuple(hosts)),
            Middleware(Queue),
        ],
        exception_handlers={UserError: _said, HTTPException: _said, Exception: _failed},
    )
    app.state.gallery = server.gallery
    return app


class _Server:
    """The answers; the network runs in one thread at a time, off the event loop."""

    def __init__(
        self,
        gallery: Gallery,
        name: str,
        calibration: Calibration | None,
        corrections: Corrections | None,
    ) -> None:
        self.gallery = gallery
        self.name = name
        self.calibration = calibration
        self.corrections = corrections
        self._one = anyio.CapacityLimiter(1)
        self._writing = anyio.CapacityLimiter(1)
        self._bodies = Bodies(_UPLOADS_HELD * gallery.limits.upload_bytes + _MAX_MASKS)

    async def about(self, request: Request) -> Response:
        limits = self.gallery.limits
        return Answer(
            {
                "model": self.name,
                "limits": {
                    "megabytes": limits.upload_megabytes,
                    "megapixels": limits.megapixels,
                    "boxes": MAX_BOXES,
                },
                "threshold": own_threshold(self.gallery.model),
                "refine": own_refine(self.gallery.model),
                "refines": list(REFINES),
                "clicks": self.gallery.model.takes_clicks,
                "calibrated": self.calibration is not None,
                "example": {"file_name": FILE_NAME, "boxes": list(BOXES)},
                "job": self.corrections is not None,
            }
        )

    async def example(self, request: Request) -> Response:
        return Response(example_jpeg(), media_type="image/jpeg")

    async def add(self, request: Request) -> Response:
        size = _size_of(request.query_params.get("size", ""))
        async with self._bodies.reading(request, self.gallery.limits.upload_bytes) as content:
            if content is None:
                raise self.gallery.limits.too_large_file()
            name, picture = await self._run(lambda: self.gallery.add(content, size))
        return Answer({"id": name, "width": picture.width, "height": picture.height})

    async def picture(self, request: Request) -> Response:
        picture = self.gallery.get(request.path_params["name"])
        return Response(await self._run(picture.png), media_type="image/png")

    async def masks(self, request: Request) -> Response:
        _, objects, _ = await self._objects(request)
        return Answer({"objects": objects})

    async def coco(self, request: Request) -> Response:
        picture, objects, wanted = await self._objects(request)
        file_name = re.sub(r"[\x00-\x1f/\\]", "_", text_of(wanted.get("file_name", "")))[:200]
        return Answer(coco_json(objects, picture, file_name or "picture"))

    async def png(self, request: Request) -> Response:
        picture, objects, _ = await self._objects(request)
        masks = {
            "width": picture.width,
            "height": picture.height,
            "segmentations": [one["segmentation"] for one in objects],
        }
        content = await self._run(lambda: index_png(*checked_rles(masks)))
        return Response(content, media_type="image/png")

    async def rles(self, request: Request) -> Response:
        """Segmentations of any kind as run lengths, which the page can draw."""
        wanted = await self._json(request, _MAX_MASKS)
        _, rles = await self._run(lambda: checked_rles(wanted))
        found = [{**rle, "counts": rle["counts"].decode("ascii")} for rle in rles]
        return Answer({"segmentations": found})

    async def download(self, request: Request) -> Response:
        kind = request.path_params["kind"]
        if kind not in ("masks.png", "masks.zip", "yolo.zip"):
            raise HTTPException(404)
        wanted = await self._json(request, _MAX_MASKS)
        pictures, classes = wanted.get("pictures"), wanted.get("classes", [])
        if not (
            isinstance(pictures, list)
            and pictures
            and all(isinstance(one, dict) for one in pictures)
            and isinstance(classes, list)
        ):
            raise PictureError("There is nothing to download.")
        if kind == "masks.png":
            content = await self._run(lambda: index_png(*checked_rles(pictures[0])))
            return Response(content, media_type="image/png")
        make = masks_zip if kind == "masks.zip" else lambda p: yolo_zip(p, classes)
        content = await self._run(lambda: make(pictures))
        return Response(content, media_type="application/zip")

    async def job(self, request: Request) -> Response:
        return Answer(self._corrections().overview())

    async def job_boxes(self, request: Request) -> Response:
        number = request.path_params["number"]
        return Answer(await self._write(lambda: self._corrections().boxes(number)))

    async def job_picture(self, request: Request) -> Response:
        path = self._corrections().path(request.path_params["number"])
        content = await self._write(path.read_bytes)
        return Response(content, media_type="application/octet-stream")

    async def job_save(self, request: Request) -> Response:
        wanted = await self._json(request, _MAX_MASKS)
        number = request.path_params["number"]
        return Answer(await self._write(lambda: self._corrections().save(number, wanted)))

    def _corrections(self) -> Corrections:
        if self.corrections is None:
            raise HTTPException(404)
        return self.corrections

    async def _objects(
        self, request: Request
    ) -> tuple[Picture, list[dict[str, Any]], dict[str, Any]]:
        """The picture that is asked about, the masks of the boxes, and what else was said."""
        wanted = await self._json(request, _MAX_JSON)
        picture = self.gallery.get(request.path_params["name"])
        boxes = boxes_of(wanted.get("boxes"), picture)
        points = points_of(wanted.get("points"))
        threshold = threshold_of(wanted.get("threshold"))
        refine = refine_of(wanted.get("refine"))
        objects = await self._run(
            lambda: instances(picture, boxes, threshold, refine, self.calibration, points)
        )
        return picture, objects, wanted

    async def _json(self, request: Request, limit: int) -> dict[str, Any]:
        async with self._bodies.reading(request, limit) as content:
            try:
                value = json.loads(content or b"", parse_constant=lambda _: math.nan)
            except (ValueError, RecursionError):
                value = None
        if not isinstance(value, dict):
            raise PictureError("The server did not understand the page: load it again.")
        return value

    async def _run(self, job: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(job, limiter=self._one)

    async def _write(self, job: Callable[[], T]) -> T:
        """One at a time, beside the network."""
        return await anyio.to_thread.run_sync(job, limiter=self._writing)


def _size_of(text: str) -> tuple[int, int] | None:
    """(width, height) of ``WIDTHxHEIGHT``, None of anything else."""
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    return (int(found[1]), int(found[2])) if found else None


def _page(entry: Any) -> Callable[[Request], Response]:
    content, media_type = entry.read_bytes(), _TYPES[entry.name[entry.name.rfind(".") :]]
    return lambda request: Response(content, media_type=media_type)


async def _said(request: Request, error: Exception) -> Response:
    """A sentence that the page shows as it is."""
    if isinstance(error, HTTPException):
        return Answer({"error": error.detail}, error.status_code)
    status = error.status if isinstance(error, PictureError) else 400
    return Answer({"error": text_of(error)}, status)


async def _failed(request: Request, error: Exception) -> Response:
    return Answer({"error": "The server failed at this; its terminal says why."}, 500)
