"""Results on stdout, for people. Kept apart from the commands so that each of those stays a few lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from samdec_export.cli.terminal import console as _console
from samdec_export.cli.terminal import printable
from samdec_export.cli.terminal import size as _size
from samdec_export.core.dtypes import FORMATS
from samdec_export.parity.summary import print_report

if TYPE_CHECKING:
    from samdec_export.api import Converted, Exported, Inspected
    from samdec_export.backends.doctor import Diagnosis
    from samdec_export.backends.tensorrt.engine import EngineBuilt
    from samdec_export.backends.tensorrt.index import EngineEntry
    from samdec_export.bench.side_by_side import Benchmarked
    from samdec_export.export.onnx_file import GraphSummary, TensorSummary
    from samdec_export.models.registry import ModelSpec
    from samdec_export.parity.comparisons import Validated
    from samdec_export.precision.audit import Audited

__all__ = [
    "audited",
    "benchmarked",
    "converted",
    "diagnosed",
    "engine_built",
    "engines",
    "exported",
    "inspected",
    "models",
    "validated",
]

OPS_SHOWN = 10


def exported(done: Exported) -> None:
    """What was written, how simplification changed it, and how far it is from eager."""
    console = _console()
    console.print(f"{done.artifact.path}  {_size(done.after.bytes)}, opset {done.after.opset}")
    for kind, tensors in (("in ", done.after.inputs), ("out", done.after.outputs)):
        for tensor in tensors:
            console.print(f"  {kind}  {_tensor(tensor)}")
    console.print(f"Operators: {done.before.nodes} traced, {done.after.nodes} after simplification.")
    console.print(_op_changes(done.before, done.after))
    if done.validated:
        _reports(done.validated, console)


def validated(done: Validated) -> None:
    """The report of a validation."""
    _reports(done, _console())


def converted(done: Converted) -> None:
    """What stayed in fp32 and why, what a search found, and how far the result is from eager."""
    console, record, file = _console(), done.artifact.record, done.file
    size, parent = done.artifact.path.stat().st_size, file.parent.stat().st_size
    console.print(f"{done.artifact.path}  {_size(size)}, {size / parent:.0%} of {file.parent.name}, {file.casts} casts")
    console.print(f"Matrix products: {_shares(file.shares)}")
    for reason, nodes in _by_reason(record.kept).items():
        console.print(f"  fp32: {len(nodes):>3} nodes, {reason}")
    if file.search:
        found = file.search
        console.print(
            f"Search: {found.before:.3%} of the mask pixels flipped, {found.after:.3%} with {len(found.nodes)} nodes "
            f"more in fp32 (wanted: {found.target:.3%}; {found.measured} trials)"
        )
        for unit in found.units:
            console.print(f"  {unit.without:.3%} without {unit.nodes[0]}" + _rest(unit.nodes))
    if done.validated:
        _reports(done.validated, console)


def _rest(nodes: tuple[str, ...]) -> str:
    return f" to {nodes[-1]} ({len(nodes)} nodes)" if len(nodes) > 1 else ""


def _by_reason(kept: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for node, reason in kept.items():
        reasons.setdefault(reason, []).append(node)
    return reasons


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{share:.2%} {dtype}" for dtype, share in shares.items())


def _reports(done: Validated, console: Console) -> None:
    for result in done.results:
        print_report(result, console)
    for note in done.notes:
        console.print(note)


def inspected(found: Inspected) -> None:
    """What an ONNX file holds and how it was made."""
    console = _console()
    for line in _inspection(found):
        console.print(printable(line))


def _inspection(found: Inspected) -> Iterator[str]:
    graph, record = found.summary, found.record
    yield (
        f"{found.path}  {_size(graph.bytes)}, opset {graph.opset}, {graph.nodes} nodes, {graph.parameters:,} parameters"
    )
    for kind, tensors in (("in ", graph.inputs), ("out", graph.outputs)):
        for tensor in tensors:
            yield f"  {kind}  {_tensor(tensor)}"
    yield "Operators: " + ", ".join(f"{op} {count}" for op, count in graph.ops.items())
    if record is None:
        yield "Provenance: none; samdec-export did not write this file."
        return
    axes = ", ".join(f"{dim.name} {dim.min}..{dim.opt}..{dim.max}" for dim in record.signature.dims)
    yield f"Axes (min..opt..max): {axes}"
    yield f"Arrangement: {record.arrangement}"
    for choice in record.choices:
        yield f"  {choice}"
    if found.shares:
        yield f"Matrix products: {_shares(found.shares)}, at the usual sizes"
    for reason, nodes in _by_reason(record.kept).items():
        yield f"  fp32: {len(nodes):>3} nodes, {reason}"
    source = record.checkpoint
    made_of = source.file or ("embedded weights" if source.sha256 else "none")
    made_of += f", sha256 {source.sha256}" if source.sha256 else ""
    yield f"Model: {record.model}, {record.precision}, graph {record.graph}, masks {record.masks}"
    yield f"Checkpoint: {made_of} ({source.layout})"
    yield f"Decoder weights: sha256 {source.weights_sha256}"
    yield "Made with: " + ", ".join(f"{tool} {version}" for tool, version in record.tools.items())


def benchmarked(done: Benchmarked) -> None:
    """A row for each candidate and workload (images x prompts x points); ratios are to the first candidate."""
    console = _console()
    table = Table("candidate", "I x P x N")
    for column in ("ms a run", "p90", "p99", "prompts/s", "x first", "Gflop", "Gflop/s", "% of matmul", "peak GB"):
        table.add_column(column, justify="right")
    first = {item.workload: item.median for item in reversed(done.measurements) if item.seconds}
    for item in done.measurements:
        load = item.workload
        head = (item.candidate, f"{load.images} x {load.prompts} x {load.points}")
        if not item.seconds:
            table.add_row(*head, item.unsupported)
            continue
        cost = done.costs.get((item.candidate, load))
        speed = cost.flops / item.median if cost else 0.0
        counted = (cost.flops / 1e9, speed / 1e9) if cost else ()
        share = f"{100 * speed / done.peak_flops:.3g}" if cost and item.candidate not in done.on_gpu else ""
        table.add_row(
            *head,
            *(f"{1e3 * seconds:.4g}" for seconds in item.percentiles.values()),
            f"{item.prompts_per_second:.4g}",
            f"{first[load] / item.median:.2f}",
            *([f"{value:.3g}" for value in counted] or [""] * 2),
            share,
            f"{item.peak_bytes / 1e9:.2f}",
        )
    console.print(table)
    console.print(
        f"{done.threads} threads; a plain matrix product ran at {done.peak_flops / 1e9:.0f} Gflop/s beside them."
    )


def audited(done: Audited, top: int) -> None:
    """The `top` worst tensors against what the precision holds, then the sums over every tensor.

    The square is that of a LayerNormalization's centred input; "below normal" is a share of the values that are not 0.
    """
    console, precision = _console(), done.precision
    table = Table("tensor", "node", "operator")
    table.columns[0].overflow = "fold"
    for column in ("absmax", "margin", "square", "below normal"):
        table.add_column(column, justify="right")
    for item in done.worst(top):
        table.add_row(
            item.tensor,
            item.node if item.kind == "node" else "",
            item.op or item.kind,
            f"{item.absmax:.4g}" + (f", {item.nonfinite} inf or NaN" if item.nonfinite else ""),
            f"{item.margin(precision):.3g}",
            "" if item.squared_absmax is None else f"{item.squared_absmax:.4g}",
            f"{100 * item.below_normal(precision):.2g}%" if item.below[precision] else "0",
        )
    console.print(table)
    for line in _range_sums(done):
        console.print(line)


def models(specs: Iterable[ModelSpec]) -> None:
    """The registry."""
    table = Table("model", "alias", "what it is", "channels", "grid", "needs a checkpoint")
    for spec in specs:
        size = spec.architecture
        table.add_row(
            spec.name,
            spec.alias or "",
            spec.title,
            str(size.embed_dim),
            f"{size.grid}x{size.grid}",
            "yes" if spec.needs_checkpoint else "no",
        )
    _console().print(table)


def engine_built(done: EngineBuilt) -> None:
    """What was built, for which GPUs and sizes, and the proof of its precision."""
    console, record = _console(), done.engine.record
    size = _size(done.engine.path.stat().st_size)
    console.print(f"{done.engine.path}  {size}, {record.engine} {record.version}, {', '.join(record.targets)}")
    for tensor in record.tensors:
        shape = ", ".join(str(axis) for axis in tensor["shape"])
        console.print(f"  {tensor['kind']:<6}  {tensor['name']:<26} {tensor['dtype']:<6} ({shape})")
    for profile in record.profiles:
        ranges = ", ".join(f"{dim.name} {dim.min}..{dim.opt}..{dim.max}" for dim in profile)
        console.print(f"Profile (min..opt..max): {ranges}")
    table = Table("layer", "types")
    for kind, counts in record.histogram.items():
        table.add_row(kind, ", ".join(f"{dtype} {count}" for dtype, count in counts.items()))
    console.print(table)
    for warning in record.warnings:
        console.print(f"warning: {warning}")
    console.print(f"Parsed and built in {record.seconds:.1f} s from {done.onnx}.")


def engines(found: Sequence[EngineEntry]) -> None:
    """Two lines for each engine file: what it is, and whether it runs here."""
    console = _console()
    for entry in found:
        console.print(str(entry.path))
        if entry.engine:
            record = entry.engine.record
            built = f"{record.engine} {record.version} for {', '.join(record.targets)}"
            console.print(f"  {built}; {record.source.precision}, from {record.onnx}")
        console.print(f"  cannot run here: {entry.obstacle}" if entry.obstacle else "  can run here")
    if not found:
        console.print("No engines.")


def diagnosed(diagnosis: Diagnosis) -> None:
    """Packages, engines and findings."""
    console = _console()
    console.print(f"Python {diagnosis.python} on {diagnosis.platform}")
    for package, version in diagnosis.packages.items():
        console.print(f"  {package:<18} {version or '-'}")
    console.print("Engines:")
    for engine, can_run in diagnosis.engines.items():
        console.print(f"  {engine:<18} {'can run here' if can_run else 'cannot run here'}")
    console.print("Engine builders:")
    for builder, obstacle in diagnosis.builders.items():
        console.print(f"  {builder:<18} {f'cannot build here: {obstacle}' if obstacle else 'can build here'}")
    for finding in diagnosis.findings:
        console.print(f"{finding.level}: {finding.message} {finding.advice}")
    if not diagnosis.findings:
        console.print("Nothing stands in the way.")


def _tensor(tensor: TensorSummary) -> str:
    return f"{tensor.name:<26} {tensor.dtype:<8} ({', '.join(str(axis) for axis in tensor.shape)})"


def _range_sums(done: Audited) -> Iterable[str]:
    precision, limit = done.precision, FORMATS[done.precision].largest
    closest = done.closest
    yield (
        f"{len(done.ranges)} float tensors over {len(done.cases)} cases: {len(done.overflowing)} would overflow "
        f"{precision} (above {limit:.6g}); the smallest margin is {closest.margin(precision):.3g}, at {closest.tensor}."
    )
    if square := done.largest_square:
        count = len(done.overflowing_squares)
        yield (
            f"LayerNormalization: the variance of {count} would overflow if computed in {precision}; the largest "
            f"square is {square.squared_absmax:.4g}, at {square.node}."
        )
    if broken := [item.tensor for item in done.ranges if item.nonfinite]:
        yield f"Infinite or not a number in fp32 already: {len(broken)} tensors, the first {broken[0]}."


def _op_changes(before: GraphSummary, after: GraphSummary) -> Table:
    table = Table("operator", "traced", "simplified")
    rows = sorted(before.ops.keys() | after.ops.keys(), key=lambda op: (-after.ops.get(op, 0), op))
    for op in rows[:OPS_SHOWN]:
        table.add_row(op, str(before.ops.get(op, 0)), str(after.ops.get(op, 0)))
    rest = rows[OPS_SHOWN:]
    if rest:
        sums = (sum(graph.ops.get(op, 0) for op in rest) for graph in (before, after))
        table.add_row(f"{len(rest)} others", *(str(count) for count in sums))
    return table
