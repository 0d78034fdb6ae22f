"""Reading a COCO annotation file: everything is checked, nothing is left out silently."""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from deepmac.data.annotations.coco_reader import CocoReader
from deepmac.data.annotations.problems import Problem, describe_kinds, stop_message
from deepmac.data.annotations.records import (
    Category,
    CocoIndex,
    ImageRecord,
    Instance,
    decode_mask,
    instance_rle,
)
from deepmac.errors import DataError

__all__ = [
    "Category",
    "CocoIndex",
    "ImageRecord",
    "Instance",
    "Problem",
    "decode_mask",
    "instance_rle",
    "read_coco",
]

OnError = Literal["stop", "drop"]
CheckImages = Literal["none", "header", "full"]


def read_coco(
    json_path: str | Path,
    image_dir: str | Path,
    *,
    on_error: OnError = "stop",
    check_images: CheckImages = "header",
    require_annotations: bool = True,
) -> CocoIndex:
    """Read and check an annotation file in the COCO format.

    Boxes that leave the image are clipped, masks without a pixel become boxes without a mask; both
    are notes. Faults of the categories or of the file as a whole always stop.

    Args:
        json_path: The annotation file.
        image_dir: Folder that the ``file_name`` entries start from.
        on_error: "stop" raises one error that names the first fault and counts the others;
            "drop" leaves out faulty images (with their annotations), annotations and masks, and
            counts them (show ``index.dropped_summary()``). A fault of the mask alone keeps the
            box, so that the object does not turn into background.
        check_images: "none"; "header": each file exists, has the annotated size and is not cut
            off; "full": every image and every mask is decoded. "drop" checks at least headers.
        require_annotations: False accepts a file without ``annotations`` (COCO's image_info) and
            a set without objects.

    Raises:
        DataError: one sentence with file, ids and what to do.
    """
    json_path, image_dir = Path(json_path), Path(image_dir)
    if not image_dir.is_dir():
        raise DataError(
            f"the image folder {image_dir} of {json_path} does not exist; check the path."
        )
    if on_error == "drop" and check_images == "none":
        check_images = "header"
    with _no_garbage_collection():
        content = _load(json_path, require_annotations)
        reader = CocoReader(json_path, exact_masks=check_images == "full")
        reader.read_categories(content["categories"])
        reader.read_images(content["images"], image_dir)
        reader.read_annotations(content.get("annotations", []))
    del content
    if check_images != "none":
        reader.check_files(image_dir, decode=check_images == "full")
    errors = [problem for problem in reader.problems if not problem.is_note]
    if errors and on_error == "stop":
        raise DataError(stop_message(errors))
    index = reader.index(image_dir)
    _require_content(index, require_annotations)
    return index


def _load(json_path: Path, require_annotations: bool) -> dict[str, Any]:
    try:
        content = json.loads(json_path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"the annotation file {json_path} does not exist; check the path."
        ) from None
    except OSError as error:
        raise DataError(
            f"the annotation file {json_path} cannot be read ({error.strerror}); check the path."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{json_path} is not valid JSON ({error}); it may be cut off, copy it again."
        ) from None
    wanted = ["images", "categories"]
    if require_annotations or (isinstance(content, dict) and "annotations" in content):
        wanted.append("annotations")
    for key in wanted:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(
                f"{json_path} is JSON but not a COCO annotation file: it has no list "
                f'"{key}"; give a file with the lists images, annotations and categories.'
            )
    checked: dict[str, Any] = content
    return checked


def _require_content(index: CocoIndex, require_annotations: bool) -> None:
    after = describe_kinds(index.problems)
    after = f" after leaving out what is faulty ({after})" if after else ""
    if not index.images:
        raise DataError(f"{index.json_path} has no images{after}; check the file.")
    if require_annotations and all(
        item.iscrowd for image in index.images for item in image.instances
    ):
        raise DataError(f"{index.json_path} has no annotated objects{after}; check the file.")


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of live lists make each collection a full scan: reading takes twice as long."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
