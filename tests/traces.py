"""Every graph is traced once: torch takes eight seconds for one, and gives the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from shared import made_in
from torch import nn

from samdec_export.core.signature import Signature
from samdec_export.export import trace

__all__ = ["key_of", "sharing_traces"]


@contextmanager
def sharing_traces(everyone: Path) -> Iterator[None]:
    """Take a graph that was traced before, by any process that shares the folder, from there.

    The key is the whole module, weights and Python attributes too. What replaces torch's exporter sees every call.
    """
    right, theirs = trace.export_onnx, (torch.export.export, torch.onnx.export)

    def export_onnx(graph: nn.Module, signature: Signature, path: Path, opset: int) -> None:
        if (torch.export.export, torch.onnx.export) != theirs:
            return right(graph, signature, path, opset)

        def make(out: Path) -> None:
            right(graph, signature, out / "traced.onnx", opset)

        with made_in(everyone, key_of(graph, signature, opset), make) as (folder, _):
            shutil.copyfile(folder / "traced.onnx", path)
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "export_onnx", export_onnx)
        yield


def key_of(*values: Any) -> str:
    """Return what tells values from others: equal tensors are equal, wherever they lie and whoever made them."""
    content = io.BytesIO()
    _ByValue(content, protocol=5).dump(values)
    return hashlib.sha256(content.getvalue()).hexdigest()


class _ByValue(pickle.Pickler):
    """Writes a tensor as its type, shape and a digest of its numbers, and everything as often as it is met."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.fast = True  # two equal strings are otherwise written as one or two, as they happen to be one object

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, torch.Tensor):
            digest = hashlib.sha256(value.detach().contiguous().numpy().tobytes()).hexdigest()
            return str, (f"{type(value).__name__} {value.dtype} {tuple(value.shape)} {digest}",)
        return NotImplemented
