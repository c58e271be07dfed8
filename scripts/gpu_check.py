"""Run this project's commands for engines on a machine with a GPU, and write down what came out.

python scripts/gpu_check.py --models sam_tiny,sam_b --out gpu-report

`report.json` has every step with its command, exit code, seconds and files; `report.txt` says the same in lines.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from samdec_export.backends.machine import Machine, look
from samdec_export.backends.tensorrt.options import RTX_TARGETS
from samdec_export.core.packages import EngineName

GRAPHS = ("decoder", "prompts")
PRECISIONS = ("fp32", "fp16", "bf16")
NO_GPU = 6
WORKLOADS = ("--prompts", "1,8,16", "--points", "2", "--repeats", "10")
COMMAND = (sys.executable, "-m", "samdec_export")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command, and where its standard output goes. What `needs` names must have passed before."""

    name: str
    words: tuple[str, ...]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a step. `code` is None where it was left out because of a step before it."""

    name: str
    command: str
    code: int | None
    seconds: float
    output: str
    last_words: str

    @property
    def line(self) -> str:
        """One line for people."""
        verdict = "passed" if self.code == 0 else "left out" if self.code is None else f"FAILED with {self.code}"
        return f"{verdict:<14} {self.seconds:8.1f} s  {self.name}" + (f": {self.last_words}" if self.code else "")


def engines_of(machine: Machine) -> list[EngineName]:
    """The TensorRT flavours that can build for this machine's GPU and run on it."""
    able: list[EngineName] = ["tensorrt"] if not machine.obstacle("tensorrt") else []
    if not machine.obstacle("rtx") and machine.gpu and machine.gpu.target in RTX_TARGETS:
        able.append("rtx")
    return able


def plan(models: Sequence[str], engines: Sequence[EngineName], target: str, out: Path) -> Iterator[Step]:
    """Every step, in order."""
    yield Step(name="doctor", words=(*COMMAND, "doctor", "--json"))
    for model in models:
        yield from _export(model, out)
        for engine in engines:
            for graph in GRAPHS:
                for precision in PRECISIONS:
                    yield from _engine(model, engine, graph, precision, target, out)
    pytest = (sys.executable, "-m", "pytest", "-m", "gpu", "-q", f"--junit-xml={out / 'pytest.xml'}")
    yield Step(name="pytest -m gpu", words=pytest)


def _export(model: str, out: Path) -> Iterator[Step]:
    """An export of each graph, and ONNX Runtime on the GPU."""
    checkpoint = out / f"{model}.safetensors"
    if model != "sam_tiny":
        yield Step(name=f"{model} checkpoint", words=(sys.executable, __file__, "--write", model, str(checkpoint)))
    source = () if model == "sam_tiny" else ("--ckpt", str(checkpoint), "--model", model)
    for graph in GRAPHS:
        name, file = f"{model} {graph}", out / f"{model}.{graph}.onnx"
        needs = () if model == "sam_tiny" else (f"{model} checkpoint",)
        named = source or ("--model", model)
        words = ("onnx", *named, "--graph", graph, "--out", str(out), "--json")
        yield Step(name=name, words=(*COMMAND, *words), needs=needs)
        check = ("validate", str(file), *source[:2], "--provider", "cuda", "--sweep", "quick", "--json")
        yield Step(name=f"{name} ort-cuda validate", words=(*COMMAND, *check), needs=(name,))


def _engine(model: str, engine: EngineName, graph: str, precision: str, target: str, out: Path) -> Iterator[Step]:
    """An engine is built, validated and timed beside ONNX Runtime on the GPU."""
    name = f"{model} {graph} {precision} {engine}"
    source, folder = out / f"{model}.{graph}.onnx", out / engine
    checkpoint = () if model == "sam_tiny" else ("--ckpt", str(out / f"{model}.safetensors"))
    typed = () if precision == "fp32" else (f"--{precision}",)
    words = ("trt", str(source), *checkpoint, *typed, "--engine", engine, "--out", str(folder), "--json")
    yield Step(name=f"{name} build", words=(*COMMAND, *words), needs=(f"{model} {graph}",))
    built = str(folder / f"{model}.{graph}.{precision}.{target}.engine")
    onnx = source if precision == "fp32" else source.with_name(f"{model}.{graph}.{precision}.onnx")
    link = (sys.executable, __file__, "--beside", str(onnx), str(folder))
    yield Step(name=f"{name} onnx", words=link, needs=(f"{name} build",))
    check = ("validate", built, *checkpoint, "--sweep", "quick", "--json")
    yield Step(name=f"{name} validate", words=(*COMMAND, *check), needs=(f"{name} onnx",))
    timed = (built, *((f"{onnx}@ort-cuda",) if precision != "bf16" else ()))
    yield Step(name=f"{name} bench", words=(*COMMAND, "bench", *timed, *WORKLOADS, "--json"), needs=(f"{name} build",))


