"""ONNX Runtime's side of `bench.peers`: ``float32`` or ``int8``.

All graph optimisations, shapes fixed before them, arrays bound once: no copy in a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from bench.onnx_names import BATCH, FLOAT32, INPUT, OUTPUT, QDQ, QOPERATOR
from bench.side_engine import Network, Way, main


def load(file: Path, requests: int, batches: Sequence[Any], threads: int) -> Network:
    """Open a session on a file."""
    del requests  # always one
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.add_free_dimension_override_by_name(BATCH, len(batches[0]))
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    bound = []
    for batch in batches:
        binding = session.io_binding()
        binding.bind_ortvalue_input(INPUT, onnxruntime.OrtValue.ortvalue_from_numpy(batch))
        binding.bind_output(OUTPUT)
        bound.append(binding)

    def infer(number: int) -> Any:
        session.run_with_iobinding(bound[number])
        return bound[number].get_outputs()[0].numpy()

    return Network(infer, session.get_session_options().intra_op_num_threads, file.stem)


def ways(precision: str, batch: int, threads: int) -> list[Way]:
    """Return every file of that precision."""
    del batch, threads
    return [Way(file) for file in ((FLOAT32,) if precision == "float32" else (QDQ, QOPERATOR))]


if __name__ == "__main__":
    main(load, ways)
