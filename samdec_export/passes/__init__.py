"""ONNX graph in, ONNX graph out (or findings about it): one pass a file."""