def run(steps: Iterable[Step], out: Path) -> Iterator[Outcome]:
    """Run the steps whose needs are met; the output of each goes into a file of its own."""
    passed: set[str] = set()
    for step in steps:
        output = out / f"{step.name.replace(' ', '_').replace('/', '_')}.out"
        started, code, last = time.perf_counter(), None, "a step before it failed"
        if passed.issuperset(step.needs):
            done = subprocess.run(step.words, capture_output=True, text=True, check=False)
            output.write_text(done.stdout + done.stderr)
            code, last = done.returncode, (done.stderr.strip().splitlines() or [""])[-1]
        if code == 0:
            passed.add(step.name)
        seconds = time.perf_counter() - started
        yield Outcome(
            name=step.name,
            command=" ".join(step.words),
            code=code,
            seconds=seconds,
            output=output.name,
            last_words=last,
        )


def write_checkpoint(model: str, path: Path) -> None:
    """Seeded weights of a model's size, by upstream's names."""
    import torch
    from safetensors.torch import save_file

    from samdec_export.models.registry import MODELS
    from samdec_export.models.sam.decoder import SamDecoder, seed_weights

    decoder = SamDecoder(MODELS[model].architecture)
    with torch.no_grad():
        seed_weights(decoder, 1)
    save_file({name: tensor.contiguous() for name, tensor in decoder.state_dict().items()}, path)


def put_beside(onnx: Path, folder: Path) -> None:
    """The ONNX file beside the engine that was built from it: the oracle and the count of operations need it."""
    (folder / onnx.name).write_bytes(onnx.read_bytes())


def check(models: Sequence[str], out: Path) -> int:
    """Run everything and write the report.

    Returns:
        0 if every step passed, 6 where no engine can be built and run here, or the first failed step's exit code.
    """
    machine = look()
    engines = engines_of(machine)
    if machine.gpu is None or not engines:
        reasons = "; ".join(filter(None, (machine.obstacle("tensorrt"), machine.obstacle("rtx"))))
        print(f"gpu-check: no engine can be built and run here: {reasons or 'no GPU of theirs'}.", file=sys.stderr)
        return NO_GPU
    out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for outcome in run(plan(models, engines, machine.gpu.target, out), out):
        print(outcome.line, flush=True)
        outcomes.append(outcome)
    failed = [outcome.code for outcome in outcomes if outcome.code != 0]
    found = {"gpu": asdict(machine.gpu), "versions": dict(machine.versions), "passed": not failed}
    report = {**found, "steps": [asdict(outcome) for outcome in outcomes]}
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    head = f"{machine.gpu.name} ({machine.gpu.target}), {', '.join(f'{k} {v}' for k, v in machine.versions.items())}"
    (out / "report.txt").write_text("\n".join([head, *(outcome.line for outcome in outcomes)]) + "\n")
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} steps passed; the report is in {out}.")
    return next((code for code in failed if code), 0)


def main() -> int:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="sam_tiny,sam_b")
    parser.add_argument("--out", type=Path, default=Path("gpu-report"))
    parser.add_argument("--write", nargs=2, metavar=("MODEL", "FILE"), help="only write a seeded checkpoint")
    parser.add_argument("--beside", nargs=2, metavar=("ONNX", "FOLDER"), help="only copy a file into a folder")
    asked = parser.parse_args()
    if asked.write:
        write_checkpoint(asked.write[0], Path(asked.write[1]))
    elif asked.beside:
        put_beside(Path(asked.beside[0]), Path(asked.beside[1]))
    else:
        return check(asked.models.split(","), asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
