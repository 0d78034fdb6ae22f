"""Networks as graphs for other runtimes: ONNX, and PyTorch's own exported programs."""

from deepmac.export.command import command
from deepmac.export.export import Exported, export_model

__all__ = ["Exported", "command", "export_model"]
