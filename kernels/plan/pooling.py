"""Max-pooling of what a product has just written: the largest of each window is kept."""

from __future__ import annotations

from typing import Any

from ..checks import Array
from ..jit import inner
from ..simd import LANES, address, load, maximum, store
from .fields import OUT_CHANNELS, OUT_HEIGHT, OUT_WIDTH, PAIRED, POOL, RESULT, TO, TOTAL

FLOAT = 4  # bytes


@inner
def largest_of_panels(
    step: Array, c: Array, y: Array, first: int, last: int, panels: Any, columns: int
) -> None:
    """Pool some panels of so many columns, or panels of both halves."""
    n = step[OUT_CHANNELS]
    half = n // 2 if step[PAIRED] else n
    for start in range(0, n, half):
        left, right = panels[0] * columns, min(panels[1] * columns, half)
        keep_largest(step, c, y, first, last, start + left, start + right)


@inner
def keep_largest(
    step: Array, c: Array, y: Array, first: int, last: int, left: int, right: int
) -> None:
    """Keep the largest of each POOL x POOL outputs C (lines * OW, RESULT) of whole windows.

    Columns left .. right - 1 of them.
    """
    width, n, pool, total = step[OUT_WIDTH], step[RESULT], step[POOL], step[TOTAL]
    oh, ow = step[OUT_HEIGHT] // pool, width // pool
    for row in range(first, last):
        image, oy = row // step[OUT_HEIGHT], row % step[OUT_HEIGHT]
        if oy % pool or oy // pool >= oh:
            continue
        for ox in range(ow):
            at = ((image * oh + oy // pool) * ow + ox) * total + step[TO]
            out, corner = y[at + left : at + right], (row - first) * width + ox * pool
            if pool == 2 and c.itemsize == FLOAT and (right - left) % LANES == 0:
                above = address(c) + 4 * (corner * n + left)
                largest_of_vectors(above, 4 * n, 4 * width * n, 4 * (right - left), address(out))
                continue
            if pool == 2:
                above, below = corner * n, (corner + width) * n
                largest_of_four(
                    c[above + left : above + right], c[above + n + left : above + n + right],
                    c[below + left : below + right], c[below + n + left : below + n + right], out,
                )  # fmt: skip
                continue
            out[:] = c[corner * n + left : corner * n + right]
            for ky in range(pool):
                for kx in range(pool):
                    source = (corner + ky * width + kx) * n
                    take_larger(c[source + left : source + right], out)


@inner
def larger(x: float, y: float) -> float:
    """Return the larger number; NaN where either is."""
    return y if y > x or y != y else x


@inner
def largest_of_four(a: Array, b: Array, c: Array, d: Array, out: Array) -> None:
    """Keep the largest of four rows of numbers, in one pass."""
    for i in range(out.size):
        out[i] = larger(larger(a[i], b[i]), larger(c[i], d[i]))


@inner
def largest_of_vectors(at: int, right: int, below: int, size: int, out: int) -> None:
    """Do the same with vectors of float32; all places and steps are in bytes."""
    for i in range(at, at + size, 4 * LANES):
        upper = maximum(load(i), load(i + right))
        lower = maximum(load(i + below), load(i + below + right))
        store(maximum(upper, lower), out + i - at)


@inner
def take_larger(seen: Array, out: Array) -> None:
    """Keep the larger of two rows of numbers; NaN where either is."""
    for i in range(out.size):
        out[i] = larger(out[i], seen[i])
