from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Export
from onnx import TensorProto, helper, numpy_helper

from samdec_export.bench.measure import Program, Workload, measure
from samdec_export.bench.options import parse_counts
from samdec_export.bench.side_by_side import BenchEntry, bench_entries, parse_entry
from samdec_export.cli import app as cli
from samdec_export.core.errors import GraphError, UsageError
from samdec_export.export.cost import count_cost

ECHO = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for count, line in enumerate(sys.stdin):
    load = json.loads(line)
    if load["images"] > 1:
        answer = {"unsupported": "one image at a time"}
    else:
        answer = {"seconds": load["prompts"] + count / 1000}
    print(json.dumps({**answer, "peak_bytes": 5}), flush=True)
"""


def candidate(code: str, name: str = "echo") -> Program:
    return Program(name=name, command=(sys.executable, "-c", code))


def test_repeats_are_kept_and_warmups_are_not() -> None:
    loads = Workload.grid([1], [4, 2], [2])
    found = measure([candidate(ECHO), candidate(ECHO, "other")], loads, threads=1, warmups=1, repeats=3)
    assert [(item.candidate, item.workload.prompts) for item in found] == [
        ("echo", 2), ("other", 2), ("echo", 4), ("other", 4)
    ]  # fmt: skip
    assert found[0].seconds == (2.001, 2.002, 2.003)
    assert found[0].median == 2.002
    assert found[0].per_prompt == 1.001
    assert found[0].spread == pytest.approx((2.0015, 2.0025))


def test_what_a_candidate_cannot_do_is_said() -> None:
    (found,) = measure([candidate(ECHO)], Workload.grid([2], [1], [1]), threads=1, warmups=0, repeats=1)
    assert found.unsupported == "one image at a time"
    assert not found.seconds


def test_a_candidate_that_stops_is_named_with_its_last_words() -> None:
    with pytest.raises(GraphError, match=r"candidate broken stopped: .*no such model"):
        measure(
            [candidate("raise SystemExit('no such model')", "broken")],
            Workload.grid([1], [1], [1]),
            threads=1,
            warmups=0,
            repeats=1,
        )


def test_flops_and_bytes_equal_closed_forms(tmp_path: Path) -> None:
    weights = {
        "conv": np.zeros((6, 3, 2, 2), np.float32),
        "up": np.zeros((6, 5, 2, 2), np.float32),
        "matrix": np.zeros((16, 7), np.float32),
        "square": np.zeros((9, 7), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["a"], strides=[2, 2]),  # (n, 6, 4, 4)
        helper.make_node("ConvTranspose", ["a", "up"], ["b"], strides=[2, 2]),  # (n, 5, 8, 8)
        helper.make_node("Reshape", ["b", "shape"], ["c"]),  # (n*20, 16)
        helper.make_node("MatMul", ["c", "matrix"], ["d"]),  # (n*20, 7)
        helper.make_node("Gemm", ["d", "square"], ["y"], transB=1),  # (n*20, 9)
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 9])
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    constants.append(numpy_helper.from_array(np.array([-1, 16], np.int64), "shape"))
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [x], [y], constants)), tmp_path / "m.onnx")
    n = 3
    cost = count_cost(tmp_path / "m.onnx", {"x": (n, 3, 8, 8)})
    conv, up = 2 * (n * 6 * 16) * 12, 2 * (n * 6 * 16) * 20
    matmul, gemm = 2 * (n * 20 * 7) * 16, 2 * (n * 20 * 9) * 7
    assert cost.flops == conv + up + matmul + gemm
    activations = [n * 3 * 64, n * 6 * 16, n * 6 * 16, n * 5 * 64, n * 20 * 16, n * 20 * 7, n * 20 * 7, n * 20 * 9]
    assert cost.bytes == 4 * (sum(activations) + sum(value.size for value in weights.values()))


def test_a_whole_benchmark_with_its_picture(export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(export(graph="prompts").artifact.path)
    picture = tmp_path / "cost.png"
    options = ["--prompts", "1,2", "--points", "2", "--repeats", "2", "--threads", "1"]
    with pytest.raises(SystemExit) as caught:
        cli.main(["-q", "bench", path, f"{path}@eager", *options, "--plot", str(picture), "--json"])
    assert caught.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert report["peak_flops_per_second"] > 1e9
    rows = report["measurements"]
    assert [(row["candidate"], row["workload"]["prompts"]) for row in rows] == [
        (path, 1), (f"{path}@eager", 1), (path, 2), (f"{path}@eager", 2)
    ]  # fmt: skip
    assert all(row["median"] > 0 and row["flops"] > 0 and row["bytes"] > 0 for row in rows)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no runner 'tpu'"):
        parse_entry("a.onnx@tpu", None)
    for text in ("0", "", "1,,2", "-1", "two"):
        with pytest.raises(UsageError, match=r"prompts .* is not a list"):
            parse_counts(text, "prompts")
    with pytest.raises(GraphError, match="cannot be read"):
        bench_entries([BenchEntry(path=tmp_path / "none.onnx", name="x")], Workload.grid([1], [1], [1]))
