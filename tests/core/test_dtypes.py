"""The table of element types against the libraries that it speaks for; tables that need a row for each precision."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, get_args

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from samdec_export.core.dtypes import DTYPES, FORMATS, PRECISIONS, ElementType, FloatFormat
from samdec_export.core.signature import DType
from samdec_export.parity.tolerances import TOLERANCES
from samdec_export.run.config import Gate

ROWS = pytest.mark.parametrize("row", DTYPES.values(), ids=DTYPES)

BY_PRECISION: Mapping[str, Container[str]] = {
    "core.dtypes.FORMATS": FORMATS,
    "parity.tolerances.TOLERANCES": TOLERANCES,
    "run.config.Gate": Gate.model_fields,
}
"""Tables that a precision needs a row in."""


def gaps(precisions: Iterable[str], tables: Mapping[str, Container[str]] = BY_PRECISION) -> list[str]:
    """The tables that lack a precision."""
    return [f"{table} lacks {name}" for name in precisions for table, rows in tables.items() if name not in rows]


@ROWS
def test_a_row_is_that_of_onnx_and_numpy(row: ElementType) -> None:
    kind = np.dtype(helper.tensor_dtype_to_np_dtype(row.onnx))
    assert (kind.name, kind.itemsize) == (row.dtype, row.bytes)
    names = {number: name for name, number in TensorProto.DataType.items()}
    assert ("FLOAT" in names[row.onnx] or names[row.onnx] == "DOUBLE") == row.floating


@pytest.mark.parametrize("row", FORMATS.values(), ids=FORMATS)
def test_a_precision_holds_what_its_type_holds(row: FloatFormat) -> None:
    limits: Any = ml_dtypes.finfo(np.dtype(row.dtype))  # type: ignore[no-untyped-call]  # it has no types
    assert row.largest == float(limits.max)
    assert row.smallest_normal == float(limits.smallest_normal)
    assert row.epsilon == float(limits.eps)


@ROWS
def test_tensorrt_has_that_type(row: ElementType) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    assert not row.tensorrt or hasattr(trt.DataType, row.tensorrt)


@ROWS
def test_triton_has_that_type(row: ElementType) -> None:
    messages = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    assert not row.triton or row.triton in {*messages.DataType.keys()}


def test_whatever_a_signature_names_can_be_built_and_served() -> None:
    for name in get_args(DType):
        assert DTYPES[name].tensorrt
        assert DTYPES[name].triton


def test_every_precision_is_in_every_table() -> None:
    assert (*FORMATS,) == PRECISIONS
    assert [row.title for row in FORMATS.values()] == [*FORMATS]
    assert gaps(PRECISIONS) == []


def test_a_new_precision_is_missed_where_it_has_no_row() -> None:
    formats: dict[str, FloatFormat] = {**dict(FORMATS.items()), "fp4": FORMATS["fp16"]}
    found = gaps(formats, {**BY_PRECISION, "core.dtypes.FORMATS": formats})
    assert found == ["parity.tolerances.TOLERANCES lacks fp4", "run.config.Gate lacks fp4"]
