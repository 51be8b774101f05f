"""The loop that runs a table of steps, in two orders.

`run_images` is for many images: each thread takes its own through the network, a few at a time,
so that what one step writes the next reads from the core's own cache; threads never wait for
each other. `run_parts` is for few: all threads share each step, cut by lines of the map or by
panels of the matrix, and wait after each. No sum is cut, so both give the same bits.
"""

from __future__ import annotations

from ..checks import Array
from ..jit import kernel, parallel, prange, thread_id
from ..tile import TILE_COLUMNS
from .codes import run_codes
from .fields import (
    ADD,
    AVERAGE,
    BY_PANEL,
    CHANNELS,
    CONVOLVE,
    COPY,
    DEPTHWISE,
    HEIGHT,
    INT8_CONVOLVE,
    KIND,
    LARGEST,
    OTHER,
    OTHER_LOCAL,
    OUT_CHANNELS,
    OUT_HEIGHT,
    OUT_WIDTH,
    POOL,
    SCALE,
    TOTAL,
    WIDTH,
    WORK,
    X_ITEM,
    X_LOCAL,
    Y_ITEM,
    Y_LOCAL,
    X,
    Y,
)  # fmt: skip
from .steps import (
    add,
    convolve,
    copy,
    filter_channels,
    floats,
    pool_average,
    pool_largest,
    scale,
)  # fmt: skip

SMALL = 1 << 14  # numbers or products that one thread is done with before a second would begin
FEW = 4  # windows of lines per thread


@kernel
def run_step(
    step: Array, weights: Array, memory: Array, x_at: int, other_at: int, y_at: int, images: int,
    low: int, high: int, first: int, last: int, scratch: Array,
) -> None:  # fmt: skip
    """Run a part of a step on so many images, whose values lie at these places of memory."""
    if step[KIND] >= INT8_CONVOLVE:
        run_codes(
            step, weights, memory, x_at, other_at, y_at, images, low, high, first, last, scratch
        )
        return
    kind, pool = step[KIND], step[POOL]
    height, width, channels = step[HEIGHT], step[WIDTH], step[CHANNELS]
    oh, ow = step[OUT_HEIGHT] // pool, step[OUT_WIDTH] // pool
    flat_x = floats(memory, x_at, images * height * width * channels)
    flat_y = floats(memory, y_at, images * oh * ow * step[TOTAL])
    x, y = (
        flat_x.reshape((images, height, width, channels)),
        flat_y.reshape((images, oh, ow, step[TOTAL])),
    )
    line = ow * step[TOTAL]
    if kind == CONVOLVE:
        convolve(step, weights, x, flat_y, low, high, (first, last), scratch)
    elif kind == DEPTHWISE:
        filter_channels(step, weights, x, y, low, high)
    elif kind == SCALE:
        scale(step, weights, flat_x, flat_y, low * line, high * line)
    elif kind == ADD:
        other = floats(memory, other_at, flat_x.size)
        add(step, weights, flat_x, other, flat_y, low * line, high * line)
    elif kind == COPY:
        copy(step, x, y, low, high)
    elif kind == LARGEST:
        pool_largest(step, x, y, low, high)
    elif kind == AVERAGE:
        pool_average(step, weights, x, y, low, high)


@kernel
def panels_of(step: Array) -> int:
    """Return how many panels a step's matrix has."""
    return int((step[OUT_CHANNELS] + TILE_COLUMNS - 1) // TILE_COLUMNS)


@kernel
def place(at: int, local: int, own: int, low: int, image: int) -> int:
    """Return where a group of images begins: in the thread's own memory, or among all images.

    image: bytes of one.
    """
    return own + at if local else at + low * image


@parallel
def run_images(
    table: Array, weights: Array, memory: Array, segments: Array, images: int, chunks: int,
    local: int, local_size: int, scratch: Array,
) -> None:  # fmt: skip
    """Each thread takes its own images through all steps, group by group.

    segments (segments, 3): first step, last step + 1, images at a time. Values local to a
    segment lie from byte `local` on, `local_size` bytes for each thread; scratch (threads, ...).
    """
    for chunk in prange(chunks):
        thread = thread_id()
        start, end = chunk * images // chunks, (chunk + 1) * images // chunks
        own = local + thread * local_size
        for i in range(segments.shape[0]):
            for low in range(start, end, segments[i, 2]):
                n = min(segments[i, 2], end - low)
                for s in range(segments[i, 0], segments[i, 1]):
                    step = table[s]
                    pool = step[POOL]
                    x_size = step[X_ITEM] * step[HEIGHT] * step[WIDTH] * step[CHANNELS]
                    pixels = (step[OUT_HEIGHT] // pool) * (step[OUT_WIDTH] // pool)
                    y_size = step[Y_ITEM] * pixels * step[TOTAL]
                    run_step(
                        step, weights, memory, place(step[X], step[X_LOCAL], own, low, x_size),
                        place(step[OTHER], step[OTHER_LOCAL], own, low, x_size),
                        place(step[Y], step[Y_LOCAL], own, low, y_size), n,
                        0, n * step[OUT_HEIGHT], 0, panels_of(step), scratch[thread],
                    )  # fmt: skip


@kernel
def cut_by_panel(step: Array, windows: int, parts: int) -> bool:
    """Tell whether threads take panels of the matrix each, not lines of the map.

    Panels suit small maps. Where few windows of lines are left over, they also even out parts.
    """
    if step[BY_PANEL]:
        return True
    product = step[KIND] == CONVOLVE or step[KIND] == INT8_CONVOLVE
    return bool(product and windows < FEW * parts and windows % parts)


@parallel
def run_parts(
    table: Array, weights: Array, memory: Array, images: int, parts: int, scratch: Array
) -> None:
    """All threads share each step but the smallest; a pooled step is cut between windows."""
    for s in range(table.shape[0]):
        step = table[s]
        pool = step[POOL]
        lines, panels = images * step[OUT_HEIGHT], panels_of(step)
        if parts == 1 or images * step[WORK] < SMALL:
            run_step(
                step, weights, memory, step[X], step[OTHER], step[Y], images, 0, lines, 0, panels,
                scratch[0],
            )  # fmt: skip
            continue
        windows = lines // pool
        by_panel = cut_by_panel(step, windows, parts)
        for part in prange(parts):
            low, high, first, last = 0, lines, 0, panels
            if by_panel:
                first, last = part * panels // parts, (part + 1) * panels // parts
            else:
                low = part * windows // parts * pool
                if part + 1 < parts:
                    high = (part + 1) * windows // parts * pool
            run_step(
                step, weights, memory, step[X], step[OTHER], step[Y], images, low, high, first,
                last, scratch[thread_id()],
            )  # fmt: skip
