"""Geometry and colour of training pictures."""
