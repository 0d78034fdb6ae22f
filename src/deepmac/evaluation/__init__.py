"""COCO AP of boxes and masks for groups of classes, mask quality given boxes, result files."""

from deepmac.evaluation.evaluation import Evaluation
from deepmac.evaluation.results import ImageResult, image_result, write_results_json
from deepmac.evaluation.table import flatten_metrics, format_table, format_text, table_rows

__all__ = [
    "Evaluation",
    "ImageResult",
    "flatten_metrics",
    "format_table",
    "format_text",
    "image_result",
    "table_rows",
    "write_results_json",
]
