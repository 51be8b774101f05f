"""Loops that do nothing but keep one part of the machine busy: its adders, or a way to memory.

They are no ladder: nothing in a network calls them. `peaks` measures with them.
"""

from __future__ import annotations

from typing import Any

from minidnn.kernels import simd
from minidnn.kernels.jit import kernel, parallel, prange
from minidnn.kernels.simd import ISA, LANES, VECTOR_BYTES

Array = Any

# Sums that do not wait for each other: as many as are under way at once. CPUs start up to 2
# multiply-adds of a wide vector per cycle (4 of NEON's) and take 4 or 5 cycles for each, a
# multiplication and an addition somewhat longer. Two more registers hold factor and summand.
MANY = ISA in ("avx512", "neon")  # they have 32 registers, the others 16
CHAINS = 20 if MANY else 12
ROWS = 22  # 20 sums, of which 12 may be in use, a factor and a summand

READ, COPY, STREAM = 0, 1, 2
# Each turn of a loop moves so many bytes; a working set is a multiple of it, twice.
BLOCK = 8 * VECTOR_BYTES


def flops(threads: int, steps: int) -> int:
    """Return the operations of `multiply_adds`: each is one multiplication and one addition."""
    return 2 * threads * CHAINS * LANES * steps


def moved(threads: int, size: int, times: int) -> int:
    """Return the bytes that `move` reads and writes: a set once per turn, whatever the way."""
    return threads * size * times


def multiply_adds(rows: Array, steps: int) -> None:
    """rows (threads, ROWS, LANES): each sum becomes sum * factor + summand, `steps` times."""
    if len(rows) == 1:  # without waiting for threads that have nothing to do
        multiply_adds_here(rows[0], steps)
    else:
        multiply_adds_everywhere(rows, steps)


@parallel
def multiply_adds_everywhere(rows: Array, steps: int) -> None:
    """rows (threads, ROWS, LANES), one for each thread."""
    for thread in prange(rows.shape[0]):
        multiply_adds_here(rows[thread], steps)


@kernel
def multiply_adds_here(row: Array, steps: int) -> None:
    """row (ROWS, LANES); sums that start equal would be one sum to a compiler."""
    at, step = simd.address(row), VECTOR_BYTES
    x, y = simd.load(at + 20 * step), simd.load(at + 21 * step)
    a, b = simd.load(at), simd.load(at + step)
    c, d = simd.load(at + 2 * step), simd.load(at + 3 * step)
    e, f = simd.load(at + 4 * step), simd.load(at + 5 * step)
    g, h = simd.load(at + 6 * step), simd.load(at + 7 * step)
    i, j = simd.load(at + 8 * step), simd.load(at + 9 * step)
    k, m = simd.load(at + 10 * step), simd.load(at + 11 * step)
    n, o = simd.load(at + 12 * step), simd.load(at + 13 * step)
    p, q = simd.load(at + 14 * step), simd.load(at + 15 * step)
    r, s = simd.load(at + 16 * step), simd.load(at + 17 * step)
    t, u = simd.load(at + 18 * step), simd.load(at + 19 * step)
    for _ in range(steps):
        a, b = simd.multiply_add(a, x, y), simd.multiply_add(b, x, y)
        c, d = simd.multiply_add(c, x, y), simd.multiply_add(d, x, y)
        e, f = simd.multiply_add(e, x, y), simd.multiply_add(f, x, y)
        g, h = simd.multiply_add(g, x, y), simd.multiply_add(h, x, y)
        i, j = simd.multiply_add(i, x, y), simd.multiply_add(j, x, y)
        k, m = simd.multiply_add(k, x, y), simd.multiply_add(m, x, y)
        if MANY:
            n, o = simd.multiply_add(n, x, y), simd.multiply_add(o, x, y)
            p, q = simd.multiply_add(p, x, y), simd.multiply_add(q, x, y)
            r, s = simd.multiply_add(r, x, y), simd.multiply_add(s, x, y)
            t, u = simd.multiply_add(t, x, y), simd.multiply_add(u, x, y)
    simd.store(a, at)
    simd.store(b, at + step)
    simd.store(c, at + 2 * step)
    simd.store(d, at + 3 * step)
    simd.store(e, at + 4 * step)
    simd.store(f, at + 5 * step)
    simd.store(g, at + 6 * step)
    simd.store(h, at + 7 * step)
    simd.store(i, at + 8 * step)
    simd.store(j, at + 9 * step)
    simd.store(k, at + 10 * step)
    simd.store(m, at + 11 * step)
    simd.store(n, at + 12 * step)
    simd.store(o, at + 13 * step)
    simd.store(p, at + 14 * step)
    simd.store(q, at + 15 * step)
    simd.store(r, at + 16 * step)
    simd.store(s, at + 17 * step)
    simd.store(t, at + 18 * step)
    simd.store(u, at + 19 * step)


