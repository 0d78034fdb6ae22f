"""Sweeps over mask heads: going on after a stop, then a table and a figure of all runs."""
