"""A golden: what eager PyTorch answered to a set of inputs, kept so that an engine can be judged without torch.

An `.npz` file that NumPy alone reads. `golden` is the record, as JSON text; `outputs/<case>/<name>` are the answers,
and `inputs/<case>/<name>` the questions where they cannot be made again. A sweep's inputs follow from the signature and
a seed and are ten times as large as the answers, so only their SHA-256 is kept: NumPy does not promise that another
version draws the same numbers, and a golden whose inputs come out otherwise says so instead of comparing nonsense.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from samdec_export.core.artifact import Record
from samdec_export.core.drawing import MASK_INPUTS, POOL, VALUES, Case, MaskInput, Values
from samdec_export.core.errors import SamdecError, UsageError
from samdec_export.core.feeds import Inputs, NamedFeeds, make_feeds
from samdec_export.core.runner import Array, Feeds, Outputs
from samdec_export.core.signature import Signature

__all__ = ["GOLDEN_SCHEMA", "Golden", "GoldenCase", "GoldenRecord", "defects", "open_golden", "write_golden"]

GOLDEN_SCHEMA: Final = 2
RECORD = "golden"
AGAIN = "Record it again with samdec-export record."


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenCase:
    """One set of inputs and what belongs to it.

    Inputs that are not `stored` in the file follow from signature, seed and the sweep's case (see `drawing.Case`).
    `floors` hold for each output eager fp32's own distance to float64, as a share of the span.
    """

    name: str
    sizes: Mapping[str, int]
    first: int
    values: Values
    mask_input: MaskInput | None
    stored: bool
    inputs_sha256: str
    floors: Mapping[str, float]

    @property
    def asked(self) -> Case:
        """Return the sweep's case."""
        return Case(sizes=self.sizes, first=self.first, values=self.values, mask_input=self.mask_input)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], signature: Signature) -> GoldenCase:
        """Read a case; raise KeyError, TypeError or ValueError where `data` is none, or not of this signature."""
        case = cls(**{name: data[name] for name in cls.__slots__})
        ranges = {dim.name: dim for dim in signature.dims}
        if {*case.sizes} != {*ranges} or not all(isinstance(size, int) and size > 0 for size in case.sizes.values()):
            raise ValueError(f"sizes are {case.sizes!r}")
        beyond = [name for name, size in case.sizes.items() if not ranges[name].min <= size <= ranges[name].max]
        if beyond and not case.stored:  # no sweep leaves its ranges, and nobody should make terabytes of inputs
            raise ValueError(f"{beyond[0]} is {case.sizes[beyond[0]]}")
        shares = all(isinstance(floor, float) and 0 <= floor < 1 for floor in case.floors.values())
        if {*case.floors} != {spec.name for spec in signature.outputs} or not shares:
            raise ValueError(f"floors are {case.floors!r}")
        if case.mask_input not in (None, *MASK_INPUTS) or case.values not in VALUES or not isinstance(case.name, str):
            raise ValueError(f"mask_input is {case.mask_input!r}, values {case.values!r}")
        if not isinstance(case.first, int) or not 0 <= case.first < POOL:
            raise ValueError(f"first is {case.first!r}")
        return case


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRecord:
    """What was recorded, of which weights, and by what.

    `artifact` is the record of the exported file, `reference` who answered, such as `torch 2.13.0 eager float32`, and
    `seed` what the inputs that are not stored follow from.
    """

    artifact: Record
    file: str
    reference: str
    seed: int
    tools: Mapping[str, str]
    cases: tuple[GoldenCase, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back."""
        return {"schema_version": GOLDEN_SCHEMA, **asdict(self), "artifact": self.artifact.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GoldenRecord:
        """Read what `to_json` wrote; raise KeyError, TypeError or ValueError where `data` is not such an object."""
        artifact = Record.from_json(data["artifact"])
        texts = {name: data[name] for name in ("file", "reference")}
        if not all(isinstance(text, str) for text in texts.values()) or not isinstance(data["seed"], int):
            raise TypeError("file and reference are text, seed is a number")
        cases = tuple(GoldenCase.from_json(case, artifact.signature) for case in data["cases"])
        if not cases:
            raise ValueError("no cases")
        return cls(artifact=artifact, **texts, seed=data["seed"], tools=dict(data["tools"]), cases=cases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """An opened golden. Arrays are read case by case: memory holds one at a time."""

    path: Path
    record: GoldenRecord

    def cases(self) -> list[NamedFeeds]:
        """Return the inputs; making one raises UsageError where it does not come out as it was recorded."""
        return [self._feeds(number, case) for number, case in enumerate(self.record.cases)]

    def _feeds(self, number: int, case: GoldenCase) -> NamedFeeds:
        make, origin = partial(self._inputs, number), case.inputs_sha256
        if case.stored:
            return NamedFeeds(case.name, case.sizes, make, origin)
        return replace(NamedFeeds.of(self.record.artifact.signature, case.asked), make=make, origin=origin)

    def answers(self) -> dict[str, Callable[[], Outputs]]:
        """Return readers of the outputs, by the SHA-256 of the inputs; they raise UsageError on damage."""
        return {case.inputs_sha256: partial(self._outputs, n) for n, case in enumerate(self.record.cases)}

    def _inputs(self, number: int) -> Inputs:
        case, signature = self.record.cases[number], self.record.artifact.signature
        if case.stored:
            feeds = Inputs(self._read("inputs", number, [spec.name for spec in signature.inputs]))
        else:
            with _explained(self.path):
                feeds = make_feeds(signature, case.asked, self.record.seed)
        if feeds.sha256 != case.inputs_sha256:
            drawn = f"NumPy {np.__version__} draws others than {self.record.tools.get('numpy', 'the one then')}"
            reason = "they are not those that were recorded" if case.stored else drawn
            raise UsageError(
                f"{self.path}: the inputs of case {case.name} cannot be had again: {reason}.",
                "Record it again with {keep_inputs}, which no version of NumPy changes.",
            )
        return feeds

    def _outputs(self, number: int) -> Outputs:
        case, signature = self.record.cases[number], self.record.artifact.signature
        outputs = self._read("outputs", number, [spec.name for spec in signature.outputs])
        if problems := defects(signature, case.sizes, outputs):
            raise UsageError(f"{self.path} is damaged: case {case.name}: {'; '.join(problems)}.", AGAIN)
        return outputs

    def _read(self, kind: str, number: int, names: list[str]) -> dict[str, Array]:
        with _explained(self.path), np.load(self.path, allow_pickle=False) as file:
            return {name: file[_key(kind, number, name)] for name in names}


def defects(signature: Signature, sizes: Mapping[str, int], outputs: Outputs) -> list[str]:
    """Return what keeps outputs from being a reference: each of the eager kind, float32, of its shape, and finite."""
    problems = []
    for spec in signature.outputs:
        array, shape = outputs[spec.name], spec.concrete(sizes)
        if (array.dtype, array.shape) != (np.dtype(np.float32), shape):
            problems.append(f"{spec.name} is {array.dtype} {array.shape}, not float32 {shape}")
        elif broken := int(np.count_nonzero(~np.isfinite(array))):
            problems.append(f"{spec.name} holds {broken} NaN or Inf")
    return problems


def write_golden(path: Path, record: GoldenRecord, recorded: Iterable[tuple[GoldenCase, Feeds, Outputs]]) -> None:
    """Write a golden, byte-identical for equal content, into a scratch file that the caller renames into place.

    The record has all but the cases, which are written one by one as they come, without inputs that can be made again.
    """
    cases = []
    with ZipFile(path, "w") as archive:
        for number, (case, inputs, outputs) in enumerate(recorded):
            cases.append(case)
            for kind, arrays in (("inputs", inputs), ("outputs", outputs)):
                for name, array in arrays.items():
                    _write(archive, _key(kind, number, name), array)
        whole = replace(record, cases=tuple(cases))
        _write(archive, RECORD, np.array(json.dumps(whole.to_json())))


def open_golden(path: Path) -> Golden:
    """Open a golden and check that it is whole; needs NumPy alone.

    Raises:
        UsageError: There is no such file, it is damaged, or of another schema.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist, or is not a file.", "Check the path given as {golden}.")
    with _explained(path):
        with ZipFile(path) as archive:
            if (broken := archive.testzip()) is not None:
                raise ValueError(f"{broken} does not have its checksum")
            entries = {entry.removesuffix(".npy") for entry in archive.namelist()}
        if RECORD not in entries:
            raise UsageError(f"{path} is no golden: it holds no record.", AGAIN)
        with np.load(path, allow_pickle=False) as file:
            data = json.loads(str(file[RECORD]))
        if data["schema_version"] != GOLDEN_SCHEMA:
            raise UsageError(
                f"{path} is of schema {data['schema_version']!r}; this samdec-export reads {GOLDEN_SCHEMA}.", AGAIN
            )
        golden = Golden(path=path, record=GoldenRecord.from_json(data))
        expected = {
            _key(kind, number, spec.name)
            for number, case in enumerate(golden.record.cases)
            for kind in (("inputs", "outputs") if case.stored else ("outputs",))
            for spec in getattr(golden.record.artifact.signature, kind)
        }
        if missing := sorted(expected - entries):
            raise ValueError(f"{missing[0]} is missing")
    return golden


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except SamdecError:
        raise
    except Exception as error:  # numpy, zipfile, zlib and json raise a dozen types on damaged input, MemoryError too
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{path} is no golden, or is damaged: {reason}.", AGAIN) from error


def _key(kind: str, number: int, name: str) -> str:
    return f"{kind}/{number}/{name}"


def _write(archive: ZipFile, key: str, array: Array) -> None:
    entry = ZipInfo(f"{key}.npy")  # dated 1980: the same content gives the same bytes
    entry.compress_type = ZIP_DEFLATED
    with archive.open(entry, "w", force_zip64=True) as file:
        np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
