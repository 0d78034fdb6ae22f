"""The original's own data step: ``tf_records.py JSON IMAGES OUT SHARDS`` in its environment."""

import sys

from object_detection.dataset_tools.create_coco_tf_record import (
    _create_tf_record_from_coco_annotations,
)

if __name__ == "__main__":
    annotations, images, out, shards = sys.argv[1:]
    _create_tf_record_from_coco_annotations(annotations, images, out, True, int(shards))
