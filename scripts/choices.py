"""Count where each choice of a user's is declared: python scripts/choices.py. Anything but 1 is too much.

A declaration gives a choice a default, a help or bounds of its own: a field of an options dataclass or of a config, an
option of a command, or a literal default of a function's argument. What is derived from the dataclass is none:
`flag(CaseOptions, "sweep")`, `SweepOptions.sweep`, `_declared(EngineOptions, "targets")`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from samdec_export import api
from samdec_export.api import BenchOptions, BuildOptions, CaseOptions, ConvertOptions, GraphOptions
from samdec_export.core.choices import choices_of
from samdec_export.core.options import ExportOptions
from samdec_export.core.spelling import as_flag

__all__ = ["CHOICES", "PACKAGE", "declarations"]

PACKAGE: Final = Path(__file__).resolve().parents[1] / "samdec_export"
OPTIONS: Final = (ExportOptions, GraphOptions, ConvertOptions, BuildOptions, BenchOptions, CaseOptions)
CHOICES: Final = tuple(name for kind in OPTIONS for name in choices_of(kind))

OTHERS: Final = {
    ("out", "cli/engines.py"): "the folder of a model server",
    ("out", "cli/validate.py"): "a file",
    ("out", "serving/bundle.py"): "the folder of a model server",
}
"""What has the name of a choice and is another thing."""


PUBLIC: Final = tuple(f"{where.partition(':')[0].replace('.', '/')}.py" for where in api.WHERE.values())
"""Files whose functions and results are those of the Python API."""


def declarations(package: Path) -> dict[str, list[str]]:
    """Return where each choice is declared, as `file:line`."""
    found: dict[str, list[str]] = {name: [] for name in CHOICES}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        for choice, line in _declared(ast.parse(path.read_text()), name):
            if (choice, name) not in OTHERS:
                found[choice].append(f"{name}:{line}")
    return found


def _declared(tree: ast.Module, file: str) -> Iterator[tuple[str, int]]:
    if not file.startswith(("cli/", "api/")) and not file.endswith(("options.py", "run/config.py", *PUBLIC)):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and file.endswith(("options.py", "run/config.py")):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield from _of(field.target.id, field.annotation, field.value, field.lineno)
        elif isinstance(node, ast.FunctionDef):
            plain = [*node.args.posonlyargs, *node.args.args]
            defaults = [None] * (len(plain) - len(node.args.defaults)) + node.args.defaults
            every = [*zip(plain, defaults, strict=True), *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
            for argument, default in every:
                yield from _of(argument.arg, argument.annotation, default, argument.lineno)
        elif isinstance(node, ast.Assign) and file.startswith("cli/") and "typer.Option(" in ast.unparse(node.value):
            yield from ((choice, node.lineno) for choice in _flags(node.value))


def _of(name: str, annotation: ast.expr | None, default: ast.expr | None, line: int) -> Iterator[tuple[str, int]]:
    """Yield the choice that a field or an argument declares."""
    text = ast.unparse(annotation) if annotation else ""
    own = any(f"{maker}(" in text for maker in ("Help", "Field", "typer.Option"))
    literal = default is not None and not _derived(default)
    for choice in _flags(annotation) if own and annotation else set():
        yield choice, line
    if (own or literal) and not (own and annotation and _flags(annotation)):
        yield from ((choice, line) for choice in CHOICES if name == choice or f"--{name}" == as_flag(choice))


def _flags(node: ast.expr) -> set[str]:
    """Return the choices whose flag is written out."""
    words = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    return {choice for choice in CHOICES if as_flag(choice) in words}


def _derived(default: ast.expr) -> bool:
    """Return whether a default is None, or taken from where it is declared."""
    match default:
        case ast.Constant(value=None):
            return True
        case ast.Attribute(value=ast.Name(id=owner)):
            return owner.endswith("Options")
        case ast.Call(func=ast.Name(id=maker)):
            return maker == "_declared"
        case _:
            return False


def main() -> None:
    """Print each choice with the number of its declarations, and exit with 1 unless all are 1."""
    found = declarations(PACKAGE)
    for name, places in found.items():
        print(f"{len(places)} {name:<16} {' '.join(places)}")
    sys.exit(any(len(places) != 1 for places in found.values()))


if __name__ == "__main__":
    main()
