"""TensorRT and TensorRT-RTX: what they refuse, build, load and run."""
