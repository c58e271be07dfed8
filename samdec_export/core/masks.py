"""Masks as text: a bit for each pixel, in base64."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

__all__ = ["pack_mask", "unpack_mask"]


def pack_mask(mask: NDArray[np.bool_]) -> str:
    """Return a mask (height, width) as `results.MaskPair` holds it."""
    return base64.b64encode(np.packbits(mask.reshape(-1)).tobytes()).decode("ascii")


def unpack_mask(text: str, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask (height, width) that `pack_mask` packed; ValueError: `text` is not base64, or too short."""
    bits = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    return np.unpackbits(bits)[: height * width].reshape(height, width).astype(np.bool_)
