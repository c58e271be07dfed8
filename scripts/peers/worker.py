"""A peer's ONNX file behind the worker protocol of samdec_export.bench.measure.

python worker.py segment_anything|optimum FILE
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

import numpy as np
import onnxruntime

from samdec_export.bench.worker import serve
from samdec_export.core.runner import Feeds

SIDE = 1024.0


def main() -> None:
    """Load the file and serve runs."""
    kind, path = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    make = {"segment_anything": segment_anything, "optimum": optimum}[kind]

    def run(request: Mapping[str, int]) -> float:
        calls = make(request)
        started = time.perf_counter()
        for feeds in calls:
            session.run(None, feeds)
        return time.perf_counter() - started

    serve(run)


def segment_anything(request: Mapping[str, int]) -> list[Feeds]:
    """One call a prompt: the file takes one prompt of one image."""
    rng = np.random.default_rng(0)
    count = request["images"] * request["prompts"]
    return [
        {
            "image_embeddings": rng.standard_normal((1, 256, 64, 64), dtype=np.float32),
            "point_coords": (SIDE * rng.random((1, request["points"], 2))).astype(np.float32),
            "point_labels": np.ones((1, request["points"]), np.float32),
            "mask_input": np.zeros((1, 1, 256, 256), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array([SIDE, SIDE], np.float32),
        }
        for _ in range(count)
    ]


def optimum(request: Mapping[str, int]) -> list[Feeds]:
    """One call a run: the file takes many prompts of many images."""
    rng = np.random.default_rng(0)
    images, prompts, points = (request[name] for name in ("images", "prompts", "points"))
    return [
        {
            "image_embeddings": rng.standard_normal((images, 256, 64, 64), dtype=np.float32),
            "image_positional_embeddings": rng.standard_normal((images, 256, 64, 64), dtype=np.float32),
            "input_points": (SIDE * rng.random((images, prompts, points, 2))).astype(np.float32),
            "input_labels": np.ones((images, prompts, points), np.int64),
        }
    ]


if __name__ == "__main__":
    main()
