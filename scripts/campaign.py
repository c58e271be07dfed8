"""Measures the gate: how many planted faults it finds, and whether it ever fails a file that is right."""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "campaign"))

from edited_graph import Fault
from faults import FAULTS, KINDS, STATES
from judging import Judge, tilt_shares

from samdec_export import api
from samdec_export.core.dtypes import LowPrecision, Precision
from samdec_export.core.options import GraphOptions
from samdec_export.models.checkpoint import load_model
from samdec_export.models.registry import MODELS
from samdec_export.models.sam.decoder import SamDecoder, seed_weights
from samdec_export.precision.options import Conversion

LOW: tuple[LowPrecision, ...] = ("fp16", "bf16")
PRECISIONS: tuple[Precision, ...] = ("fp32", *LOW)


def files(folder: Path, model: str, options: GraphOptions, checkpoint: Path | None = None) -> dict[Precision, Path]:
    """Export a model, and convert it to every precision."""
    made = api.export(checkpoint, model, options=options, out=folder, validate=False).artifact.path
    found: dict[Precision, Path] = {"fp32": made}
    for precision in LOW:
        done = api.convert(made, Conversion(precision=precision), out=folder / precision, validate=False)
        found[precision] = done.artifact.path
    return found


class Judges:
    """Right files and what judges them, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[tuple[str, str], dict[Precision, Path]] = {}
        self._judges: dict[tuple[str, str, Precision], Judge] = {}

    def path(self, model: str, graph: str, precision: Precision) -> Path:
        """Return a right file."""
        if (model, graph) not in self._files:
            options = GraphOptions(graph=graph, mask_input=graph == "prompts")  # type: ignore[arg-type]  # a row's word
            self._files[model, graph] = files(self.folder / f"{model}.{graph}", model, options)
        return self._files[model, graph][precision]

    def of(self, fault: Fault) -> Judge:
        """Return what judges the file that a fault is made in."""
        key = (fault.model, fault.graph, fault.precision)
        if key not in self._judges:
            self._judges[key] = Judge(self.path(*key), load_model(None, fault.model), self.folder)
        return self._judges[key]


def faults(judges: Judges) -> None:
    """Print by kind how many faults there are, and how many are found."""
    tried, quick, full = Counter[str](), Counter[str](), Counter[str]()
    trials = [(fault.kind, fault.title, fault.edit, judges.of(fault)) for fault in FAULTS]
    for kind, title, edit, judge in trials:
        runner = judge.edited(edit)
        found = judge.finds(runner)
        later = found or judge.finds(runner, "full")
        tried[kind], quick[kind], full[kind] = tried[kind] + 1, quick[kind] + found, full[kind] + later
        if not found:
            print(f"{'full alone' if later else 'NOT FOUND'}: {title}", flush=True)
    judge = judges.of(Fault("state", "", lambda g: None, "prompts"))
    for name, state in STATES.items():
        found = judge.finds(state(judge.own))
        later = found or judge.finds(state(judge.own), "full")
        tried["state"], quick["state"], full["state"] = (
            tried["state"] + 1,
            quick["state"] + found,
            full["state"] + later,
        )
        if not found:
            print(f"{'full alone' if later else 'NOT FOUND'}: state: {name}", flush=True)
    print(f"{'kind':<10} {'tried':>6} {'quick':>6} {'full':>6}")
    for kind in (*KINDS, "state"):
        print(f"{kind:<10} {tried[kind]:6} {quick[kind]:6} {full[kind]:6}")
    print(f"{'all':<10} {tried.total():6} {quick.total():6} {full.total():6}", flush=True)


def honest(folder: Path, judges: Judges, seeds: range) -> Iterator[tuple[str, Precision, Judge]]:
    """Yield right files: sam_tiny's decoder with weights of every seed, others with inputs of every seed."""
    right = (("sam_toy", "decoder"), ("sam_tiny", "prompts"), ("sam_tiny", "meta"))
    for (model, graph), seed, precision in itertools.product(right, seeds, PRECISIONS):
        path = judges.path(model, graph, precision)
        yield f"{model} {graph}", precision, Judge(path, load_model(None, model), folder, seed)
    for seed in seeds:
        decoder = SamDecoder(MODELS["sam_tiny"].architecture)
        seed_weights(decoder, seed)
        checkpoint = folder / f"{seed}.pt"
        torch.save(decoder.state_dict(), checkpoint)
        made = files(folder / f"seed{seed}", "sam_tiny", GraphOptions(), checkpoint)
        for precision, path in made.items():
            yield f"sam_tiny decoder seed {seed}", precision, Judge(path, load_model(checkpoint, "sam_tiny"), folder)


def alarms(folder: Path, judges: Judges, seeds: range) -> None:
    """Print how many right files fail, and the largest tilt of one as a share of its limit."""
    tried, failed = Counter[str](), Counter[str]()
    largest: dict[tuple[str, str], float] = {}
    for model, precision, judge in honest(folder, judges, seeds):
        result = judge.judge(judge.own)
        tried[precision] += 1
        failed[precision] += not result.passed
        for name, share in tilt_shares(result).items():
            largest[precision, name] = max(largest.get((precision, name), 0.0), share)
        if not result.passed:
            print(f"FALSE ALARM: {model} {precision}: {result.findings} {result.worst}", flush=True)
    for precision in PRECISIONS:
        shares = ", ".join(f"{name} {share:.0%}" for (of, name), share in largest.items() if of == precision)
        print(f"right files in {precision}: {tried[precision]} tried, {failed[precision]} false alarms")
        print(f"  largest tilts, of what they may be: {shares}", flush=True)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["faults", "honest"], help="only this part")
    parser.add_argument("--first", type=int, default=0, help="first seed of right files (default: 0)")
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds (default: 20)")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        judges = Judges(Path(name))
        if asked.part != "honest":
            faults(judges)
        if asked.part != "faults":
            alarms(Path(name), judges, range(asked.first, asked.first + asked.seeds))


if __name__ == "__main__":
    main()
