"""What docs/architecture.md says of growth is true: one of each kind, added to a copy of the package, works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from architecture import PACKAGE


class Copy:
    """A copy of the package that is edited; `touched` are the files that were."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "samdec_export"
        shutil.copytree(PACKAGE, self.root, ignore=shutil.ignore_patterns("__pycache__"))
        self.touched: set[str] = set()

    def insert(self, file: str, before: str, text: str) -> None:
        """Put text before the first place where `before` stands."""
        path = self.root / file
        content = path.read_text()
        assert before in content, (file, before)
        path.write_text(content.replace(before, text + before, 1))
        self.touched.add(file)

    def add(self, file: str, text: str) -> None:
        """Add a module."""
        (self.root / file).write_text(text)
        self.touched.add(file)

    def run(self, code: str) -> str:
        """Run Python with the copy in place of the package."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.root.parent,
            env={**os.environ, "PYTHONPATH": str(self.root.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_a_model_is_a_row(copy: Copy) -> None:
    row = (
        'ModelSpec(name="sam_new", title="twice as deep", architecture=Architecture(embed_dim=32, grid=8, depth=4)),\n'
    )
    copy.insert("models/registry.py", "        ModelSpec(\n", f"        {row}")
    code = "from samdec_export import api; print([spec.name for spec in api.models()])\n"
    code += "from samdec_export.models.checkpoint import load_model; print(load_model(None, 'sam_new').spec.title)"
    shown = copy.run(code)
    assert "'sam_new'" in shown
    assert shown.endswith("twice as deep\n")
    assert len(copy.touched) == 1


BACKEND = '''"""A backend that answers with zeros."""

import numpy as np

__all__ = ["ZeroRunner"]


class ZeroRunner:
    name = "zeros"

    def __init__(self, signature):
        self.signature = signature

    def run(self, feeds):
        from samdec_export.core.feeds import sizes_of

        sizes = sizes_of(self.signature, feeds)
        return {spec.name: np.zeros(spec.concrete(sizes), spec.dtype) for spec in self.signature.outputs}
'''

USES_BACKEND = """
from samdec_export.backends.candidates import BACKENDS
from samdec_export.bench.side_by_side import parse_entry
print(parse_entry("file.onnx@zeros", None).runner, BACKENDS["zeros"].title)
"""


def test_a_backend_is_a_module_a_row_and_a_word(copy: Copy) -> None:
    copy.add("backends/zeros.py", BACKEND)
    copy.insert("core/options.py", '"ort-cuda", ', '"zeros", ')
    opener = "def _time_zeros(timed: Timed) -> Runner:\n    from samdec_export.backends.zeros import ZeroRunner\n\n"
    opener += "    return ZeroRunner(timed.candidate.artifact.record.signature)\n\n\n"
    copy.insert("backends/candidates.py", "BACKENDS: Final", opener)
    row = '    "zeros": Backend(title="zeros", files="onnx", time=_time_zeros),\n'
    copy.insert("backends/candidates.py", '    "ort-cuda": Backend(', row)
    assert copy.run(USES_BACKEND) == "zeros zeros\n"
    assert len(copy.touched) == 3


ROW = """    FloatFormat(
        dtype="float8_e5m2",
        title="fp8",
        onnx=19,
        bytes=1,
        floating=True,
        precision="fp8",
        largest=57344.0,
        smallest_normal=2.0**-14,
        epsilon=2.0**-2,
    ),
"""

USES_PRECISION = """
from samdec_export import api
from samdec_export.cli.flags import ConvertTo
from samdec_export.core.dtypes import FORMATS, PRECISIONS
wanted = api.Conversion(precision=ConvertTo(fp8=True).precision)
config = api.config(settings={"precisions": ["fp32", "fp8"], "gate.fp8.iou": 0.5})
limits = config.gate.tolerance("fp8")
print(PRECISIONS, FORMATS[wanted.precision].largest, limits.iou, limits.pixels)
"""


def test_a_precision_is_rows_a_key_and_a_flag(copy: Copy) -> None:
    copy.insert("core/dtypes.py", '"bf16"]\n', '"fp8", ')
    copy.insert("core/dtypes.py", '    FloatFormat(\n        dtype="float16"', ROW)
    limits = "logits=0.1, iou_predictions=0.1, margin=1e-5, iou=0.7, flipped=0.1, pixels=32, best_mask=1.0"
    copy.insert("parity/tolerances.py", '    "bf16": Tolerance(', f'    "fp8": Tolerance({limits}),\n')
    copy.insert(
        "run/config.py", "    bf16: Thresholds", '    fp8: Thresholds = Thresholds()\n    """Limits of fp8."""\n'
    )
    copy.insert(
        "cli/flags.py", "    bf16: Annotated[bool", '    fp8: Annotated[bool, Help("Convert to E5M2.")] = False\n'
    )
    assert copy.run(USES_PRECISION) == "('fp32', 'fp16', 'fp8', 'bf16') 57344.0 0.5 32\n"
    assert len(copy.touched) == 4


GRAPH = '''class EmbeddedGraph(DecoderGraph):
    """The decoder with the positional encoding of its own grid inside."""

    def forward(self, image_embeddings, sparse_prompt_embeddings, dense_prompt_embeddings):
        height, width = image_embeddings.shape[-2:]
        encoding = self.encoder.dense_pe(height, width)
        return super().forward(image_embeddings, encoding, sparse_prompt_embeddings, dense_prompt_embeddings)


'''

SIGNATURE = '''def _embedded(axes: Axes, options: GraphOptions) -> Signature:
    """Return the decoder's signature without its positional encoding."""
    decoder = _decoder(axes, options)
    return replace(decoder, inputs=tuple(spec for spec in decoder.inputs if spec.name != "image_pe"))


'''

USES_CONTRACT = """
import numpy as np
from samdec_export.api import GraphOptions
from samdec_export.backends.eager import EagerRunner
from samdec_export.core.drawing import Case
from samdec_export.core.feeds import make_feeds
from samdec_export.models.checkpoint import load_model
from samdec_export.models.sam.graphs import graph_to_export
loaded = load_model(None, "sam_tiny")
(plain, whole), (graph, record) = (
    graph_to_export(loaded, GraphOptions(graph=name)) for name in ("decoder", "embedded")
)
feeds = dict(make_feeds(record.signature, Case(sizes={"batch": 2, "points": 3})))
encoding = plain.encoder.dense_pe(8, 8).numpy().reshape(1, -1, 8, 8)
found = EagerRunner(graph, record.signature).run(feeds)
expected = EagerRunner(plain, whole.signature).run({**feeds, "image_pe": encoding})
assert np.array_equal(found["masks"], expected["masks"])
print(record.file_name, *(spec.name for spec in record.signature.inputs))
"""


def test_a_contract_is_a_name_a_signature_and_a_module(copy: Copy) -> None:
    copy.insert("core/options.py", '"prompts", "meta"]', '"embedded", ')
    copy.insert("core/options.py", '"prompts": "multi"', '"embedded": "multi", ')
    copy.insert("models/contracts.py", "CONTRACTS: Final", SIGNATURE)
    copy.insert("models/contracts.py", '    "prompts": _prompts', '    "embedded": _embedded,\n')
    copy.insert("models/sam/graphs.py", "class PromptsGraph", GRAPH)
    copy.insert("models/sam/graphs.py", '        "prompts": ', '        "embedded": EmbeddedGraph,\n')
    names = "sam_tiny.embedded.onnx image_embeddings sparse_prompt_embeddings dense_prompt_embeddings\n"
    assert copy.run(USES_CONTRACT) == names
    assert len(copy.touched) == 3
