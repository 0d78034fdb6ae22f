"""Published weights as models of this project, without TensorFlow."""

from deepmac.convert.command import command
from deepmac.convert.conversion import convert
from deepmac.convert.report import ConversionError, Report
from deepmac.convert.variables import convert_variables

__all__ = ["ConversionError", "Report", "command", "convert", "convert_variables"]
