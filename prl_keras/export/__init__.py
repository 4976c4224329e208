"""A run's model for programs that know nothing of this package: SavedModel, ONNX, LiteRT."""
