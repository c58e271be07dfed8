"""Pin what users see and get: the files that are exported, help texts, JSON, a report and the messages of errors.

    python scripts/pins.py                 # record tests/pins again
    python scripts/pins.py --check         # make everything afresh, show what differs, exit 1 if anything does
    python scripts/pins.py --check help    # the same for some parts: files, help, json, report, errors

Everything goes through `python -m samdec_export`, in this process, so that no pin depends on the package's layout. It
needs the test extra and a machine without GPU; what the parts share is made once, by two processes.

Hashes and measured counts belong to one set of package versions and one kind of CPU: on another machine, record first
and check after the change.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import io
import json
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO, TypeAlias

__all__ = [
    "ERRORS",
    "PARTS",
    "PINS",
    "Outcome",
    "Workshop",
    "call",
    "help_texts",
    "junk",
    "main",
    "outcome_of",
    "text_of",
]

ROOT: Final = Path(__file__).resolve().parent.parent
PINS: Final = ROOT / "tests" / "pins"

ENVIRONMENT: Final = {
    "COLUMNS": "100",
    "LINES": "50",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "CUDA_VISIBLE_DEVICES": "-1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}
"""A fixed width, no colours, no GPU, one way to sum in torch, this checkout in the processes that commands start."""

UNWANTED: Final = ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TERMINAL_WIDTH", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""Variables that change what rich and typer print."""

Words: TypeAlias = tuple[str, ...]


def words_of(text: str) -> Words:
    """Split a command line as a shell does."""
    return tuple(shlex.split(text))


EXPORTS: Final[dict[str, tuple[str, str]]] = {
    f"{model}, {name}": (
        f"onnx --model {model} {options} --out {model[4:]}{suffix} --json",
        f"{model[4:]}{suffix}/{model}.{name.split(',')[0].split()[0]}.onnx",
    )
    for model in ("sam_tiny", "sam_toy")
    for name, options, suffix in (
        ("decoder", "--fp16" if model == "sam_toy" else "", ""),
        ("prompts", "--graph prompts --no-validate", ""),
        ("prompts with mask input", "--graph prompts --mask-input --no-validate", "-mask"),
        ("meta", "--graph meta --no-validate", ""),
        ("decoder, reference arrangement", "--arrangement reference --no-validate", "-reference"),
        *((("decoder, opset 17", "--opset 17 --no-validate", "-17"),) if model == "sam_tiny" else ()),
    )
}
"""Each fp32 file by a readable name: the command that makes it, and where. sam_toy's decoder brings its fp16 file."""

CONVERSIONS: Final[dict[str, tuple[str, str]]] = {
    f"{model}, {graph} {precision}": (
        ""
        if (model, graph, precision) == ("sam_toy", "decoder", "fp16")
        else f"convert {model[4:]}/{model}.{graph}.onnx --{precision} --json"
        + (" --no-validate" if graph == "prompts" else ""),
        f"{model[4:]}/{model}.{graph}.{precision}.onnx",
    )
    for model in ("sam_tiny", "sam_toy")
    for graph in ("decoder", "prompts")
    for precision in ("fp16", "bf16")
}
"""Each converted file likewise; no command where another one made it."""

RECORD: Final = "record tiny/sam_tiny.decoder.onnx -o tiny.npz --json"
RUN: Final = "run --model sam_tiny --engines none --set bench.enabled=false --out run --json"
BUILD: Final = "trt tiny/sam_tiny.decoder.fp16.onnx --engine rtx --targets sm89 --out engines --json"

