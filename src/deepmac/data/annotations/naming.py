"""What a file is, from its first bytes or its keys: for a sentence that helps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from deepmac.errors import DataError

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive; unpack it and give what is inside"),
    (b"\x1f\x8b", "compressed with gzip; unpack it (gunzip, or tar xzf) first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!", "a rar archive; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ", "compressed with xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"PAR1", "a Parquet table; export COCO json instead"),
    (b"SQLite format 3", "an SQLite database; export COCO json instead"),
    (b"\x89HDF", "an HDF5 file; export COCO json instead"),
    (b"%PDF", "a PDF document"),
    (b"\xff\xd8\xff", "a picture (JPEG); give the annotation file"),
    (b"\x89PNG", "a picture (PNG); give the annotation file"),
    (b"GIF8", "a picture (GIF); give the annotation file"),
    (b"\x80\x04", "a Python pickle, which is never opened; export COCO json instead"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run `git lfs pull`"),
)
_XML = "give its folder with data.format=voc (or --boxes-format voc)"


def of_bytes(data: bytes) -> str | None:
    """What a file that is no JSON is and what to do, or None where nothing is recognised."""
    for magic, words in _MAGIC:
        if data.startswith(magic):
            return words
    if data[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if not data.strip(b"\0 \t\r\n"):
        return "empty; copy it again"
    text = data[:4096].decode("utf-8-sig", "replace").lstrip()
    low = text.lower()
    if low.startswith(("<!doctype html", "<html")):
        return "a web page, perhaps of a failed download; download the file again"
    if low.startswith("<"):
        if "<annotation>" in low or "<annotation " in low:
            return f"xml of Pascal VOC; {_XML}"
        if "<annotations>" in low:
            return "xml of CVAT for images; export from CVAT as COCO 1.0 instead"
        return f"xml, not JSON; if it is of Pascal VOC, {_XML}"
    first = text.splitlines()[0] if text else ""
    if first.startswith("ImageID,") or "LabelName" in first:
        return "a table of Open Images; give it with data.format=open_images"
    if re.match(r"[-\w. \"']+(,[-\w. \"']*){2,}$", first) and not first.startswith(("{", "[")):
        return "a csv table; export COCO json instead"
    if re.match(r"\d+( +-?[\d.eE+-]+){4,}\s*$", first):
        return "boxes of YOLO; give the folder of these files with data.format=yolo"
    if re.search(r"(?m)^(names|train|val|path|nc)\s*:", text):
        return "yaml of YOLO; give its folder with data.format=yolo"
    if re.match(r"\{.*\}\s*$", first) and "\n{" in text:
        return "a file of one JSON value a line; export one COCO json instead"
    if first.startswith(("{'", "[{'")):
        return "Python's own notation, not JSON; write it with json.dump"
    return None


def of_json(content: Any) -> str | None:
    """What JSON that is no COCO file is and what to do, or None where nothing is recognised."""
    if isinstance(content, list):
        first = content[0] if content and isinstance(content[0], dict) else {}
        if "image_id" in first and ("bbox" in first or "segmentation" in first):
            return "a list of COCO results, which names neither images nor classes"
        if "data" in first and ("annotations" in first or "completions" in first):
            return "Label Studio's own export; export as COCO instead"
        if "image" in first and "annotations" in first:
            return "a CreateML file; export as COCO instead"
        if "Labeled Data" in first or "data_row" in first:
            return "a Labelbox export; export as COCO instead"
        if "labels" in first and "name" in first:
            return "a BDD100K file; convert it to COCO first"
        if "file" in first and "detections" in first:
            return "a list of MegaDetector's; give it with data.format=megadetector"
        return None
    if not isinstance(content, dict):
        return None
    if "shapes" in content and "imagePath" in content:
        return "a LabelMe file; give the folder of these files with data.format=labelme"
    if "detection_categories" in content:
        return "a MegaDetector file; give it with data.format=megadetector"
    if "_via_img_metadata" in content or _has(content, "regions"):
        return "a project of the VGG annotator (VIA); export as COCO instead"
    if "samples" in content:
        return "FiftyOne's own export; export with dataset_type=COCODetectionDataset instead"
    if content.get("type") == "FeatureCollection":
        return "GeoJSON; export as COCO instead"
    if "objects" in content and "size" in content:
        return "a file of Supervisely; export as COCO instead"
    if "items" in content and "categories" in content:
        return "a file of Datumaro; export as COCO instead"
    return None


def _has(content: dict[str, Any], key: str) -> bool:
    some = next(iter(content.values()), None)
    return isinstance(some, dict) and key in some


def not_json(path: Path, data: bytes, error: Exception) -> DataError:
    """The sentence for a file that cannot be parsed."""
    words = of_bytes(data)
    if words is not None:
        return DataError(f"{path} is not JSON: it is {words}.")
    reason = " ".join(str(error).split())[:200]
    return DataError(f"{path} is not valid JSON ({reason}); it may be cut off, copy it again.")
