"""One axis of a convolution, and how it is cut so that no zero of the padding is multiplied.

On small maps the zeros are no detail: of the products of a 3x3 convolution of a 3x3 map only
49 of 81 meet a pixel. Outputs that meet the same taps make one convolution without padding,
over all images at once; so do, for the gradient of the weights, the outputs that a tap meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from ..tile import FEW_ROWS, TILE_COLUMNS, TILE_ROWS

# In multiply-adds of one row of a tile (0.5 ns): what it costs to start a parallel loop, to visit
# a row of a tile, and to lay a row of gradients into a panel.
LOOP_STEPS = 100_000
VISIT_STEPS = 20
PANEL_STEPS = 40


class Axis(NamedTuple):
    """One axis of a convolution.

    Attributes
    ----------
    outputs : int
        Outputs.
    stride, dilation : int
        Pixels of the input from one output, and from one tap, to the next.
    origin : int
        The pixel that the first tap of the first output reads; negative inside padding.
    first_tap, taps : int
        The taps that take part.
    at, step : int
        Where the first output is in the array of outputs, and how far the next.
    """

    outputs: int
    stride: int
    dilation: int
    origin: int
    first_tap: int
    taps: int
    at: int = 0
    step: int = 1

    @property
    def reach(self) -> int:
        """Pixels from the first that a window reads to the last."""
        return (self.taps - 1) * self.dilation

    @property
    def places(self) -> slice:
        """Where the outputs are."""
        return slice(self.at, self.at + (self.outputs - 1) * self.step + 1, self.step)


def axes(
    size: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int],
    pads: Sequence[int], dilation: Sequence[int],
) -> tuple[Axis, Axis]:  # fmt: skip
    """Return the axes of a forward pass with outputs of that size."""
    y = Axis(size[0], stride[0], dilation[0], -pads[0], 0, kernel_size[0])
    return y, Axis(size[1], stride[1], dilation[1], -pads[2], 0, kernel_size[1])


def by_output(axis: Axis, size: int) -> list[Axis]:
    """Cut an axis over `size` pixels into runs of outputs whose taps all meet a pixel."""
    runs: list[Axis] = []
    for o in range(axis.outputs):
        start = axis.origin + o * axis.stride
        low = max(0, -(start // axis.dilation))
        high = min(axis.taps, (size - 1 - start) // axis.dilation + 1)
        high = max(low, high)
        if runs and (runs[-1].first_tap, runs[-1].taps) == (axis.first_tap + low, high - low):
            runs[-1] = runs[-1]._replace(outputs=runs[-1].outputs + 1)
            continue
        runs.append(
            axis._replace(
                outputs=1,
                origin=start + low * axis.dilation,
                first_tap=axis.first_tap + low,
                taps=high - low,
                at=axis.at + o * axis.step,
            )
        )
    return runs


def by_tap(axis: Axis, size: int) -> list[Axis]:
    """Cut an axis over `size` pixels into its taps, each with the outputs that meet a pixel."""
    cut = []
    for tap in range(axis.taps):
        start = axis.origin + tap * axis.dilation
        low = max(0, -(start // axis.stride))
        high = min(axis.outputs, (size - 1 - start) // axis.stride + 1)
        cut.append(
            axis._replace(
                outputs=max(0, high - low),
                origin=start + low * axis.stride,
                first_tap=axis.first_tap + tap,
                taps=1,
                at=axis.at + low * axis.step,
            )
        )
    return cut


def _tile_rows(n: int) -> int:
    """Return how many rows the tiles have that `n` rows need."""
    whole, rest = divmod(n, TILE_ROWS)
    last = (FEW_ROWS if rest <= FEW_ROWS else TILE_ROWS) if rest else 0
    return whole * TILE_ROWS + last


Rectangles = list[tuple[Axis, Axis]]


def cut_outputs(y: Axis, x: Axis, shape: tuple[int, ...], channels: int, n_out: int) -> Rectangles:
    """Cut the outputs of maps of that shape (N, H, W, C) where that saves time.

    A window has `channels` numbers per tap, an output has `n_out`.
    """
    n, height, width, _ = shape

    def steps(rectangles: Rectangles) -> int:
        total = LOOP_STEPS * len(rectangles)
        for rows, columns in rectangles:
            tile_rows = _tile_rows(n * rows.outputs * columns.outputs) * -(-n_out // TILE_COLUMNS)
            visits = 1 if columns.taps == x.taps else rows.taps
            total += tile_rows * (rows.taps * columns.taps * channels + visits * VISIT_STEPS)
        return total

    ys, xs = by_output(y, height), by_output(x, width)
    ways = [list(product(rows, columns)) for rows in ([y], ys) for columns in ([x], xs)]
    return min(ways, key=steps)


def cut_taps(y: Axis, x: Axis, shape: tuple[int, ...], channels: int, n_out: int) -> Rectangles:
    """Cut the taps over maps of that shape (N, H, W, C) where that saves time."""
    n, height, width, _ = shape

    def steps(rectangles: Rectangles) -> int:
        total = LOOP_STEPS * len(rectangles)
        for rows, columns in rectangles:
            tile_rows = _tile_rows(rows.taps * columns.taps * channels) + PANEL_STEPS
            total += tile_rows * -(-n_out // TILE_COLUMNS) * n * rows.outputs * columns.outputs
        return total

    ys, xs = by_tap(y, height), by_tap(x, width)
    return min(([(y, x)], list(product(ys, [x])), list(product(ys, xs))), key=steps)
