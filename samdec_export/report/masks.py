"""Masks as pictures."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from samdec_export.core.masks import unpack_mask
from samdec_export.core.results import MaskPair

__all__ = ["COLOURS", "draw_masks"]

COLOURS: Final = {"outside": "#1c252e", "inside": "#dde4ea", "both": "#5b6875", "lost": "#ff9f40", "gained": "#4bb5ff"}
"""Of pixels outside and inside a mask; where two are compared, of those in both, in the reference alone, and in the
candidate alone: the last two differ to every eye."""

MASK = ("outside", "inside")
FLIPPED = ("outside", "both", "lost", "gained")


def draw_masks(pair: MaskPair) -> tuple[str, str, str]:
    """Return the reference, the candidate, and what flipped between them: `data:` URLs of PNG files.

    Raises:
        ValueError: The masks are not base64.
    """
    reference, candidate = (unpack_mask(text, pair.height, pair.width) for text in (pair.reference, pair.candidate))
    flipped = np.select([reference & candidate, reference, candidate], [1, 2, 3]).astype(np.uint8)
    single = [_url(mask.astype(np.uint8), MASK) for mask in (reference, candidate)]
    return single[0], single[1], _url(flipped, FLIPPED)


def _url(pixels: NDArray[np.uint8], colours: Sequence[str]) -> str:
    return "data:image/png;base64," + base64.b64encode(_png(pixels, colours)).decode("ascii")


def _png(pixels: NDArray[np.uint8], colours: Sequence[str]) -> bytes:
    """Return a PNG (RFC 2083) of pixels (height, width), each the number of one of four colours: two bits a pixel."""
    height, width = pixels.shape
    padded = np.pad(pixels, ((0, 0), (0, -width % 4))).reshape(height, -1, 4)
    rows = (padded << np.array([6, 4, 2, 0], np.uint8)).sum(axis=2, dtype=np.uint8)
    filtered = np.pad(rows, ((0, 0), (1, 0)))  # each row begins with its filter: none
    palette = b"".join(bytes.fromhex(COLOURS[colour].removeprefix("#")) for colour in colours)
    header = struct.pack(">IIBBBBB", width, height, 2, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(filtered.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
