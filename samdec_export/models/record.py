"""The record of an export: which model, which graph, which choices."""

from __future__ import annotations

from samdec_export.core.artifact import Record
from samdec_export.core.options import GraphOptions
from samdec_export.core.packages import EXPORT, tool_versions
from samdec_export.models.checkpoint import LoadedModel
from samdec_export.models.sam.graphs import ExportGraph, build_graph

__all__ = ["graph_to_export"]


def graph_to_export(loaded: LoadedModel, options: GraphOptions) -> tuple[ExportGraph, Record]:
    """Return the graph that `options` ask for, and the record that an fp32 export of it carries.

    Raises:
        UsageError: The graph has no such axis.
    """
    graph = build_graph(loaded.decoder, loaded.grid, options)
    return graph, Record(
        format="onnx",
        precision="fp32",
        io="fp32",
        parent="",
        conversion={},
        kept={},
        model=loaded.spec.name,
        grid=loaded.grid,
        graph=options.graph,
        masks=options.masks_mode,
        mask_input=options.mask_input,
        dynamic_grid=options.dynamic_grid,
        arrangement=options.arrangement,
        choices=graph.choices,
        opset=options.opset,
        checkpoint=loaded.checkpoint,
        signature=graph.signature,
        tools=tool_versions(*EXPORT),
    )
