"""A file or folder of boxes, whatever its format."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from deepmac.data.annotations import megadetector, voc, yolo
from deepmac.data.annotations.box_file import BoxFile
from deepmac.errors import DataError


def read_boxes(path: Path, image_dir: Path, box_format: str = "auto") -> BoxFile:
    """Read boxes.

    Args:
        path: a json file (COCO, COCO Camera Traps, MegaDetector), or a folder of YOLO ``.txt`` or
            Pascal VOC ``.xml`` files.
        image_dir: folder of the pictures; their sizes are read where the format needs them.
        box_format: one of ``BOX_FORMATS``, or ``auto`` to look.

    Raises:
        DataError: nothing there, or nothing that can be read as boxes.
    """
    if not path.exists():
        raise DataError(f"the boxes {path} do not exist; check the path.")
    if path.is_dir():
        found = _folder_format(path) if box_format == "auto" else box_format
        if found == "yolo":
            return yolo.read(path, image_dir)
        if found == "voc":
            return voc.read(path, image_dir)
        raise DataError(f"the boxes {path} are a folder, but {found} boxes are one json file.")
    if box_format in ("yolo", "voc"):
        raise DataError(f"{box_format} boxes are a folder of files, but {path} is a file.")
    content, digest = load_json(path)
    if box_format == "megadetector" or (box_format == "auto" and megadetector.is_one(content)):
        return megadetector.read(path, content, digest, image_dir)
    return BoxFile(path, "coco", _checked_coco(path, content), digest)


def load_json(path: Path) -> tuple[Any, str]:
    """The content of a json file and the SHA-256 of its bytes.

    Raises:
        DataError: it cannot be read or is no JSON.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path.") from None
    try:
        return json.loads(data.decode("utf-8-sig")), hashlib.sha256(data).hexdigest()
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not valid JSON ({error}); it may be cut off, copy it again."
        ) from None


def _folder_format(path: Path) -> str:
    if next(path.rglob("*.xml"), None) is not None:
        return "voc"
    if next(path.rglob("*.txt"), None) is not None:
        return "yolo"
    raise DataError(f"the folder {path} holds no .txt (YOLO) and no .xml (VOC) boxes; check it.")


def _checked_coco(path: Path, content: Any) -> dict[str, Any]:
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(
                f'{path} is JSON but no file of boxes: it has no list "{key}"; give COCO, COCO '
                "Camera Traps or MegaDetector json, or a folder of YOLO or VOC files."
            )
    checked: dict[str, Any] = content
    return checked
