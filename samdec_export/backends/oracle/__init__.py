"""ONNX graphs run in NumPy, every result rounded as its type says."""
