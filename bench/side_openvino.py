"""OpenVINO's side of `bench.peers`: ``float32`` or ``int8``.

One request at a time with the hint for latency, or a batch cut into several that run at once,
with the hint for throughput, each on a thread of its own: small parts stay in its cache. What is
not quantised runs in float32; left alone, OpenVINO would take bfloat16 where the CPU has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from bench.onnx_names import FLOAT32, NNCF, QDQ
from bench.side_engine import Network, Way, cuts, main


def load(file: Path, requests: int, batches: Sequence[Any], threads: int) -> Network:
    """Compile a file for the CPU, for batches cut into so many requests."""
    core = openvino.Core()
    model = core.read_model(file)
    _, *image = batches[0].shape
    each = len(batches[0]) // requests
    model.reshape([each, *image])
    hint = "THROUGHPUT" if requests > 1 else "LATENCY"
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "PERFORMANCE_HINT": hint,
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
        },
    )
    running = [compiled.create_infer_request() for _ in range(requests)]
    parts = [
        [
            openvino.Tensor(batch[first : first + each], shared_memory=True)
            for first in range(0, len(batch), each)
        ]
        for batch in batches
    ]

    def infer(number: int) -> Any:
        for request, part in zip(running, parts[number], strict=True):
            request.set_input_tensor(part)
            request.start_async()
        for request in running:
            request.wait()
        return np.concatenate([request.get_output_tensor().data for request in running])

    def infer_one(number: int) -> Any:
        running[0].set_input_tensor(parts[number][0])
        running[0].infer()
        return running[0].get_output_tensor().data

    streams = compiled.get_property("NUM_STREAMS")
    how = (
        f"{file.stem}, {hint.lower()}, {requests} x {each} on {streams} stream{'s'[: streams - 1]}"
    )
    used = int(compiled.get_property("INFERENCE_NUM_THREADS"))
    return Network(infer if requests > 1 else infer_one, used, how)


def ways(precision: str, batch: int, threads: int) -> list[Way]:
    """Return every file of that precision, with every cut of the batch."""
    files = (FLOAT32,) if precision == "float32" else (NNCF, QDQ)
    return [Way(file, requests) for file in files for requests in cuts(batch, threads)]


if __name__ == "__main__":
    main(load, ways)
