"""A stand-in for Triton: serves a model repository over HTTP as the KServe v2 protocol says, with ONNX Runtime.

It goes by `config.pbtxt` alone, as Triton does: model and version folders, names, types, dims with -1, the largest
batch, the warm-up requests. A configuration that does not fit its file or its requests fails here too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import onnxruntime
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2

Array = NDArray[Any]

DTYPES = {"TYPE_FP32": "float32", "TYPE_FP16": "float16", "TYPE_INT64": "int64"}
WIRE = {"float32": "FP32", "float16": "FP16", "int64": "INT64"}
LENGTH = "Inference-Header-Content-Length"
INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/(\d+))?/infer")


def read_config(folder: Path) -> Any:
    """The configuration of a model, by Triton's own message: an unknown field is an error."""
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def dtype_of(data_type: int) -> str:
    return DTYPES[model_config_pb2.DataType.Name(data_type)]


@dataclass
class ServedModel:
    """One model of a repository, in its latest version."""

    folder: Path

    def __post_init__(self) -> None:
        self.config = read_config(self.folder)
        assert self.config.name == self.folder.name
        version = max(
            (path for path in self.folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name)
        )
        self.version = version.name
        self.session = onnxruntime.InferenceSession(str(version / self.config.default_model_filename))
        for request in self.config.model_warmup:
            self.infer(dict(self._warm_up(request)), [output.name for output in self.config.output])

    def _warm_up(self, request: Any) -> Iterator[tuple[str, Array]]:
        for name, tensor in request.inputs.items():
            batch = [request.batch_size] if self.config.max_batch_size else []
            shape, dtype = (*batch, *tensor.dims), dtype_of(tensor.data_type)
            if tensor.input_data_file:
                content = (self.folder / "warmup" / tensor.input_data_file).read_bytes()
                yield name, np.frombuffer(content, dtype).reshape(shape)
            else:
                assert tensor.zero_data
                yield name, np.zeros(shape, dtype)

    def infer(self, feeds: dict[str, Array], wanted: list[str]) -> dict[str, Array]:
        """Check a request against the configuration, then run it, then check the answer too."""
        assert feeds.keys() == {tensor.name for tensor in self.config.input}
        for tensor in self.config.input:
            self._fits(tensor, feeds[tensor.name])
        outputs = dict(zip(wanted, self.session.run(wanted, feeds), strict=True))
        for tensor in self.config.output:
            self._fits(tensor, outputs[tensor.name])
        return outputs

    def _fits(self, tensor: Any, array: Array) -> None:
        batch, dims = self.config.max_batch_size, list(tensor.dims)
        shape = array.shape[1:] if batch else array.shape
        if batch and not 1 <= array.shape[0] <= batch:
            raise ValueError(f"{tensor.name}: a batch of {array.shape[0]}, at most {batch}")
        if len(shape) != len(dims) or any(wanted not in (-1, size) for wanted, size in zip(dims, shape, strict=True)):
            raise ValueError(f"{tensor.name}: {shape} does not fit {dims}")
        if array.dtype != dtype_of(tensor.data_type):
            raise ValueError(f"{tensor.name} is {array.dtype}")


class Server(ThreadingHTTPServer):
    """The models of a repository by name, and the host that each answered request was meant for."""

    daemon_threads = True

    def __init__(self, repository: Path) -> None:
        self.models = {path.name: ServedModel(path) for path in sorted(repository.iterdir()) if path.is_dir()}
        self.hosts: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """The inference request of the protocol, with its binary extension; nothing else is asked here."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            header, content = self._infer(body, int(self.headers.get(LENGTH, len(body))))
        except Exception as error:  # whatever it is, the client is told
            self._answer(400, json.dumps({"error": str(error)}).encode(), {})
            return
        self.server.hosts.append(self.headers["Host"])
        self._answer(200, header + content, {LENGTH: str(len(header))})

    def _infer(self, body: bytes, length: int) -> tuple[bytes, bytes]:
        name, version = INFER.fullmatch(self.path).groups()  # type: ignore[union-attr]  # else: told to the client
        model = self.server.models[name]
        assert version in (None, model.version), f"there is no version {version}"
        request, offset, feeds = json.loads(body[:length]), length, {}
        for tensor in request["inputs"]:
            size = tensor["parameters"]["binary_data_size"]
            dtype = next(dtype for dtype, wire in WIRE.items() if wire == tensor["datatype"])
            feeds[tensor["name"]] = np.frombuffer(body[offset : offset + size], dtype).reshape(tensor["shape"])
            offset += size
        assert offset == len(body)
        outputs = model.infer(feeds, [output["name"] for output in request["outputs"]])
        described = [
            {
                "name": key,
                "datatype": WIRE[str(array.dtype)],
                "shape": list(array.shape),
                "parameters": {"binary_data_size": array.nbytes},
            }
            for key, array in outputs.items()
        ]
        header = json.dumps({"model_name": name, "model_version": model.version, "outputs": described}).encode()
        return header, b"".join(array.tobytes() for array in outputs.values())

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name in the base class
        pass


@contextmanager
def serving(repository: Path) -> Iterator[Server]:
    """A server of a repository on a free port, until the block ends."""
    with Server(repository) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
