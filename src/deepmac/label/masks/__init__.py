"""One mask at a time: cleaning, outlines, scores."""
