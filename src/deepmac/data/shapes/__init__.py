"""Generated pictures of shapes: a data set without a download."""
