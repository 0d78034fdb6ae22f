"""A web page on one's own machine: open a picture, draw boxes, see their masks."""

from deepmac.demo.command import command

__all__ = ["command"]
