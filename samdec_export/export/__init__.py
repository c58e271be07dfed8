"""A graph becomes a checked ONNX file, and an ONNX file is read."""
