"""Run matrix products and convolutions of QuickNet's sizes with several numbers of threads.

``python -m tests.product_bits`` needs ``NUMBA_NUM_THREADS=8``, so it is a process of its own;
it prints {call: [hash per number of threads, the last of them twice]} as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from minidnn.kernels import conv2d, gemm, jit
from tests.thread_bits import THREADS, hash_of

BATCHES = (1, 17, 32, 128)
# Pixels per image, channels in and out: first and last stage, and the classifier.
LAYERS = ((28 * 28, 64, 128), (3 * 3, 512, 1024), (1, 1024, 10))


def _calls(n: int) -> Iterator[tuple[str, Any]]:
    rng = np.random.default_rng(n)

    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32)

    for pixels, cin, cout in LAYERS:
        x, w, dy = draw(n * pixels, cin), draw(cin, cout), draw(n * pixels, cout)
        for ladder, a, b in ((gemm.nn, x, w), (gemm.nt, dy, w), (gemm.tn, x, dy)):
            yield f"{ladder.name} {n} x {pixels}x{cin}x{cout}", ladder(a, b)
    x, w = draw(n, 12, 12, 32), draw(3, 3, 32, 64)
    y = conv2d.forward(x, w)
    yield f"conv2d.forward {n}", y
    yield f"conv2d.backward_input {n}", conv2d.backward_input(y, w, size=(12, 12))
    yield f"conv2d.backward_weight {n}", conv2d.backward_weight(y, x, kernel_size=(3, 3))


def main() -> None:
    """Print the hashes."""
    hashes: dict[str, list[str]] = {}
    for threads in (*THREADS, THREADS[-1]):
        jit.set_num_threads(threads)
        for n in BATCHES:
            for name, result in _calls(n):
                hashes.setdefault(name, []).append(hash_of(result))
    print(json.dumps(hashes))


if __name__ == "__main__":
    main()
