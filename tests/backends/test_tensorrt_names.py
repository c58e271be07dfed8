"""Every name that the backend uses of TensorRT exists: in TensorRT-RTX as installed, in TensorRT 11 as listed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from samdec_export.backends.tensorrt import api as trt_api
from samdec_export.backends.tensorrt.options import RTX_TARGETS

LISTED = frozenset((Path(__file__).parents[1] / "golden" / "tensorrt-11-names.txt").read_text().split())


def own_names(protocol: type) -> set[str]:
    """What a Protocol itself lists, without what it inherits and without Python's own."""
    names = {*vars(protocol), *inspect.get_annotations(protocol)}
    return {name for name in names if not name.startswith("_")}


def names(protocols: Mapping[str, type]) -> Iterator[str]:
    for owner, protocol in protocols.items():
        prefix = f"{owner}." if owner else ""
        yield from (prefix + name for name in own_names(protocol))


BOTH = sorted(names(trt_api.PROTOCOLS))
RTX_ONLY = sorted({*names(trt_api.RTX_PROTOCOLS), *(f"ComputeCapability.{target.upper()}" for target in RTX_TARGETS)})
DERIVED_FROM = (
    "ILogger.log",
    "IProgressMonitor.phase_start",
    "IProgressMonitor.step_complete",
    "IProgressMonitor.phase_finish",
)
"""Methods that the backend overrides."""


def exists(name: str) -> bool:
    found: object = trt_api.load("rtx")
    for part in name.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def test_every_protocol_stands_for_a_class() -> None:
    declared = {
        value for value in vars(trt_api).values() if inspect.isclass(value) and getattr(value, "_is_protocol", False)
    }
    listed = {*trt_api.PROTOCOLS.values(), *trt_api.RTX_PROTOCOLS.values()}
    assert {protocol.__name__ for protocol in declared - listed} == {"Member", "Protocol"}
    assert len(BOTH) > 50


@pytest.mark.parametrize("name", [*BOTH, *DERIVED_FROM])
def test_names_that_both_have(name: str) -> None:
    assert name in LISTED
    assert exists(name)


@pytest.mark.parametrize("name", RTX_ONLY)
def test_names_that_only_tensorrt_rtx_has(name: str) -> None:
    assert name not in LISTED
    assert exists(name)


def test_a_name_that_is_gone_is_noticed() -> None:
    assert "BuilderFlag.FP16" not in LISTED
    assert not exists("BuilderFlag.FP16")
