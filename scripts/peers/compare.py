"""Time everything that scripts/bench-peers prepared; print the table, write JSON and a picture."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from samdec_export.bench import side_by_side as bench
from samdec_export.bench.measure import Program, Workload
from samdec_export.bench.options import parse_counts
from samdec_export.bench.plot import draw
from samdec_export.cli.bench import benchmarked
from samdec_export.core.files import write_text
from samdec_export.core.log import show_progress

WORKER = Path(__file__).with_name("worker.py")


def main() -> None:
    """Parse, measure, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", default="1,8,64")
    parser.add_argument("--points", default="2,10")
    parser.add_argument("--images", default="1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--own", action="store_true", help="only this project's graphs")
    options = parser.parse_args()
    show_progress()
    folder, checkpoint = options.folder, options.folder / "sam_b.pt"
    names = ("fused", "fused-one-prompt", "reference")
    entries = [bench.BenchEntry(path=folder / name / "sam_b.prompts.onnx", name=name) for name in names]
    reference = entries[-1].path
    peers = [
        Program(name="optimum", command=worker("optimum", folder / "optimum" / "prompt_encoder_mask_decoder.onnx")),
        Program(name="segment-anything", command=worker("segment_anything", folder / "segment_anything.onnx")),
    ]
    if options.own:
        peers = []
    else:
        entries += [
            bench.BenchEntry(path=reference, runner="eager", checkpoint=checkpoint, name="torch eager"),
            bench.BenchEntry(path=reference, runner="compile", checkpoint=checkpoint, name="torch.compile"),
        ]
    counts = (parse_counts(getattr(options, name), name) for name in ("images", "prompts", "points"))
    workloads = Workload.grid(*counts)
    done = bench.bench_entries(entries, workloads, extra=peers, threads=options.threads, repeats=options.repeats)
    benchmarked(done)
    name = "own" if options.own else "peers"
    write_text(folder / f"{name}.json", json.dumps(done.to_json(), indent=2) + "\n")
    draw(done, folder / f"{name}.png")


def worker(kind: str, path: Path) -> tuple[str, ...]:
    """The command line of a peer's worker."""
    return sys.executable, str(WORKER), kind, str(path)


if __name__ == "__main__":
    main()
