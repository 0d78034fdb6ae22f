"""Model folders and weight files: what a trained network is on disk."""
