"""A photograph for those who have none at hand."""

from importlib.resources import files

FILE_NAME = "coffee.jpg"
BOXES = (
    {"xyxy": [172, 17, 409, 309], "label": "cup"},
    {"xyxy": [325, 66, 424, 327], "label": "spoon"},
)
"""Two things on it."""


def example_jpeg() -> bytes:
    """The photograph as a file; its README names the photographer and the licence."""
    return (files(__name__) / FILE_NAME).read_bytes()
