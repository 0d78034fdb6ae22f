"""Masks for a table of boxes: what an actor does, and what can be done without any cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from deepmac.data.images import ImageFileError, image_size, read_image
from deepmac.data.stream.store import Store
from deepmac.label.cluster.tables import MASKS, completed
from deepmac.label.inference import batch_crops, batch_records
from deepmac.label.loading import IMAGES_TOGETHER, BatchDataset
from deepmac.label.masks.calibration import SCORE_DECIMALS
from deepmac.label.masks.records import MaskOptions
from deepmac.label.plan import ImageTask, bounded
from deepmac.nn.inference import Precision, for_inference
from deepmac.nn.network import SegmentationNetwork
from deepmac.predict.boxes import box_fault
from deepmac.predict.letterbox import InputSpec

_READERS = 8
Answer = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """All that masks depend on, beside the network.

    Attributes:
        images: folder or URL that image paths start from.
        options: of the masks.
        digest: of the network.
        spec: how it is shown pictures.
        batch_size: pictures that go through it together.
        score: from a raw score to the one to expect.
        precision: ``32`` or ``bf16``.
    """

    images: str
    options: MaskOptions
    digest: str
    spec: InputSpec
    batch_size: int = 4
    score: Callable[[float], float] = float
    precision: str = "32"


class Labeller:
    """Holds a network and gives tables of boxes their masks.

    Pictures go through the network with their neighbours, in the local engine's batches, so that
    masks are the same to the bit on the same kind of processor.

    Args:
        network: in eval mode.
        work: see there.
        device: to compute on; None: the process's card, where it has one.
    """

    def __init__(self, network: SegmentationNetwork, work: Work, device: str | None = None) -> None:
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.device = torch.device(chosen)
        precision: Precision = "bf16" if work.precision == "bf16" else "32"
        self.network = for_inference(network.to(self.device), precision)
        self.work = work
        self.store = Store(work.images)
        self.pool = ThreadPoolExecutor(_READERS)

    def __call__(self, boxes: pa.Table) -> pa.Table:
        """A table of masks: a row for each box, in their order.

        Args:
            boxes: with columns of :data:`deepmac.label.cluster.tables.BOXES`.

        Raises:
            StoreError: the pictures' store does not answer.
            DataError: a column is of another type.
        """
        table = completed(boxes)
        answers: list[Answer] = [{} for _ in range(table.num_rows)]
        images = _images(table)
        for _, some in groupby(images, key=lambda image: image.number // IMAGES_TOGETHER):
            group = list(some)
            files = list(self.pool.map(self._file, (image.name for image in group)))
            self._label(group, files, answers)
        columns = [*table.columns]
        sizes = {name: list(table[name].to_pylist()) for name in ("width", "height")}
        for row, answer in enumerate(answers):
            for name in sizes:
                sizes[name][row] = answer.get(name, sizes[name][row])
        for name in sizes:
            columns[table.column_names.index(name)] = pa.array(sizes[name], pa.int32())
        for field in list(MASKS)[len(table.column_names) :]:
            values = [answer.get(field.name) for answer in answers]
            columns.append(pa.array(values, field.type))
        return pa.table(columns, schema=MASKS)

    @torch.inference_mode()
    def _label(self, images: list[_Image], files: list[bytes | str], answers: list[Answer]) -> None:
        tasks, content = [], {}
        for image, file in zip(images, files, strict=True):
            task = self._task(image, file, answers)
            if task is not None:
                assert isinstance(file, bytes)
                tasks.append(task)
                content[task.position] = file

        def read(task: ImageTask) -> NDArray[np.uint8]:
            return read_image(task.path, task.size, content[task.position])

        work = self.work
        batches = BatchDataset(
            {0: tasks},
            batch_size=work.batch_size,
            spec=work.spec,
            box_margin=work.options.box_margin,
            keep_pictures=work.options.refine != "none",
            read=read,
        )
        for number in range(len(batches)):
            batch = batches[number]
            for task, _, sentence in batch.errors:
                for row in task.rows.tolist():
                    answers[row] = {"error": sentence}
            crops = batch_crops(self.network, batch, work.batch_size, self.device)
            found = batch_records(self.network, batch, crops, work.options, work.spec)
            for row, record in found:
                answers[row] |= {
                    "rle": record["rle"]["counts"],
                    "area": record["area"],
                    "raw_score": record["raw"],
                    "mask_score": round(work.score(record["raw"]), SCORE_DECIMALS),
                    "model": work.digest,
                }
                if not record["area"]:
                    answers[row] |= {"rle": None, "error": "mask without a pixel"}

    def _file(self, name: str) -> bytes | str:
        """A picture's file, or why there is none."""
        try:
            return self.store.read(name)
        except (FileNotFoundError, NotADirectoryError):
            return f"image {self.store.where(name)} does not exist"
        except (OSError, ValueError) as error:
            return f"image {self.store.where(name)} cannot be read ({error!s:.100})"

    def _task(self, image: _Image, file: bytes | str, answers: list[Answer]) -> ImageTask | None:
        where = self.store.where(image.name)
        try:
            if isinstance(file, str):
                raise ImageFileError("missing image", file)
            size = image.size or image_size(where, file)
        except ImageFileError as error:
            for row in image.rows:
                answers[row] = {"error": str(error)}
            return None
        rows, boxes = [], []
        for row, box in zip(image.rows, image.boxes, strict=True):
            fault = box_fault(box, size)
            if fault:
                answers[row] = {"error": f"the box {list(box)} {fault[1]}"}
            else:
                answers[row] = {"width": size[0], "height": size[1]}
                rows.append(row)
                boxes.append(bounded(box, size))
        if not rows:
            return None
        return ImageTask(
            image.number,
            PurePosixPath(where),  # type: ignore[arg-type]
            size,
            np.array(rows, dtype=np.int64),
            np.array(boxes, dtype=np.float64),
        )


@dataclass
class _Image:
    number: int
    name: str
    size: tuple[int, int] | None
    rows: list[int]
    boxes: list[tuple[float, float, float, float]]


def _images(table: pa.Table) -> list[_Image]:
    """The images of a table by their numbers, each with its rows."""
    found: dict[tuple[int, str], _Image] = {}
    names = ("image_number", "image", "width", "height", "x1", "y1", "x2", "y2")
    columns: Iterator[Any] = zip(*(table[name].to_pylist() for name in names), strict=True)
    for row, (number, name, width, height, *box) in enumerate(columns):
        size = (int(width), int(height)) if width and height else None
        key = int(number), str(name)
        image = found.setdefault(key, _Image(*key, size, [], []))
        image.rows.append(row)
        image.boxes.append(tuple(np.nan if v is None else float(v) for v in box))  # type: ignore
    return [found[key] for key in sorted(found)]
