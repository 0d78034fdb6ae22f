"""Annotation files of any format as one table of images and objects."""
