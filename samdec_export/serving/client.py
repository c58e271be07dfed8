"""Ask a model of this repository, and check what comes back.

    pip install 'tritonclient[http]' numpy
    python client.py MODEL --url localhost:8000

It needs nothing of samdec-export but the records that lie beside it. Inputs follow from the record, or come from an
.npz file by name. Exit code 0: the outputs are those of the record, and finite; 1: they are not, or no answer came.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

__all__ = ["main"]

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Parse the command line, ask, print."""
    asked = _parse()
    try:
        signature = read_signature(asked.model, asked.version)
        sizes = {axis["name"]: axis["opt"] for axis in signature["axes"]} | dict(asked.size)
        feeds = dict(np.load(asked.feeds)) if asked.feeds else make_feeds(signature, sizes)
        outputs, seconds = ask(asked, signature, feeds)
        for spec in signature["outputs"]:
            check(spec, outputs[spec["name"]], feeds, signature)
    except (OSError, KeyError, ValueError, InferenceServerException) as error:
        sys.exit(f"client: {type(error).__name__}: {error}")
    for name, array in outputs.items():
        print(f"{name}  {array.dtype} {array.shape}  {array.min():.4g} to {array.max():.4g}")
    print(f"{1e3 * np.median(seconds):.2f} ms a request (median of {len(seconds)}), image embedding included")
    if asked.out:
        np.savez(asked.out, **outputs)


def read_signature(model: str, version: str) -> dict[str, Any]:
    """Return inputs and outputs by the record of a version, the latest where none is named."""
    records = sorted((HERE / model).glob(f"{version or '*'}/model.*.json"), key=lambda path: int(path.parent.name))
    if not records:
        raise FileNotFoundError(f"no record of model {model!r} in {HERE}")
    record = json.loads(records[-1].read_text(encoding="utf-8"))
    found: dict[str, Any] = record.get("source", record)["signature"]  # an engine's record holds that of its ONNX file
    return found


def size_of(label: str | int, sizes: dict[str, int]) -> int:
    """Return the length of an axis: a number, a name, or a multiple of one such as 4*height."""
    if isinstance(label, int):
        return label
    factor, star, name = label.partition("*")
    return int(factor) * sizes[name] if star else sizes[label]


def make_feeds(signature: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """Return inputs that mean something: noise for an image, foreground points within it, no mask."""
    rng = np.random.default_rng(0)
    feeds = {}
    for spec in signature["inputs"]:
        shape = [size_of(label, sizes) for label in spec["shape"]]
        extent = [size_of(label, sizes) for label in spec["extent"]]
        feeds[spec["name"]] = make_values(spec["content"], shape, extent, rng).astype(spec["dtype"])
    return feeds


def make_values(content: str, shape: list[int], extent: list[int], rng: np.random.Generator) -> Any:
    """Return an array for what an input means; `extent` bounds positions, and is itself the size of an image."""
    match content:
        case "embedding":
            return rng.standard_normal(shape)
        case "encoding":
            return np.sin(rng.uniform(-np.pi, np.pi, shape))
        case "coords":
            return rng.uniform(0, extent, shape)
        case "labels":
            return np.ones(shape)
        case "image_size":
            return np.array(extent)
        case _:
            return np.zeros(shape)


def ask(
    asked: argparse.Namespace, signature: dict[str, Any], feeds: dict[str, Any]
) -> tuple[dict[str, Any], list[float]]:
    """Return the outputs by name, and the seconds of each request."""
    inputs = []
    for spec in signature["inputs"]:
        array = feeds[spec["name"]]
        tensor = triton.InferInput(spec["name"], list(array.shape), np_to_triton_dtype(array.dtype))
        inputs.append(tensor.set_data_from_numpy(array))
    wanted = [triton.InferRequestedOutput(spec["name"]) for spec in signature["outputs"]]
    seconds = []
    with triton.InferenceServerClient(asked.url, ssl=asked.ssl) as client:
        for _ in range(asked.repeat):
            started = time.perf_counter()
            answer = client.infer(
                asked.model, inputs, asked.version, outputs=wanted, headers=dict(asked.header) or None
            )
            seconds.append(time.perf_counter() - started)
    return {spec["name"]: answer.as_numpy(spec["name"]) for spec in signature["outputs"]}, seconds


def check(spec: dict[str, Any], array: Any, feeds: dict[str, Any], signature: dict[str, Any]) -> None:
    """Raise a ValueError unless an output is what the record says, for the sizes of these inputs."""
    sizes = {
        label: size
        for given in signature["inputs"]
        for label, size in zip(given["shape"], feeds[given["name"]].shape, strict=True)
        if isinstance(label, str)
    }
    for given in signature["inputs"]:
        if given["content"] == "image_size":
            sizes |= {label: int(size) for label, size in zip(given["extent"], feeds[given["name"]], strict=True)}
    expected = tuple(size_of(label, sizes) for label in spec["shape"])
    if array is None or array.shape != expected or array.dtype != spec["dtype"]:
        found = "missing" if array is None else f"{array.dtype} {array.shape}"
        raise ValueError(f"output {spec['name']} is {found}, not {spec['dtype']} {expected}")
    if not np.isfinite(array).all():
        raise ValueError(f"output {spec['name']} holds values that are not finite")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ask a model of this repository, and check what comes back.")
    parser.add_argument("model", help="name of the model")
    parser.add_argument("--url", default="localhost:8000", help="server, as HOST:PORT")
    parser.add_argument("--ssl", action="store_true", help="speak HTTPS")
    parser.add_argument("--version", default="", help="version; else the server's own choice")
    parser.add_argument("--size", action="append", default=[], type=_pair_of("=", int), help="AXIS=SIZE")
    parser.add_argument("--feeds", type=Path, help="inputs by name (.npz)")
    parser.add_argument("--out", type=Path, help="write the outputs here (.npz)")
    parser.add_argument("--repeat", type=int, default=1, help="number of requests")
    parser.add_argument("--header", action="append", default=[], type=_pair_of(":", str.strip), help="'NAME: VALUE'")
    return parser.parse_args()


def _pair_of(separator: str, kind: Any) -> Any:
    def pair(text: str) -> tuple[str, Any]:
        name, _, value = text.partition(separator)
        return name.strip(), kind(value)

    return pair


if __name__ == "__main__":
    main()
