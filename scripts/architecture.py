"""Read the package's imports, and draw them: python scripts/architecture.py writes docs/architecture.svg.

`tests/project/test_architecture.py` holds the imports to the table below, and the picture to the imports.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
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
    "api": "one verb a file, from Python",
    "run": "a config in; files, verdicts, report out",
    "precision": "fp16, bf16: what stays in fp32",
    "bench": "how fast?",
    "parity": "is it the same?",
    "serving": "what a server needs",
    "backends": "what runs or builds a file",
    "models": "the decoders in PyTorch",
    "export": "a graph becomes checked ONNX",
    "report": "one document, its renderings",
    "core": "shapes, types, options, results, files, errors",
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


def draw(pairs: Mapping[tuple[str, str], int]) -> str:
    """Return the picture: a box for each package, an arrow for each pair; those to core are drawn thin."""
    width, height = BOX
    places: dict[str, tuple[int, int]] = {}
    for floor, row in enumerate(FLOORS):
        pitch = WIDTH // len(row)
        for column, name in enumerate(row):
            shift = SHIFTS.get(name, 0)
            places[name] = (pitch * column + pitch // 2 + shift, MARGIN + floor * (height + GAP))
    total = 2 * MARGIN + len(FLOORS) * (height + GAP) - GAP
    parts = [HEAD.format(width=WIDTH, height=total)]
    for number, (source, target) in enumerate(sorted(pairs)):
        (x1, y1), (x2, y2) = places[source], places[target]
        spread = (number % 7 - 3) * 14
        kind = "thin" if target == "core" else source
        start, end = (x1 + spread, y1 + height), (x2 + spread, y2 - 3)
        middle = (start[1] + end[1]) / 2
        parts.append(
            f'<path class="{kind}" marker-end="url(#head)" d="M{start[0]} {start[1]} '
            f'C{start[0]} {middle:g} {end[0]} {middle:g} {end[0]} {end[1]}"/>'
        )
    for name, (x, y) in places.items():
        parts.append(
            f'<rect x="{x - width // 2}" y="{y}" width="{width}" height="{height}" rx="6"/>'
            f'<text class="name" x="{x}" y="{y + 25}">{name}/</text>'
            f'<text class="purpose" x="{x}" y="{y + 45}">{escape(PURPOSES[name])}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


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
path {{ fill: none; stroke: #3e7cb1; stroke-width: 1.4 }}
.run {{ stroke: #b7791f }} .api {{ stroke: #9aa5b1 }} .cli {{ stroke: #1f2933 }} .precision {{ stroke: #7b4b94 }}
.thin {{ stroke: #d5dbe1; stroke-width: 1 }}
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 L8 4 L0 8 z" style="fill: context-stroke; stroke: none"/></marker></defs>"""


if __name__ == "__main__":
    PICTURE.write_text(draw(package_pairs()), encoding="utf-8")
    print(f"Wrote {PICTURE.relative_to(ROOT)}: {len(package_pairs())} arrows.")
