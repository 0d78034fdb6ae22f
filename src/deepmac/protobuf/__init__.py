"""TensorFlow's files without TensorFlow: protobuf's two notations, and records."""