JSON: Final[dict[str, str]] = {
    "onnx": EXPORTS["sam_tiny, decoder"][0],
    "onnx, not validated": EXPORTS["sam_tiny, prompts"][0],
    "onnx --fp16": EXPORTS["sam_toy, decoder"][0],
    "convert --fp16": CONVERSIONS["sam_tiny, decoder fp16"][0],
    "convert --bf16": CONVERSIONS["sam_toy, decoder bf16"][0],
    "convert, not validated": CONVERSIONS["sam_tiny, prompts fp16"][0],
    "validate fp32": "validate tiny/sam_tiny.decoder.onnx --sweep quick --json",
    "validate fp16": "validate tiny/sam_tiny.decoder.fp16.onnx --sweep quick --json",
    "validate, fails": "validate changed.onnx --sweep quick --json",
    "validate, another checkpoint": "validate toy/sam_toy.decoder.onnx --ckpt other.safetensors --sweep quick --json",
    "validate --golden": "validate tiny/sam_tiny.decoder.fp16.onnx --golden tiny.npz --json",
    "validate --case": "validate tiny/sam_tiny.decoder.onnx --case batch=1,points=2,first=1 --json",
    "record": RECORD,
    "golden": "golden tiny.npz --json",
    "inspect fp32": "inspect tiny/sam_tiny.prompts.onnx --json",
    "inspect fp16": "inspect tiny/sam_tiny.decoder.fp16.onnx --json",
    "inspect, no record": "inspect plain.onnx --json",
    "ranges": "ranges tiny/sam_tiny.decoder.onnx --json",
    "ranges --for bf16": "ranges tiny/sam_tiny.decoder.onnx --for bf16 --case batch=1,points=2,first=1 --json",
    "models": "models --json",
    "doctor": "doctor --json",
    "bench": "bench tiny/sam_tiny.decoder.onnx --prompts 1 --points 2 --repeats 1 --json",
    "trt": BUILD,
    "engines": "engines engines --json",
    "bundle triton": "bundle triton tiny/sam_tiny.decoder.onnx toy/sam_toy.prompts.onnx --out served --json",
    "run": RUN,
    "report": "report run/report.json --markdown again.md --json",
}
"""Each command that prints JSON, under a readable name."""

