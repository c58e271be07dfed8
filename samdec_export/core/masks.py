"""Masks as text: a bit for each pixel, in base64."""

from __future__ import annotations

import base64
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Mask", "pack_mask", "unpack_mask"]

Mask: TypeAlias = NDArray[np.bool_]


def pack_mask(mask: Mask) -> str:
    """Return a mask (height, width) as `results.MaskPair` holds it."""
    return base64.b64encode(np.packbits(mask.reshape(-1)).tobytes()).decode("ascii")


def unpack_mask(text: str, height: int, width: int) -> Mask:
    """Return the mask (height, width) that `pack_mask` packed.

    Raises:
        ValueError: `text` is not base64, or not of that many pixels.
    """
    bits = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    return np.unpackbits(bits)[: height * width].reshape(height, width).astype(np.bool_)