@parallel
def fill(rows: Array, value: float) -> None:
    """rows (threads, n): each thread writes its own, so that its memory is near to it."""
    for thread in prange(rows.shape[0]):
        row = rows[thread]
        for i in range(row.size):
            row[i] = value


def move(rows: Array, sums: Array, way: int, times: int) -> None:
    """rows (threads, n), sums (threads, LANES): each thread reads or copies its row `times`."""
    if len(rows) == 1:
        move_here(rows[0], sums[0], way, times)
    else:
        move_everywhere(rows, sums, way, times)


@parallel
def move_everywhere(rows: Array, sums: Array, way: int, times: int) -> None:
    """rows (threads, n), sums (threads, LANES), one for each thread."""
    for thread in prange(rows.shape[0]):
        move_here(rows[thread], sums[thread], way, times)


@kernel
def move_here(row: Array, total: Array, way: int, times: int) -> None:
    """row (n,), total (LANES,)."""
    if way == READ:
        read(row, total, times)
    elif way == COPY:
        copy(row, times)
    else:
        stream(row, times)


@kernel
def read(row: Array, total: Array, times: int) -> None:
    """row (n,) is added up so often into total (LANES,), n a multiple of 8 * LANES."""
    a, b, c, d = simd.zero(), simd.zero(), simd.zero(), simd.zero()
    e, f, g, h = simd.zero(), simd.zero(), simd.zero(), simd.zero()
    start, step = simd.address(row), VECTOR_BYTES
    for _ in range(times):
        for at in range(start, start + row.nbytes, BLOCK):
            a, b = simd.add(a, simd.load(at)), simd.add(b, simd.load(at + step))
            c = simd.add(c, simd.load(at + 2 * step))
            d = simd.add(d, simd.load(at + 3 * step))
            e = simd.add(e, simd.load(at + 4 * step))
            f = simd.add(f, simd.load(at + 5 * step))
            g = simd.add(g, simd.load(at + 6 * step))
            h = simd.add(h, simd.load(at + 7 * step))
    lower = simd.add(simd.add(a, b), simd.add(c, d))
    upper = simd.add(simd.add(e, f), simd.add(g, h))
    simd.store(simd.add(lower, upper), simd.address(total))


@kernel
def copy(row: Array, times: int) -> None:
    """Copy the first half of row (n,) to the second so often, n a multiple of 16 * LANES."""
    start, half, step = simd.address(row), row.nbytes // 2, VECTOR_BYTES
    for _ in range(times):
        for at in range(start, start + half, BLOCK // 2):
            to = at + half
            simd.store(simd.load(at), to)
            simd.store(simd.load(at + step), to + step)
            simd.store(simd.load(at + 2 * step), to + 2 * step)
            simd.store(simd.load(at + 3 * step), to + 3 * step)


@kernel
def stream(row: Array, times: int) -> None:
    """Copy as `copy` does, but write past the caches."""
    start, half, step = simd.address(row), row.nbytes // 2, VECTOR_BYTES
    for _ in range(times):
        for at in range(start, start + half, BLOCK // 2):
            to = at + half
            simd.stream(simd.load(at), to)
            simd.stream(simd.load(at + step), to + step)
            simd.stream(simd.load(at + 2 * step), to + 2 * step)
            simd.stream(simd.load(at + 3 * step), to + 3 * step)
    simd.fence()