ERRORS: Final[tuple[tuple[str, bool], ...]] = tuple(
    (line, heavy)
    for heavy, text in (
        (
            False,
            """
            nonsense
            models beside
            doctor --nope
            onnx --ckpt nowhere.pt
            onnx --ckpt ''
            onnx --model=
            onnx --ckpt empty.pt
            onnx --ckpt pointer.pt
            onnx --ckpt README.txt
            onnx --ckpt cut.pt
            onnx --ckpt cut.safetensors
            onnx --ckpt strange.safetensors
            onnx --ckpt short.safetensors
            onnx --ckpt folder
            onnx --ckpt toy.safetensors --model sam_b
            onnx --model sam_b
            onnx --model sam_bb
            onnx --model cat
            onnx --graph decode
            onnx --masks two
            onnx --opset 16
            onnx --arrangement best
            onnx --sweep wide
            onnx --mask-input
            onnx --graph meta --mask-input
            onnx --fp16 --bf16
            onnx --graph prompts --range prompts
            onnx --graph prompts --range prompts=1:2
            onnx --graph prompts --range prompts=0:1:2
            onnx --graph prompts --range prompts=3:2:4
            onnx --graph prompts --range points=1:2:3 --range points=1:2:4
            onnx --model sam_tiny --graph prompts --range batch=1:2:3
            onnx --model sam_tiny --out README.txt/below
            convert
            convert any.onnx
            convert any.onnx --fp16 --bf16
            convert any.onnx --bf16 --io bf16
            convert any.onnx --bf16 --io fp16
            convert any.onnx --fp16 --io bf16
            convert any.onnx --fp16 --io fp64
            convert any.onnx --fp16 --max-flips 2
            convert any.onnx --fp16 --margin 0.5
            convert any.onnx --fp16 --all-products --max-flips 0.1
            convert nowhere.onnx --fp16
            convert README.txt --fp16
            convert plain.onnx --fp16
            validate
            validate ''
            validate .
            validate nowhere.onnx
            validate README.txt
            validate empty.onnx
            validate plain.onnx
            validate any.onnx --seed -1
            validate any.onnx --provider tpu
            validate any.onnx --report folder
            validate any.onnx --golden any.npz --ckpt any.pt
            validate any.onnx --golden any.npz --sweep quick --seed 1
            validate nowhere.engine
            validate lone.engine
            validate lone.engine --provider cpu
            record nowhere.onnx
            record empty.onnx
            record plain.onnx
            record plain.onnx --seed -1
            golden nowhere.npz
            golden README.txt
            golden strange.npz
            golden nothing.npz
            inspect .
            inspect nowhere.onnx
            inspect empty.onnx
            inspect README.txt
            ranges nowhere.onnx
            ranges plain.onnx
            ranges plain.onnx --for fp8
            ranges plain.onnx --top 0
            ranges plain.onnx --plot picture.gif
            ranges plain.onnx --plot plain.onnx
            bench
            bench any.onnx@tpu
            bench any.engine@ort
            bench any.onnx --prompts 0
            bench any.onnx --points two
            bench any.onnx --threads 0
            bench nowhere.onnx --repeats 1
            bench plain.onnx --repeats 1
            trt
            trt any.onnx --fp16 --bf16
            trt any.onnx --engine cuda
            trt any.onnx --targets sm10
            trt any.onnx --targets ''
            trt any.onnx --profile batch=1
            trt any.onnx --profile 'batch=1:1:2 batch=1:1:4'
            trt any.onnx --workspace 0
            trt any.onnx --opt-level 9
            trt nowhere.onnx --engine rtx --targets sm89
            trt plain.onnx --engine rtx --targets sm89
            engines nowhere
            bundle
            bundle triton
            bundle triton nowhere.onnx --out made
            bundle triton README.txt --out made
            bundle triton plain.onnx --out made
            bundle triton lone.engine --out made
            bundle triton any.onnx --out full
            bundle triton any.onnx --out made --instances 0
            bundle triton any.onnx --out made --queue-delay -1
            bundle triton any.onnx --out made --name 'a b'
            bundle triton any.onnx --out made --kind tpu
            report
            report nowhere.json
            report README.txt
            report folder
            report object.json
            report later.json
            run nowhere.yaml
            run README.txt
            run unknown.yaml
            run value.yaml
            run list.yaml
            run twice.yaml
            run broken.yaml
            run --set nothing
            run --set modle=sam_b
            run --set model=cat
            run --set gate.fp16.iou=2
            run --set gate=1 --set gate.fp16.iou=0.9
            run --set 'ranges.points=[3,2,1]'
            run --set convert.io=bf16
            run --set bench.enabled=false --set gate.latency.baseline=any.json
            run --set 'engines.precisions=[bf16]'
            run --set mask_input=true
            run --precisions fp8
            run --precisions ''
            run --engines cuda
            run --targets sm75
            run --model sam_b --out out
            run --ckpt nowhere.pt --out out
            run --ckpt strange.safetensors --out out
            run --set parity.feeds=nowhere.npz --out out
            config
            config nope
            config show nowhere.yaml
            config show unknown.yaml
            config show --set nothing
            """,
        ),
        (
            True,
            """
            convert tiny/sam_tiny.decoder.fp16.onnx --fp16
            convert tiny/sam_tiny.decoder.onnx --fp16 --keep-fp32 Nope
            convert tiny/sam_tiny.decoder.onnx --fp16 --keep-fp32 '*'
            convert tiny/sam_tiny.decoder.onnx --fp16 --keep-fp32 MatMul --all-products
            convert tiny/sam_tiny.decoder.onnx --fp16 --feeds misshapen.npz
            convert changed-record.onnx --fp16
            ranges tiny/sam_tiny.decoder.fp16.onnx
            ranges tiny/sam_tiny.decoder.onnx --case nope
            ranges tiny/sam_tiny.decoder.onnx --feeds nowhere.npz
            ranges tiny/sam_tiny.decoder.onnx --feeds README.txt
            ranges tiny/sam_tiny.decoder.onnx --feeds nothing.npz
            validate tiny/sam_tiny.decoder.onnx --case nope
            validate tiny/sam_tiny.decoder.onnx --feeds misshapen.npz
            validate tiny/sam_tiny.decoder.onnx --feeds incomplete.npz
            validate tiny/sam_tiny.decoder.onnx --feeds typed.npz
            validate tiny/sam_tiny.decoder.onnx --feeds strange.npz
            validate tiny/sam_tiny.decoder.onnx --provider cuda
            validate tiny/sam_tiny.decoder.onnx --outputs nowhere.json --sweep quick
            validate tiny/sam_tiny.decoder.onnx --outputs README.txt --sweep quick
            validate tiny/sam_tiny.decoder.onnx --feeds nowhere.json
            validate tiny/sam_tiny.decoder.onnx --feeds object.json
            validate tiny/sam_tiny.decoder.onnx --ckpt toy.safetensors --sweep quick
            validate tiny/sam_tiny.decoder.onnx --ckpt strange.safetensors
            validate tiny/sam_tiny.decoder.onnx --report tiny/sam_tiny.decoder.onnx
            validate tiny/sam_tiny.decoder.onnx --golden nowhere.npz
            validate tiny/sam_tiny.decoder.onnx --golden cut.npz
            validate tiny/sam_tiny.decoder.onnx --golden strange.npz
            validate tiny/sam_tiny.decoder.onnx --golden tiny.npz --case nope
            validate tiny/sam_tiny.prompts.onnx --golden tiny.npz
            validate toy/sam_toy.decoder.onnx --golden tiny.npz
            validate toy/sam_toy.decoder.onnx --ckpt other.safetensors --sweep quick
            validate changed.onnx --sweep quick
            validate changed.onnx --golden tiny.npz
            validate replaced.onnx
            validate unsound.onnx
            validate needy.onnx
            validate changed-record.onnx
            validate engines/sam_tiny.decoder.fp16.sm89.engine
            record needy.onnx
            record toy/sam_toy.decoder.onnx --ckpt other.safetensors
            record tiny/sam_tiny.decoder.onnx --out tiny/sam_tiny.decoder.onnx
            record tiny/sam_tiny.decoder.onnx --feeds misshapen.npz
            golden cut.npz
            golden tiny.npz --polygraphy-inputs tiny.npz
            golden tiny.npz --polygraphy-outputs folder
            inspect changed-record.onnx
            bench tiny/sam_tiny.decoder.onnx@ort-cuda --repeats 1
            bench engines/sam_tiny.decoder.fp16.sm89.engine --repeats 1
            trt tiny --engine rtx --targets sm89
            trt tiny/sam_tiny.decoder.bf16.onnx --fp16 --engine rtx --targets sm89
            trt tiny/sam_tiny.decoder.onnx --engine rtx --targets sm75
            trt tiny/sam_tiny.decoder.fp16.onnx --engine rtx --targets sm75
            trt tiny/sam_tiny.decoder.fp16.onnx --engine rtx --targets sm89 --profile points=1:2:99
            trt tiny/sam_tiny.decoder.fp16.onnx --engine rtx --targets sm89 --profile prompts=1:2:3
            trt tiny/sam_tiny.decoder.fp16.onnx --engine rtx --timing-cache any.cache
            trt tiny/sam_tiny.decoder.fp16.onnx --engine rtx --hardware-compat
            trt tiny/sam_tiny.decoder.fp16.onnx --engine tensorrt
            trt tiny/sam_tiny.meta.onnx --engine rtx --targets sm89
            bundle triton tiny/sam_tiny.decoder.onnx tiny/sam_tiny.prompts.onnx --name both --out made
            bundle triton engines/sam_tiny.decoder.fp16.sm89.engine --out made
            bundle triton replaced.onnx --out made
            bundle triton changed-record.onnx --out made
            run --model sam_tiny --engines none --set bench.enabled=false --out run --set gate.fp16.logits=1e-6
            report run/report.json --html run
            report run/report.json --html run/report.json
            """,
        ),
    )
    for line in (row.strip() for row in text.splitlines())
    if line
)
"""Command lines that fail, and whether they need what exports, a run and a build have made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command did: its exit code and both streams."""

    code: int
    out: str
    err: str


