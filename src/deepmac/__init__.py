"""Deep-MAC: boxes for all classes, masks for some, good masks for every class."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["DeepMAC", "Predictor", "__version__", "load_model"]

if TYPE_CHECKING:
    from deepmac.models.files import load_model
    from deepmac.nn.deepmac import DeepMAC
    from deepmac.predict.predictor import Predictor

_PUBLIC = {
    "DeepMAC": "deepmac.nn.deepmac",
    "Predictor": "deepmac.predict.predictor",
    "load_model": "deepmac.models.files",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use: torch takes seconds."""
    if name in _PUBLIC:
        import importlib

        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'deepmac' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
