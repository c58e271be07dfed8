"""The rules that keep the layout: who may import whom, how large things may grow."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from architecture import ALLOWED, PACKAGE, PICTURE, draw, imports_of, longest_chain, modules, package_pairs

MODULES = modules()
FILES = [*MODULES.values()]

THIRD_PARTIES: dict[str, tuple[str, ...]] = {
    "torch": ("models/", "export/", "backends/eager.py", "backends/tensorrt/zero_copy.py"),
    "safetensors": ("models/tensor_files.py",),
    "onnx": ("export/", "precision/", "backends/oracle/", "backends/tensorrt/"),
    "onnxslim": ("export/simplify.py", "export/cost.py"),
    "onnxscript": ("export/simplify.py",),
    "google": ("export/onnx_file.py", "serving/repository.py"),
    "onnxruntime": ("backends/ort.py", "precision/stepwise.py"),
    "tensorrt": ("backends/tensorrt/api.py",),
    "tensorrt_rtx": ("backends/tensorrt/api.py",),
    "polygraphy": ("backends/tensorrt/polygraphy.py", "parity/polygraphy.py"),
    "tritonclient": ("serving/repository.py", "serving/client.py"),
    "typer": ("cli/",),
    "rich": ("cli/", "core/log.py"),
    "numpy": (
        *(
            "core/feeds.py",
            "core/drawing.py",
            "core/prompts.py",
            "backends/",
            "parity/",
            "bench/",
            "core/masks.py",
            "report/masks.py",
            "serving/client.py",
        ),
        *("models/sam/decoder.py", "export/cost.py", "precision/ranges.py", "precision/convolution_products.py"),
    ),
    "pydantic": ("report/", "run/"),
    "yaml": ("run/config_file.py",),
    "jinja2": ("report/html.py",),
    "matplotlib": ("bench/plot.py", "precision/plot.py"),
}
"""Each third-party package and where it may be imported; typing of arrays through numpy.typing is free."""

MOST_PAIRS = 50
LONGEST_CHAIN = 14
LONGEST_FILE = 330
LONGEST_FUNCTION = 50
USUAL_FUNCTION = 7
NINE_IN_TEN_FUNCTIONS = 20


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_there_are_twelve_packages() -> None:
    found = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert found == {*ALLOWED, "__init__.py", "__main__.py", "py.typed"}
    assert len(ALLOWED) == 12


def test_no_rule_runs_back_up() -> None:
    order = [*ALLOWED]
    assert all(order.index(below) < order.index(package) for package, found in ALLOWED.items() for below in found)


@pytest.mark.parametrize("module", [name for name in MODULES if name.count(".")])
def test_imports_go_down_and_never_across(module: str) -> None:
    package = module.split(".")[1]
    if package == "__main__":
        return
    for found in imports_of(MODULES[module]):
        target = (*found.module.split("."), "")[1]
        assert not target or target in ALLOWED[package] | {package}, f"line {found.line}: {found.module}"


def test_packages_and_chains_are_few_and_short() -> None:
    assert len(package_pairs()) <= MOST_PAIRS
    assert len(longest_chain()) <= LONGEST_CHAIN, longest_chain()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_imported_name_is_offered(path: Path) -> None:
    for found in imports_of(path):
        if (
            f"{found.module}.{found.name}" in MODULES
            or found.module.endswith(f".{found.name}")
            or found.name[:2] == "__"
        ):
            continue
        assert found.name in offered(MODULES[found.module]), f"line {found.line}: {found.name} of {found.module}"


def offered(path: Path) -> list[str]:
    """The names in a file's `__all__`."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def third_parties(path: Path) -> Iterator[str]:
    """Every module of others that a file imports when it runs: types alone are free."""
    tree = ast.parse(path.read_text())
    for guard in [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
        if "TYPE_CHECKING" in ast.unparse(guard.test):
            guard.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_third_parties_are_imported_in_their_places(path: Path) -> None:
    for module in third_parties(path):
        places = THIRD_PARTIES.get(module.split(".")[0])
        if module != "numpy.typing" and places is not None:
            assert name_of(path).startswith(places), f"{module} may not be imported here"


def test_the_rules_can_be_broken(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    import torch.nn\n    from samdec_export.api import export\n")
    assert [*third_parties(bad)] == ["torch.nn", "samdec_export.api"]
    assert [(found.module, found.name, found.line) for found in imports_of(bad)] == [("samdec_export.api", "export", 3)]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Every function's name and lines, its docstring not counted."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node) is not None
            first = node.body[1] if documented and len(node.body) > 1 else node.body[0]
            yield node.name, (node.end_lineno or 0) - first.lineno + 1


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE
    assert all(length <= LONGEST_FUNCTION for _, length in functions(path)), [*functions(path)]


def test_most_functions_are_small() -> None:
    lengths = [length for path in FILES for _, length in functions(path)]
    assert statistics.median(lengths) <= USUAL_FUNCTION
    assert statistics.quantiles(lengths, n=10)[-1] <= NINE_IN_TEN_FUNCTIONS


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_modules_say_what_they_offer(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
    assert path.name in ("__init__.py", "__main__.py") or offered(path)


def test_the_picture_is_the_code() -> None:
    assert PICTURE.read_text() == draw(package_pairs()), "run python scripts/architecture.py"
