"""The loop that runs a table of steps, in two orders.

Many images are cut into turns: a thread takes one after the other through the network, a few
images at a time, so that what one step writes the next reads from the core's own cache. A
thread that is held up takes fewer turns, and nobody waits for it before the end. Few images are
shared: each step is cut by lines of the map or by panels of the matrix, and threads wait after
each. No sum is cut, so both give the same bits.
"""

from __future__ import annotations

from ..atomic import give, take, wait_for
from ..checks import Array
from ..int8.packing import PANEL
from ..jit import inner, parallel, prange, thread_id
from ..simd import address
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
    PAIRED,
    POOL,
    SCALE,
    TOTAL,
    WIDTH,
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

WHOLE = -1  # a region of turns through all steps


@inner
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


@inner
def panels_of(step: Array) -> int:
    """Return how many panels a step's matrix has, or half of it where rows are paired."""
    columns = PANEL if step[KIND] == INT8_CONVOLVE else TILE_COLUMNS
    panels = (step[OUT_CHANNELS] + columns - 1) // columns
    return int(panels // 2 if step[PAIRED] else panels)


@inner
def place(at: int, local: int, own: int, low: int, image: int) -> int:
    """Return where a group of images begins: in the thread's own memory, or among all images.

    image: bytes of one.
    """
    return own + at if local else at + low * image


@inner
def run_turn(
    table: Array, weights: Array, memory: Array, segments: Array, turn: int, turns: int,
    images: int, own: int, scratch: Array,
) -> None:  # fmt: skip
    """Take a turn's images through all steps, group by group; `own` is where local values lie."""
    start, end = turn * images // turns, (turn + 1) * images // turns
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
                    0, n * step[OUT_HEIGHT], 0, panels_of(step), scratch,
                )  # fmt: skip


@inner
def run_part(
    step: Array, weights: Array, memory: Array, turn: int, turns: int, threads: int, images: int,
    scratch: Array,
) -> None:  # fmt: skip
    """Run a turn's part of one step on all images.

    Small maps are cut by panels of the matrix, others by lines, and if pooled between windows.
    With twice as many turns as threads, the first half take as many windows each, and the other
    half panels of the windows that are left over.
    """
    pool, product = step[POOL], step[KIND] == CONVOLVE or step[KIND] == INT8_CONVOLVE
    low, high, first, last = 0, images * step[OUT_HEIGHT], 0, panels_of(step)
    windows = high // pool
    if turns > threads:
        each = windows // threads * pool
        if turn < threads:
            low, high = turn * each, (turn + 1) * each
        else:
            low, turn = threads * each, turn - threads
            first, last = turn * last // threads, (turn + 1) * last // threads
    elif step[BY_PANEL] or (product and windows < turns):
        first, last = turn * last // turns, (turn + 1) * last // turns
    else:
        low = turn * windows // turns * pool
        if turn + 1 < turns:
            high = (turn + 1) * windows // turns * pool
    if first < last or not product:
        run_step(
            step, weights, memory, step[X], step[OTHER], step[Y], images, low, high, first, last,
            scratch,
        )  # fmt: skip


@inner
def run_regions(
    table: Array, weights: Array, memory: Array, regions: Array, segments: Array, images: int,
    threads: int, own: int, state: int, thread: int, scratch: Array,
) -> None:  # fmt: skip
    """Take part in one region after the other: in each, take turns until none is left.

    A thread begins with the turn of its own number, so that it mostly goes on with what is in its
    core's cache, and waits before the next region until all turns of this one are over. Those
    were taken by threads that run, and no step raises, so nobody waits for ever.
    """
    for r in range(regions.shape[0]):
        s, turns = regions[r, 0], regions[r, 1]
        over, taken = state + 8 * turns, 0
        for i in range(turns):
            turn = (thread + i) % turns
            if take(state + 8 * turn):
                continue
            if s == WHOLE:
                run_turn(table, weights, memory, segments, turn, turns, images, own, scratch)
            else:
                run_part(table[s], weights, memory, turn, turns, threads, images, scratch)
            taken += 1
        if r + 1 < regions.shape[0]:  # after the last one the parallel loop waits
            give(over, taken)
            wait_for(over, turns)
        state = over + 8


@inner
def begin(regions: Array, state: Array) -> int:
    """Mark all turns as free; return the most that a region has."""
    most = 0
    for r in range(regions.shape[0]):
        most = max(most, regions[r, 1])
    for i in range(state.size):
        state[i] = 0
    return most


def state_of(regions: Array) -> int:
    """Return how many int64 a call of `run` needs for its state."""
    return int(regions[:, 1].sum()) + len(regions)


@parallel
def run(
    table: Array, weights: Array, memory: Array, regions: Array, segments: Array, images: int,
    threads: int, local: int, local_size: int, scratch: Array, state: Array,
) -> None:  # fmt: skip
    """Run regions one after the other, each in turns that threads take.

    Parameters
    ----------
    table : ndarray of int64 of shape (steps, FIELDS)
    weights, memory : ndarray of uint8
    regions : ndarray of int64 of shape (regions, 2)
        A step, or WHOLE for all of them, and the number of turns; see `run_part`.
    segments : ndarray of int64 of shape (segments, 3)
        For WHOLE: first step, last + 1, images at a time.
    images, threads : int
    local, local_size : int
        Where the threads' own values begin in the memory, and how many bytes each has.
    scratch : ndarray of float32 of shape (threads there may be, ...)
    state : ndarray of int64 of shape (`state_of` regions, ...)
        Memory of the call: for each region whether its turns are taken, and how many are over.
    """
    if begin(regions, state) == 1:
        run_regions(
            table, weights, memory, regions, segments, images, threads, local, address(state), 0,
            scratch[0],
        )  # fmt: skip
    else:
        for _ in prange(threads):
            thread = thread_id()
            run_regions(
                table, weights, memory, regions, segments, images, threads,
                local + thread * local_size, address(state), thread, scratch[thread],
            )  # fmt: skip
