"""From a program to numbers: rows of a table, and all weights in one piece of memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from minidnn.kernels import int8, strassen
from minidnn.kernels.depthwise.sliding import padded
from minidnn.kernels.panels import fill_up, pack, panels_of
from minidnn.kernels.plan import fields as f
from minidnn.kernels.simd import CACHE_LINE, LANES
from minidnn.kernels.tile import TILE_ROWS
from minidnn.plan.memory import ALIGNMENT, aligned
from minidnn.plan.program import Program, Step
from minidnn.tensor import Array

KINDS = {
    "convolve": f.CONVOLVE,
    "depthwise": f.DEPTHWISE,
    "scale": f.SCALE,
    "add": f.ADD,
    "copy": f.COPY,
    "largest": f.LARGEST,
    "average": f.AVERAGE,
    "int8_convolve": f.INT8_CONVOLVE,
    "int8_depthwise": f.INT8_DEPTHWISE,
    "int8_largest": f.INT8_LARGEST,
    "int8_average": f.INT8_AVERAGE,
    "int8_add": f.INT8_ADD,
    "quantize": f.QUANTIZE,
    "dequantize": f.DEQUANTIZE,
}
ON_CODES = ("quantize", "dequantize", *(kind for kind in KINDS if kind.startswith("int8_")))
# What a step on codes stores beside its matrix: column, type.
STORED = {
    "bias": (f.BIAS, np.int32),
    "scale": (f.FACTOR, np.float32),
    "slope": (f.SLOPE, np.float32),
    "taps": (f.TAPS, np.int8),
    "taps_bias": (f.TAPS_BIAS, np.int32),
    "taps_scale": (f.TAPS_FACTOR, np.float32),
    "taps_slope": (f.TAPS_SLOPE, np.float32),
}
# Rows of a product that are computed at a time: enough to use what is read of the matrix, few
# enough to stay in the second-level cache.
ROWS = 112
# Numbers of a matrix beyond which it should serve more rows than one image has, and how many.
LARGE, MANY_ROWS = 1 << 16, 144
# Rows and columns of a matrix from which on it is worth being multiplied by halves.
PAIRED_FROM = 128
# Numbers of a matrix up to which that is so for the rows of one image.
FEW_ROWS_TO = 1 << 18
# Pixels of a map up to which threads share a step by columns of the matrix; not more than ROWS,
# for such images are never cut.
FEW_PIXELS = 49
# A row of so many bytes would put every row of a product in the same place of the L1 cache.
ALIASED = 2048
# Pixels of a multiple of so many bytes would put those of a window in a few places of it.
CROWDED, APART = 512, CACHE_LINE // 4


class Weights:
    """Arrays one after the other, each from a whole cache line on."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, Array]] = []
        self.size = 0

    def put(self, array: Array, dtype: type = np.float32) -> int:
        """Add an array; return the byte it begins at."""
        data: Array = np.ascontiguousarray(array, dtype)
        at = self.size
        self.parts.append((at, data))
        self.size += -(-data.nbytes // ALIGNMENT) * ALIGNMENT
        return at

    def memory(self) -> Array:
        """Return them all as bytes, with some more that vectors may read."""
        memory = aligned(self.size + ALIGNMENT)
        end = 0
        for at, data in self.parts:
            memory[end:at] = 0
            end = at + data.nbytes
            memory[at:end] = data.reshape(-1).view(np.uint8)
        memory[end:] = 0
        return memory


def unaliased(n: int) -> int:
    """Return numbers from one row of n to the next, so that few want one place of the L1 cache."""
    return n if 4 * n % CROWDED else n + APART


def pitches(program: Program) -> dict[int, int]:
    """Return numbers from pixel to pixel of values whose pixels lie apart.

    That is where products write them and depthwise convolutions or means read them.
    """
    writers: dict[int, list[Step]] = {}
    for step in program.steps:
        writers.setdefault(step.output, []).append(step)
    seen = {program.input, *program.codes, *(value for value, _ in program.outputs)}
    found = {}
    for value, readers in program.readers().items():
        if value in seen or any(step.kind != "convolve" for step in writers[value]):
            continue
        channels = writers[value][0].channels
        alike = all(step.channels == channels for step in writers[value])
        apart = alike and all(_takes_apart(reader, channels) for reader in readers)
        if apart and unaliased(channels) != channels:
            found[value] = unaliased(channels)
    return found


def _takes_apart(step: Step, channels: int) -> bool:
    filtered = step.kind == "convolve" and "taps" in step.arrays
    return (filtered or step.kind == "average") and step.shape[2] == channels


def rows_of(
    program: Program, step: Step, weights: Weights, apart: Mapping[int, int]
) -> list[Array]:
    """Return a step as rows of the table, one per group of channels, without values' places.

    apart: what `pitches` found.
    """
    row = np.zeros(f.FIELDS, np.int64)
    row[f.KIND] = KINDS[step.kind]
    row[f.HEIGHT : f.CHANNELS + 1] = step.shape
    row[f.OUT_HEIGHT : f.OUT_CHANNELS + 1] = step.out_shape
    row[f.KERNEL_Y : f.KERNEL_X + 1] = step.kernel
    row[f.STRIDE_Y : f.STRIDE_X + 1] = step.stride
    row[f.DILATION_Y : f.DILATION_X + 1] = step.dilation
    row[f.TOP : f.LEFT + 1] = step.start
    row[f.CHANNELS] = apart.get(step.inputs[0] or 0, step.shape[2])
    row[f.COUNT], row[f.TO] = step.shape[2], step.to
    row[f.TOTAL] = apart.get(step.output, step.channels)
    row[f.POOL], row[f.REPEAT], row[f.PERIOD] = step.pool, step.repeat, step.out_shape[2]
    row[f.LINES] = 1
    row[f.WORK] = max(step.macs, math.prod(step.shape), math.prod(step.out_shape))
    row[f.X_ITEM], row[f.Y_ITEM] = program.item(step.inputs[0]), program.item(step.output)
    if step.kind == "convolve":
        return _products(step, row, weights)
    if step.kind in ON_CODES:
        _codes(step, row, weights)
        return [row]
    width = columns_of(step)
    row[f.PERIOD] = width
    if width != step.out_shape[2]:  # numbers per element: an image is one line
        pixels = step.shape[0] * step.shape[1]
        row[f.HEIGHT : f.WIDTH + 1] = row[f.OUT_HEIGHT : f.OUT_WIDTH + 1] = 1, pixels
    _endings(step, row, weights, width)
    for name in ("taps", "factor", "shares"):
        if name in step.arrays:
            row[f.TAPS] = weights.put(step.arrays[name])
    if step.kind == "scale" and "factor" not in step.arrays:
        row[f.TAPS] = weights.put(np.ones(width))
    return [row]


def columns_of(step: Step) -> int:
    """Return how many numbers per column a step has: one per channel, or per element."""
    named = [step.arrays[name] for name in ("factor", "bias", "slope") if name in step.arrays]
    return max([array.size for array in named], default=step.out_shape[2])


def _endings(step: Step, row: Array, weights: Weights, width: int) -> None:
    if step.kind in ("depthwise", "scale", "add"):
        row[f.BIAS] = weights.put(repeated(step, "bias", 0.0, width))
        row[f.SLOPE] = weights.put(repeated(step, "slope", 1.0, width))


def repeated(step: Step, name: str, without: float, width: int) -> Array:
    """Return numbers of a step, one per column; `without` where it has none."""
    found = step.arrays.get(name, np.full(1, without))
    return np.tile(found, width // found.size)


def _products(step: Step, row: Array, weights: Weights) -> list[Array]:
    matrices = matrices_of(step)
    groups, k, n = matrices.shape
    row[f.LENGTH], row[f.OUT_CHANNELS], row[f.PAIRED] = k, n, paired(step, k, n)
    if "taps" in step.arrays:
        row[f.SOURCE] = f.FILTERED
        row[f.TAPS] = weights.put(padded(step.arrays["taps"].astype(np.float32)))
    elif step.is_pointwise and 4 * k % ALIASED:
        row[f.SOURCE] = f.IN_PLACE
    else:
        row[f.SOURCE] = f.WINDOWED if row[f.PAIRED] or not on_map(step) else f.ON_MAP
    # Whole vectors and two more: rows do not all want the same place of the cache, nor that of x.
    row[f.PITCH] = k if row[f.SOURCE] == f.IN_PLACE else -(-k // LANES) * LANES + 2 * LANES
    _cut(step, row)
    row[f.RESULT] = row[f.TOTAL] if step.pool == 1 else unaliased(n)
    bias = step.arrays.get("bias", np.zeros(groups * n)).reshape(groups, n)
    slope = step.arrays.get("slope", np.ones(groups * n)).reshape(groups, n)
    found = []
    for group in range(groups):
        own = row.copy()
        own[f.COUNT] = step.shape[2] // groups
        own[f.FIRST], own[f.TO] = group * own[f.COUNT], step.to + group * n
        if row[f.PAIRED] == f.ALWAYS:
            own[f.HALVES] = weights.put(strassen.pack_halves(matrices[group]))
        else:
            own[f.PANELS] = weights.put(pack(matrices[group]))
        own[f.BIAS] = weights.put(fill_up(bias[group]))
        own[f.SLOPE] = weights.put(fill_up(slope[group]))
        found.append(own)
    return found


def on_map(step: Step) -> bool:
    """Tell whether windows are read where they lie: whole ones, of lines that lie together.

    A tile does not go on in the next line, so lines must be long enough for one.
    """
    lines_fit = step.out_shape[1] >= TILE_ROWS // 2
    pixels_fit = 4 * step.stride[1] * step.shape[2] % ALIASED > 0
    inside = all(
        (out - 1) * stride + (kernel - 1) * dilation < size
        for size, out, kernel, stride, dilation in zip(
            step.shape, step.out_shape, step.kernel, step.stride, step.dilation, strict=False
        )
    )
    together = step.dilation[1] == 1 or step.kernel[1] == 1
    fits = lines_fit and pixels_fit and inside and together
    return fits and step.start == (0, 0) and step.groups == 1


def _cut(step: Step, row: Array) -> None:
    """Say how a product is cut: among threads, and for one of them."""
    pixels = step.out_shape[0] * step.out_shape[1]
    row[f.BY_PANEL] = pixels <= FEW_PIXELS or step.out_shape[0] % step.pool > 0
    row[f.LINES] = lines_at_a_time(step.out_shape[0], step.out_shape[1], step.pool)
    if images_at_a_time(step) > 1:  # a large matrix is read once for all of them
        row[f.LINES] = images_at_a_time(step) * step.out_shape[0]


def matrices_of(step: Step) -> Array:
    """Return a product's matrices, (groups, K, N)."""
    matrices = step.arrays["matrix"]
    return matrices if matrices.ndim == 3 else matrices[None]


def halves_for_many(
    steps: Sequence[Step], rows: Sequence[tuple[int, int]], table: Array
) -> tuple[Array, Array]:
    """Lay out what calls with many images read besides.

    Returns
    -------
    memory : ndarray of uint8
    places : ndarray of int64
        In it, for each row of the table; 0 for those that have none.
    """
    weights, places = Weights(), np.zeros(len(table), np.int64)
    for step, (first, last) in zip(steps, rows, strict=True):
        for row in range(first, last):
            if table[row, f.PAIRED] == f.MANY_IMAGES:
                places[row] = weights.put(strassen.pack_halves(matrices_of(step)[row - first]))
    return weights.memory(), places


def paired(step: Step, k: int, n: int) -> int:
    """Tell whether to multiply by halves: `fields.ALWAYS`, for MANY_IMAGES only, or never (0).

    Pairs of rows must lie within what is cut: lines with an odd number of pixels are paired
    across, so only where images are whole. The sums of a large matrix are more to read than few
    rows are worth.
    """
    height, width = step.out_shape[:2]
    if step.is_pointwise or min(k, n) < PAIRED_FROM or not strassen.fits(k, n):
        return 0
    if height * width == 1 or (width % 2 and height * width > FEW_PIXELS):
        return 0
    return f.MANY_IMAGES if k * n > FEW_ROWS_TO else f.ALWAYS


def _codes(step: Step, row: Array, weights: Weights) -> None:
    """Store what a step on codes needs."""
    row[f.ZERO_IN : f.ZERO_OUT + 1] = step.zeros
    for name, (column, dtype) in STORED.items():
        if name in step.arrays:
            row[column] = weights.put(step.arrays[name], dtype)
    row[f.PERIOD] = columns_of(step)
    if "taps" in step.arrays:
        row[f.BORDER] = weights.put(np.full(step.shape[2], step.zeros[0]), np.uint8)
    if step.kind != "int8_convolve":
        return
    k = len(step.arrays["matrix"])
    row[f.LENGTH], row[f.PANELS] = k, weights.put(int8.pack(step.arrays["matrix"]), np.int8)
    fits = step.is_pointwise and k >= int8.GROUP  # a tile reads four numbers at least
    rows = f.IN_PLACE if fits else f.WINDOWED
    row[f.SOURCE] = f.FILTERED if "taps" in step.arrays else rows
    row[f.PITCH], row[f.RESULT] = max(k, int8.GROUP), row[f.OUT_CHANNELS]
    _cut(step, row)


def lines_at_a_time(height: int, width: int, pool: int) -> int:
    """Return how many lines a product takes at a time: whole images, or about evenly many windows.

    They need not divide a map's height; a block may end with the next image's first lines.
    """
    if height * width <= ROWS:
        return height * max(1, round(ROWS / (height * width)))
    if height % pool:
        return height
    parts = math.ceil(height * width / ROWS)
    return pool * math.ceil(height / (parts * pool))


def scratch_of(row: Array) -> int:
    """Return how many bytes of scratch memory a row of the table needs."""
    rows = int(row[f.LINES] * row[f.OUT_WIDTH])
    if row[f.KIND] == f.INT8_CONVOLVE:
        fetched = 0 if row[f.SOURCE] == f.IN_PLACE else rows * int(row[f.PITCH])
        return fetched + (rows * int(row[f.OUT_CHANNELS]) if row[f.POOL] > 1 else 0)
    if row[f.KIND] == f.INT8_AVERAGE:
        return 4 * int(row[f.CHANNELS])
    if row[f.KIND] != f.CONVOLVE:
        return 0
    fetches = row[f.SOURCE] in (f.WINDOWED, f.FILTERED)
    fetched = rows * int(row[f.PITCH]) + LANES if fetches else 0
    pooled = rows * int(row[f.RESULT]) if row[f.POOL] > 1 else 0
    return 4 * (fetched + pooled + LANES + (paired_room(row, rows) if row[f.PAIRED] else 0))


def paired_room(row: Array, rows: int) -> int:
    """Return how many numbers a product by halves needs beside its rows and results."""
    odd = int(row[f.OUT_WIDTH] % 2)
    images = rows // int(row[f.OUT_HEIGHT] * row[f.OUT_WIDTH]) if odd else 0
    return strassen.room_of((rows + images) // 2, int(row[f.LENGTH]))


def images_at_a_time(step: Step) -> int:
    """Return how many images a thread should take through a step before the next one."""
    matrix = step.arrays.get("matrix")
    if matrix is None or matrix.size <= LARGE:
        return 1
    return math.ceil(MANY_ROWS / (step.out_shape[0] * step.out_shape[1]))


def panels_in(row: Array) -> int:
    """Return how many panels a row's matrix has."""
    return panels_of(int(row[f.OUT_CHANNELS]))
