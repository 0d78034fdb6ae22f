"""The output in each format; everything is written beside its place and renamed at the end."""

from deepmac.label.writers.coco import write_coco, write_results
from deepmac.label.writers.job import Writing
from deepmac.label.writers.labelme import write_labelme
from deepmac.label.writers.labelstudio import write_labelstudio
from deepmac.label.writers.png import write_png
from deepmac.label.writers.yolo import write_yolo

__all__ = ["FILE_WRITERS", "FOLDER_WRITERS", "Writing"]

FILE_WRITERS = {
    "coco": write_coco,
    "coco-polygons": write_coco,
    "coco-results": write_results,
    "labelstudio": write_labelstudio,
}
"""Each writes into an open file."""

FOLDER_WRITERS = {
    "yolo-seg": write_yolo,
    "yolo": write_yolo,
    "labelme": write_labelme,
    "png": write_png,
}
"""Each fills an empty folder and returns counts of what has no place there."""
