"""Take the mask decoder of Segment Anything models from a PyTorch checkpoint to a deployed engine, and prove it."""

__version__ = "0.1.0"