def call(words: Sequence[str]) -> Outcome:
    """Run the command line in this process and in the current folder, as `python -m samdec_export -q` would."""
    err, before, code = io.StringIO(), sys.argv, 0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out:  # a file: where output is lost, its number is asked for
        sys.argv = ["samdec-export", "-q", *words]
        try:
            with redirect_stdout(out), redirect_stderr(err):
                runpy.run_module("samdec_export", run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        finally:
            sys.argv = before
        return Outcome(code=code, out=contents(out), err=err.getvalue())


def contents(file: TextIO) -> str:
    """Read what was written; nothing where the command gave its output up."""
    with suppress(OSError):
        file.seek(0)
        return file.read()
    return ""


def call_all(folder: Path, lines: Iterable[str]) -> dict[str, Outcome]:
    """Run command lines one after another in a folder; a worker's whole task."""
    prepare()
    os.chdir(folder)
    return {line: call(words_of(line)) for line in lines}


def prepare() -> None:
    """Set the environment that all pins are made in; before anything imports torch, rich or typer."""
    os.environ.update(ENVIRONMENT)
    for name in UNWANTED:
        os.environ.pop(name, None)
    if str(ROOT) not in sys.path[:1]:
        sys.path.insert(0, str(ROOT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """A folder in which commands run, each of the shared ones once."""

    folder: Path
    done: dict[str, Outcome] = field(default_factory=dict)

    def outcome(self, line: str) -> Outcome:
        """Give what a shared command did, running it if nobody has yet."""
        if line not in self.done:
            self.done[line] = call(words_of(line))
        return self.done[line]

    def must(self, line: str, *codes: int) -> Outcome:
        """Give what a command did that is to end with 0, or with one of these codes."""
        found = self.outcome(line)
        if found.code not in (codes or (0,)):
            raise SystemExit(f"{line} ended with {found.code}: {found.err}")
        return found

    def make_ahead(self, parts: Sequence[str]) -> None:
        """Make what the parts share, in two processes: one for each model, a run beside the smaller share of work."""
        wanted = [*self.shared(parts)]
        first = [line for line in wanted if "tiny" in line and line != RUN]
        groups = [group for group in (first, [line for line in wanted if line not in first]) if group]
        if not groups:
            return
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            for made in pool.map(call_all, [self.folder] * len(groups), groups):
                self.done.update(made)
        for line in wanted:
            self.must(line)

    @staticmethod
    def shared(parts: Sequence[str]) -> Iterator[str]:
        """List the commands that the parts share, in an order in which they can run."""
        files = (*EXPORTS.values(), *CONVERSIONS.values())
        judged = {*JSON.values(), EXPORTS["sam_tiny, meta"][0], CONVERSIONS["sam_tiny, decoder bf16"][0]}
        judged.add(EXPORTS["sam_toy, prompts"][0])
        for line, _ in files:
            if line and ("files" in parts or ({"json", "errors"} & {*parts} and line in judged)):
                yield line
        if {"files", "json", "errors"} & {*parts}:
            yield RECORD
        if {"json", "errors"} & {*parts}:
            yield BUILD
        if {"json", "report", "errors"} & {*parts}:
            yield RUN


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Change to a folder while the block runs, and set the environment for it."""
    here, environment = Path.cwd(), dict(os.environ)
    prepare()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(environment)


def junk(folder: Path) -> None:
    """Write the files that commands are to refuse, and that need no export."""
    import numpy as np
    import onnx
    from safetensors.numpy import load_file, save_file

    texts = {
        "README.txt": "not a model",
        "empty.pt": "",
        "empty.onnx": "",
        "pointer.pt": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "cut.pt": "PK\x03\x04 and no more",
        "lone.engine": "an engine without its sidecar",
        "object.json": "{}",
        "later.json": '{"schema_version": 99}',
        "unknown.yaml": "modle: sam_b\n",
        "value.yaml": "opset: 16\nprecisions: [fp8]\n",
        "list.yaml": "- model\n",
        "twice.yaml": "model: sam_b\nmodel: sam_l\n",
        "broken.yaml": "model: [sam_b\n",
        "full/README.txt": "",
    }
    for name in ("folder", "full"):
        (folder / name).mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    (weights,) = (ROOT / "samdec_export").rglob("sam_toy.safetensors")
    shutil.copy(weights, folder / "toy.safetensors")
    (folder / "cut.safetensors").write_bytes(weights.read_bytes()[:-1000])
    tensors = load_file(weights)
    *most, last = sorted(tensors)
    save_file({name: tensors[name] for name in most}, folder / "short.safetensors")
    save_file({**tensors, last: tensors[last] + 1}, folder / "other.safetensors")
    save_file({"layer.weight": np.zeros((2, 3), np.float32)}, folder / "strange.safetensors")
    np.savez(folder / "nothing.npz")
    np.savez(folder / "strange.npz", other=np.zeros(3, np.float32))
    tensor = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in "xy"]
    node = onnx.helper.make_node("Relu", ["x"], ["y"], "only")
    graph = onnx.helper.make_graph([node], "plain", tensor[:1], tensor[1:])
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, producer_name="hand"), folder / "plain.onnx")


def spoiled(folder: Path) -> None:
    """Write what commands are to refuse and is made of an export: damaged copies, and inputs that do not fit."""
    import numpy as np
    import onnx

    source = folder / "tiny" / "sam_tiny.decoder.onnx"
    sidecar = source.with_name(source.name + ".json").read_text()
    model = onnx.load(source)
    feeds = {
        item.name: np.zeros([axis.dim_value or 1 for axis in item.type.tensor_type.shape.dim], np.float32)
        for item in model.graph.input
    }
    first, *rest = feeds
    np.savez(folder / "misshapen.npz", **{**feeds, first: feeds[first][:, :-1]})  # type: ignore[arg-type]  # a keyword
    np.savez(folder / "incomplete.npz", **{name: feeds[name] for name in rest})  # type: ignore[arg-type]  # the same
    np.savez(folder / "typed.npz", **{**feeds, first: feeds[first].astype(np.float64)})  # type: ignore[arg-type]
    for name, text in (("replaced", sidecar), ("unsound", "{")):
        onnx.save(onnx.load(source), folder / f"{name}.onnx")
        with (folder / f"{name}.onnx").open("ab") as file:
            file.write(b"\x82\x01\x00")  # a field that no ONNX file has: other bytes, the same graph
        (folder / f"{name}.onnx.json").write_text(text)
    for name, key, value in (
        (
            "needy",
            "checkpoint",
            json.dumps({**json.loads(sidecar)["checkpoint"], "file": "gone.pt", "sha256": "0" * 64}),
        ),
        ("changed-record", "masks", '"two"'),
    ):
        copy = onnx.load(source)
        for item in copy.metadata_props:
            if item.key == f"samdec_export.{key}":
                item.value = value
        onnx.save(copy, folder / f"{name}.onnx")
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.raw_data = bytes(len(largest.raw_data))
    onnx.save(model, folder / "changed.onnx")
    golden = (folder / "tiny.npz").read_bytes()
    (folder / "cut.npz").write_bytes(golden[: len(golden) // 2])


# Masks: what belongs to a machine, a moment or a measurement

VERSION: Final = re.compile(r"\b\d+\.\d+\.\d+(?:[.+][\w.]*\w)?")
NUMBER: Final = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?e[-+]?\d+|(?<![\w.])-?\d+\.\d+")
COUNTED: Final = re.compile(r"\d+(?= (?:pixels|values))")
SHORT: Final = 5
"""Digits of a float that somebody wrote; a measured one has more, but for 0 and 1, which are kept too."""

MOMENTS: Final = {"created", "seconds", "peak_bytes", "platform", "cpu", "python"}
"""Keys whose values differ between runs or machines."""

SENTENCES: Final = {"sentence", "headline", "violations", "findings"}
"""Keys whose texts hold measured numbers."""

LONGEST: Final = 12
"""Objects of a list that are shown; of the others there is one hash."""


def masked(value: Any, folder: Path, key: str = "") -> Any:
    """Replace what is measured or belongs to a machine, and keep every key.

    Floats with many digits are measured; texts lose the scratch folder, versions and, where they are sentences about
    measurements, numbers. Packed masks and histograms of errors are made of measurements entirely.
    """
    if isinstance(value, dict):
        return masked_object(value, folder, key)
    if isinstance(value, list):
        return shortened([masked(item, folder, key) for item in value])
    if isinstance(value, float):
        return value if float(f"{value:.{SHORT}g}") == value else "<float>"
    return masked_string(value, folder, key) if isinstance(value, str) else value


def masked_object(value: dict[str, Any], folder: Path, key: str) -> dict[str, Any]:
    """Replace the values of an object by their keys."""
    if key == "errors":  # the bins that a histogram has follow from what fell into them
        return {name: dict.fromkeys(bins, "<histogram>") for name, bins in value.items()}
    varying = MOMENTS | ({"threads"} if key == "machine" else set())
    return {
        name: "<moment>" if name in varying and item is not None else masked(item, folder, name)
        for name, item in value.items()
    }


def shortened(items: list[Any]) -> list[Any]:
    """Replace the end of a long list of objects by its hash."""
    if len(items) <= LONGEST or not isinstance(items[0], dict):
        return items
    rest = json.dumps(items[LONGEST:]).encode()
    return [*items[:LONGEST], f"<{len(items) - LONGEST} more, sha256 {hashlib.sha256(rest).hexdigest()}>"]


def masked_string(text: str, folder: Path, key: str) -> str:
    """Replace a packed mask by its length, and what `masked_text` does."""
    if key in ("reference", "candidate") and re.fullmatch(r"[A-Za-z0-9+/]{40,}=*", text):
        return f"<{len(text)} characters>"
    return masked_text(text, folder, numbers=key in SENTENCES)


def masked_text(text: str, folder: Path, numbers: bool = False) -> str:
    """Replace the scratch folder and versions, and numbers where they are measured."""
    text = text.replace(str(folder), "<folder>").replace(str(ROOT), "<root>")
    text = VERSION.sub("<version>", text)
    return COUNTED.sub("<count>", NUMBER.sub("<float>", text)) if numbers else text


def masked_engine(value: Any) -> Any:
    """Replace what TensorRT decides anew in every build, in what `trt` prints."""
    artifact = {**value["artifact"], "sha256": "<sha256>"}
    return {
        **value,
        "bytes": "<bytes>",
        "artifact": {**artifact, **({"bytes": "<bytes>"} if "bytes" in artifact else {})},
    }


# Parts


def pin_files(shop: Workshop) -> str:
    """Hash every exported file and its sidecar.

    Nothing is masked: sidecars and goldens hold no time and no path, and a golden's entries are dated 1980. They do
    hold the versions of the tools, which are named here so that a difference of theirs explains itself.
    """
    hashes: dict[str, Any] = {}
    for name, (_, path) in (EXPORTS | CONVERSIONS).items():
        sidecar = f"{path}.json"
        hashes[name] = {"file": Path(path).name, "onnx": sha256(Path(path)), "sidecar": sha256(Path(sidecar))}
    hashes["sam_tiny, decoder golden"] = {"npz": sha256(Path("tiny.npz"))}
    sidecar = EXPORTS["sam_tiny, decoder"][1] + ".json"
    return dump({"tools": json.loads(Path(sidecar).read_text())["tools"], "files": hashes})


def pin_help(shop: Workshop | None = None) -> str:
    """Collect the help of the program, its commands and theirs."""
    return "".join(f"$ {' '.join(['samdec-export', *words, '--help'])}\n{text}\n" for words, text in help_texts())


def help_texts(words: Words = ()) -> Iterator[tuple[Words, str]]:
    """Give the help of a command and of those below it, which are found in its own help."""
    found = call((*words, "--help"))
    text = "\n".join(line.rstrip() for line in found.out.splitlines())
    yield words, text if found.code == 0 else f"exit code {found.code}\n{found.err}"
    _, _, commands = text.partition("─ Commands ─")
    for name in re.findall(r"^│ ([a-z][\w-]*)", commands, re.MULTILINE):
        yield from help_texts((*words, name))


def pin_json(shop: Workshop) -> str:
    """Collect what every command prints with --json."""
    found = {}
    for name, line in JSON.items():
        done = shop.must(line, 0, 7)
        value = json.loads(done.out)
        value = masked(masked_engine(value) if line == BUILD else value, shop.folder)
        found[name] = {"command": line, "code": done.code, "stdout": value}
    return dump(found)


def pin_report(shop: Workshop) -> str:
    """Collect the report of a run, the keys of its other renderings, and configs."""
    shop.must(RUN)
    shown = ("config schema", "config show", "report any.json --schema")
    return dump(
        {
            "report.json": masked(json.loads(Path("run/report.json").read_text()), shop.folder),
            "files": sorted(path.relative_to("run").as_posix() for path in Path("run").rglob("*") if path.is_file()),
            "config show": shop.must("config show").out.splitlines(),
            "config show configs/sam_toy.yaml": call(
                ("config", "show", str(ROOT / "configs/sam_toy.yaml"))
            ).out.splitlines(),
            "sha256": {line: hashlib.sha256(shop.must(line).out.encode()).hexdigest() for line in shown},
        }
    )


def pin_errors(shop: Workshop) -> str:
    """Collect exit codes and messages of commands that fail."""
    return dump({line: outcome_of(line, shop.folder) for line, _ in ERRORS})


def outcome_of(line: str, folder: Path) -> dict[str, Any]:
    """Run a command that fails, and mask what it says; what it left is named and removed.

    Measured numbers are in what validations say.
    """
    before = {*folder.rglob("*")}
    done = call(words_of(line))
    text = masked_text(done.err, folder, numbers=done.code == 7)
    found: dict[str, Any] = {"code": done.code, "stderr": [row.rstrip() for row in text.splitlines()]}
    if left := sorted({*folder.rglob("*")} - before):
        found["left"] = [path.relative_to(folder).as_posix() for path in left]
        for path in reversed(left):
            path.rmdir() if path.is_dir() else path.unlink()
    return found


PARTS: Final[Mapping[str, tuple[str, Callable[[Workshop], str]]]] = {
    "files": ("files.json", pin_files),
    "help": ("help.txt", pin_help),
    "json": ("json.json", pin_json),
    "report": ("report.json", pin_report),
    "errors": ("errors.json", pin_errors),
}
"""Each part: the file under tests/pins, and what makes it."""


def text_of(part: str) -> str:
    """Read what is recorded for a part; nothing where it was not recorded yet."""
    path = PINS / PARTS[part][0]
    return path.read_text(encoding="utf-8") if path.exists() else ""


def sha256(path: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def dump(value: Any) -> str:
    """Write JSON that a person can compare."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def make(parts: Sequence[str], folder: Path) -> dict[str, str]:
    """Make the parts afresh in a folder, and say on stderr what each took."""
    found: dict[str, str] = {}
    shop = Workshop(folder=folder)
    with working_in(folder):
        started = time.perf_counter()
        junk(folder)
        shop.make_ahead(parts)
        if {"json", "errors"} & {*parts}:
            spoiled(folder)
        print(f"{'shared':<8} {time.perf_counter() - started:6.1f} s", file=sys.stderr)
        for part in parts:
            started = time.perf_counter()
            found[part] = PARTS[part][1](shop)
            print(f"{part:<8} {time.perf_counter() - started:6.1f} s", file=sys.stderr)
    return found


def main() -> None:
    """Record the parts, or compare them with what is recorded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all of them if none is named")
    parser.add_argument("--check", action="store_true", help="compare instead of recording; exit 1 on a difference")
    options = parser.parse_args()
    if unknown := {*options.parts} - {*PARTS}:
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    parts = [part for part in PARTS if part in options.parts or not options.parts]
    with tempfile.TemporaryDirectory(prefix="pins-") as folder:
        found = make(parts, Path(folder).resolve())
    differ = False
    PINS.mkdir(exist_ok=True)
    for part, text in found.items():
        name = PARTS[part][0]
        if not options.check:
            (PINS / name).write_text(text, encoding="utf-8")
            continue
        before, after = text_of(part).splitlines(keepends=True), text.splitlines(keepends=True)
        lines = [*difflib.unified_diff(before, after, f"recorded/{name}", f"now/{name}")]
        sys.stdout.writelines(lines)
        differ |= bool(lines)
    if options.check:
        print("What is pinned changed." if differ else f"No difference: {', '.join(parts)}.")
    sys.exit(differ)


if __name__ == "__main__":
    main()
