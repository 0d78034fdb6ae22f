"""Data sets as chunks in a folder or an object store: written by ``shard``, read by training."""
