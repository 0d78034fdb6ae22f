"""Data as the TensorFlow original makes it, for ``model.compat``."""
