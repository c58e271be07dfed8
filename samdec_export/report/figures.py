"""Numbers as people read them; the same in every rendering."""

from __future__ import annotations

import math

from samdec_export.core.results import Number

__all__ = [
    "NOTHING",
    "bounded",
    "change",
    "closeness",
    "number",
    "percent",
    "psnr",
    "seconds",
    "short",
    "size",
    "used",
]

NOTHING = "-"
HASH_SHOWN = 12


def number(value: Number) -> str:
    """Return two or three significant digits: 0.123, 4.5e-7; a dash where there is no finite number."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0 or 1e-2 <= abs(value) < 1e5:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def closeness(value: Number) -> str:
    """Return a number near 1, such as an IoU, without rounding up to it: 0.99998."""
    if value is None or not 0 <= value <= 1:
        return number(value)
    text = f"{math.floor(value * 1e6) / 1e6:.6f}".rstrip("0").rstrip(".")
    return text or "0"


def bounded(value: Number, bound: str | None) -> str:
    """Return what a threshold is about: a share near 1 where it bounds from below."""
    return closeness(value) if bound == "at least" else number(value)


def percent(share: Number) -> str:
    """Return a share as a percentage: 12.3%, 0.0012%."""
    if share is None or not math.isfinite(share):
        return NOTHING
    value = 100 * share
    return f"{value:.3g}%" if 1e-4 <= abs(value) < 1000 else f"{number(value)}%"


def used(share: Number) -> str:
    """Return how much of what is allowed was used: 33%, or 17,530 times."""
    return percent(share) if share is None or not 10 <= share < math.inf else f"{share:,.0f} times"


def psnr(value: Number) -> str:
    """Return a ratio in dB; equal tensors have none that is finite."""
    return "exact" if value is None or value == math.inf else f"{value:.1f}"


def seconds(value: Number) -> str:
    """Return a duration: 830 us, 12.3 ms, 4.56 s, 3 min 20 s."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value >= 60:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest} s"
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-6:.3g} us"


def size(count: int) -> str:
    """Return bytes: 812 B, 34 kB, 16.3 MB."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def short(digest: str | None) -> str:
    """Return the start of a hash."""
    return digest[:HASH_SHOWN] if digest else NOTHING


def change(share: Number) -> str:
    """Return a change as a percentage with its sign: +2.0%."""
    return NOTHING if share is None else f"{100 * share:+.1f}%"
