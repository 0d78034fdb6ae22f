"""Labelling on many hosts: tables of boxes in, tables of masks out, by Ray Data."""
