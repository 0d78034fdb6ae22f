"""Where the file of a model lies; nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from deepmac.errors import UserError

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"
SHIPPED = Path(__file__).parent / "shipped"
"""Folders of models that come with the package; their names are the models'."""


def model_file(path_or_name: str | Path) -> Path:
    """The file that holds a model's weights.

    Args:
        path_or_name: see :func:`deepmac.models.files.load_model`.

    Raises:
        UserError: there is none.
    """
    path = Path(path_or_name)
    shipped = sorted(folder.name for folder in SHIPPED.iterdir()) if SHIPPED.is_dir() else []
    if not path.exists() and str(path_or_name) in shipped:
        path = SHIPPED / path
    if path.is_dir():
        path = path / WEIGHTS
        if not path.is_file():
            raise UserError(f"the folder {path.parent} holds no {WEIGHTS}: is it a model's?")
    if not path.is_file():
        raise UserError(
            f"there is no model {str(path_or_name)!r}: give {' or '.join([*shipped, 'a folder'])}, "
            "a .safetensors file or a .ckpt"
        )
    return path
