"""Read the package's imports, and draw them: python scripts/architecture.py writes docs/architecture.svg.

`tests/project/test_architecture.py` holds the imports to the table below, and the picture to the imports.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

__all__ = ["ALLOWED", "PACKAGE", "PICTURE", "Import", "draw", "imports_of", "longest_chain", "modules", "package_pairs"]

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "samdec_export"
PICTURE: Final = ROOT / "docs" / "architecture.svg"

STAGES: Final = {"core", "models", "export", "report", "backends", "parity", "bench", "serving", "precision"}

ALLOWED: Final[dict[str, set[str]]] = {
    "core": set(),
    "models": {"core"},
    "export": {"core"},
    "report": {"core"},
    "backends": {"export", "core"},
    "serving": {"backends", "export", "core"},
    "parity": {"backends", "models", "export", "core"},
    "bench": {"backends", "models", "export", "core"},
    "precision": {"backends", "parity", "export", "core"},
    "run": STAGES,
    "api": STAGES | {"run"},
    "cli": {"api", "core"},
}
"""Which packages a package may import, from the ground up."""

FLOORS: Final = (
    ("cli",),
    ("api",),
    ("run",),
    ("precision",),
    ("bench", "parity", "serving"),
    ("backends",),
    ("models", "export", "report"),
    ("core",),
)
"""How the picture places them: an arrow runs down."""

PURPOSES: Final = {
    "cli": "commands, and how results look",
    "api": "the same from Python",
    "run": "a config in; files, verdicts, report out",
    "precision": "fp16, bf16: what stays in fp32",
    "bench": "how fast?",
    "parity": "is it the same?",
    "serving": "what a server needs",
    "backends": "what runs or builds a file",
    "models": "the decoders in PyTorch",
    "export": "a graph becomes checked ONNX",
    "report": "one document, its renderings",
    "core": "shapes, types, options, records, feeds, results, files, errors: every package stands on it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """A name that a file imports from this package: `module` defines it, or is it."""

    module: str
    name: str
    line: int
    typing_only: bool


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {name.removesuffix(".__init__"): path for name, path in found.items()}


def imports_of(path: Path) -> Iterator[Import]:
    """Read what a file imports from this package, wherever in the file it stands."""
    tree, known = ast.parse(path.read_text(encoding="utf-8")), modules()
    guarded = (
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    )
    typing_only = {id(inner) for node in guarded for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("samdec_export"):
            continue
        for alias in node.names:
            itself = f"{node.module}.{alias.name}"
            module = itself if itself in known else str(node.module)
            yield Import(module=module, name=alias.name, line=node.lineno, typing_only=id(node) in typing_only)


def package_pairs() -> dict[tuple[str, str], int]:
    """Count the imports from one package to another, those for types among them."""
    pairs: dict[tuple[str, str], int] = {}
    for name, path in modules().items():
        source = name.split(".")[1:2]
        for found in imports_of(path):
            target = found.module.split(".")[1:2]
            if source and target and source != target and source[0] in ALLOWED:
                pair = source[0], target[0]
                pairs[pair] = pairs.get(pair, 0) + 1
    return pairs


def longest_chain() -> tuple[str, ...]:
    """Return the longest chain of files of which each imports the next when the program runs."""
    graph = {
        name: {found.module for found in imports_of(path) if not found.typing_only} - {name}
        for name, path in modules().items()
    }

    @functools.cache
    def below(name: str) -> tuple[str, ...]:
        return (name, *max((below(module) for module in graph.get(name, ())), key=len, default=()))

    return max(map(below, graph), key=len)


WIDTH, BOX, GAP, MARGIN = 1080, (250, 58), 46, 24

SHIFTS: Final = {"run": -260, "precision": 120, "backends": 90, "api": -130}
"""Pixels that a box stands beside the middle of its floor, so that arrows pass by it."""

HEAD: Final = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">
<title>The packages of samdec-export, and which imports which</title>
<style>
svg {{ background: #ffffff }}
rect {{ fill: #f4f6f8; stroke: #5c6b7a }}
text {{ text-anchor: middle; fill: #1f2933 }}
.name {{ font-size: 17px; font-weight: 600 }}
.purpose {{ font-size: 13px; fill: #52606d }}
path {{ fill: none; stroke: #3e7cb1; stroke-width: 1.6 }}
.implied {{ stroke: #cbd2d9; stroke-width: 1 }}
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 L8 4 L0 8 z" style="fill: context-stroke; stroke: none"/></marker></defs>"""


def draw(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the picture: a box for each package, an arrow for each pair.

    Every package stands on core, so arrows to it are left out. A pair that follows from two others is drawn thin.
    """
    places = _places()
    arrows = sorted(pair for pair in pairs if "core" not in pair)
    kinds = {pair: "implied" if _implied(pair, arrows) else "direct" for pair in arrows}
    parts = [HEAD.format(width=WIDTH, height=2 * MARGIN + len(FLOORS) * (BOX[1] + GAP) - GAP)]
    thin_first = sorted(arrows, key=lambda pair: kinds[pair], reverse=True)
    parts += [_arrow(pair, kinds[pair], places, number) for number, pair in enumerate(thin_first)]
    parts += [_box(name, *place) for name, place in places.items()]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _places() -> dict[str, tuple[int, int]]:
    """Return the top middle of each box."""
    places = {}
    for floor, row in enumerate(FLOORS):
        for column, name in enumerate(row):
            middle = (2 * column + 1) * WIDTH // (2 * len(row)) + SHIFTS.get(name, 0)
            places[name] = (middle, MARGIN + floor * (BOX[1] + GAP))
    return places


def _implied(pair: tuple[str, str], arrows: Iterable[tuple[str, str]]) -> bool:
    """Return whether another package imports the target and is imported by the source."""
    source, target = pair
    return any((source, between) in arrows and (between, target) in arrows for between in ALLOWED)


def _arrow(pair: tuple[str, str], kind: str, places: Mapping[str, tuple[int, int]], number: int) -> str:
    (x1, y1), (x2, y2) = (places[name] for name in pair)
    spread, top, bottom = (number % 7 - 3) * 14, y1 + BOX[1], y2 - 3
    middle = (top + bottom) // 2
    curve = f"M{x1 + spread} {top} C{x1 + spread} {middle} {x2 + spread} {middle} {x2 + spread} {bottom}"
    return f'<path class="{kind}" marker-end="url(#head)" d="{curve}"/>'


def _box(name: str, x: int, y: int) -> str:
    width, height = (WIDTH - 2 * MARGIN if name == "core" else BOX[0]), BOX[1]
    return (
        f'<rect x="{x - width // 2}" y="{y}" width="{width}" height="{height}" rx="6"/>'
        f'<text class="name" x="{x}" y="{y + 25}">{name}/</text>'
        f'<text class="purpose" x="{x}" y="{y + 45}">{escape(PURPOSES[name])}</text>'
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(package_pairs()), encoding="utf-8")
    print(f"Wrote {PICTURE.relative_to(ROOT)}: {len(package_pairs())} arrows.")
