"""The rules that keep the layout: who may import whom, how large things may grow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "samdec_export"
FILES = sorted(PACKAGE.rglob("*.py"))

CONTRACTS = {
    *"__init__ artifact engine_file engine_options errors feeds files golden_file interrupts ledger log".split(),
    *"options polygraphy_files precision runner serving_options signature terminal".split(),
}
STAGES = {"models", "export", "passes", "backends", "validation", "doctor", "benchmark", "report", "serving"}
ABOVE = {
    "candidates": STAGES | {"engine_index"},
    "references": STAGES,
    **dict.fromkeys(("gate", "pipeline"), STAGES | {"candidates", "gate", "references"}),
    "golden": STAGES | {"gate", "references"},
    **dict.fromkeys(("bench", "bench_plot", "bench_worker"), STAGES | {"candidates", "gate", "bench", "bench_plot"}),
    **dict.fromkeys(("audit", "ranges_plot", "convert"), STAGES | {"gate", "audit", "ranges_plot"}),
    "engine_index": STAGES,
    "engine_source": STAGES | {"candidates", "gate", "convert"},
    "engines": STAGES | {"gate", "engine_source"},
    "config": {"models", "validation"},
    "config_file": {"config"},
    "run": STAGES
    | {"run", "config", "pipeline", "candidates", "gate", "convert", "engines", "engine_index", "bench", "reports"},
    "bundle": STAGES | {"gate"},
    "reports": {"report"},
    "display": {"validation"},
    "display_bundle": set[str](),
    "display_golden": set[str](),
    "display_report": {"report"},
    "display_run": {"report", "run"},
    "cli_shared": set[str](),
    "cli_bundle": {"cli_shared", "bundle", "display_bundle"},
    "cli_engines": {"cli_shared", "engines", "engine_index", "display"},
    "cli_golden": {"cli_shared", "golden", "display_golden"},
    "cli_report": {"cli_shared", "reports", "display_report"},
    "cli_run": {"cli_shared", "config", "config_file", "display_run", "run"},
    "entry": set[str](),
    "cli": {
        *"__version__ entry cli_bundle cli_engines cli_golden cli_report cli_run cli_shared".split(),
        *"pipeline convert audit bench display".split(),
    },
    "api": STAGES | {"bench", "convert", "engines", "gate", "golden", "pipeline"},
    "__main__": {"cli"},
}
"""The flows and the command line: what each may import beside the contracts."""

ALLOWED = {
    "torch": ("models/", "export.py", "backends/eager.py", "backends/trt_torch.py"),
    "safetensors": ("models/tensor_files.py",),
    "onnx": ("export.py", "passes/", "backends/oracle_file.py"),
    "onnxslim": ("passes/simplify.py", "passes/cost.py"),
    "onnxscript": ("passes/simplify.py",),
    "google": ("passes/describe.py", "serving/model_config.py"),
    "onnxruntime": ("backends/ort.py", "passes/stepwise.py"),
    "tensorrt": ("backends/trt_api.py",),
    "tensorrt_rtx": ("backends/trt_api.py",),
    "polygraphy": ("backends/trt_polygraphy.py", "polygraphy_files.py"),
    "tritonclient": ("serving/model_config.py", "serving/client.py"),
    "typer": ("cli.py", "cli_"),
    "rich": ("cli.py", "display", "log.py", "terminal.py", "validation/report.py"),
    "numpy": (
        *"feeds.py golden_file.py polygraphy_files.py report/masks.py serving/client.py".split(),
        *("backends/", "validation/", "models/sam.py", "bench"),
        *("passes/cost.py", "passes/ranges.py", "passes/convolution_products.py"),
    ),
    "pydantic": ("report/", "config.py", "config_file.py"),
    "yaml": ("config_file.py",),
    "jinja2": ("report/html.py",),
    "matplotlib": ("bench_plot.py", "ranges_plot.py"),
}
"""Each third-party package and where it may be imported; typing of arrays through numpy.typing is free."""

LONGEST_FILE = 330
LONGEST_FUNCTION = 45


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def stage_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, outside of TYPE_CHECKING blocks."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names) if module == "samdec_export" else [module]


def own_imports(path: Path) -> set[str]:
    return {module.split(".")[1] for module in imports(path) if module.startswith("samdec_export.")}


def test_every_file_has_its_layer() -> None:
    assert {stage_of(path) for path in FILES} <= CONTRACTS | STAGES | {*ABOVE}


def allowed(layer: str) -> set[str]:
    """What a layer may import of this package."""
    if layer in CONTRACTS:
        return CONTRACTS | {"__version__"}
    return CONTRACTS | ({layer} if layer in STAGES else ABOVE[layer])


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down_and_never_across(path: Path) -> None:
    assert own_imports(path) <= allowed(stage_of(path))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_third_parties_are_imported_in_their_places(path: Path) -> None:
    for module in imports(path):
        package = module.split(".")[0]
        if module != "numpy.typing" and package in ALLOWED:
            assert name_of(path).startswith(ALLOWED[package]), f"{module} may not be imported here"


def test_the_rules_can_be_broken(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    import torch.nn\n    from samdec_export import pipeline\n")
    assert list(imports(bad)) == ["torch.nn", "samdec_export.export.to_onnx"]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node) is not None
            first = node.body[1] if documented and len(node.body) > 1 else node.body[0]
            length = (node.end_lineno or 0) - first.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_modules_say_what_they_offer(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    if path.name in ("__init__.py", "__main__.py"):
        return
    assert any(isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__" for node in tree.body)
