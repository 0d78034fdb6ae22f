"""Deep-MAC: boxes for all classes, masks for some, good masks for every class."""

__version__ = "0.1.0"
