"""`compile(model, input_shape)`: a plan of what a model computes in evaluation mode."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from minidnn.errors import ConfigError, DTypeError, GraphError, InputError, ShapeError
from minidnn.kernels.jit import max_threads, num_threads
from minidnn.kernels.plan import fields as f
from minidnn.kernels.plan.run import WHOLE, run, state_of
from minidnn.kernels.simd import CACHE_LINE
from minidnn.module import Module
from minidnn.plan.folding import fold
from minidnn.plan.lowering import lower
from minidnn.plan.memory import ALIGNMENT, Life, aligned, arrange
from minidnn.plan.program import Program, Step
from minidnn.plan.table import (
    Weights,
    halves_for_many,
    images_at_a_time,
    pitches,
    rows_of,
    scratch_of,
)
from minidnn.tensor import Array, Tensor

# Images per thread from which on each thread takes its own through the whole network.
OWN = 4
MANY_IMAGES = 16  # from which on a large matrix is multiplied by halves
SMALL = 1 << 14  # numbers or products that one thread is done with before a second would begin
FEW = 4  # windows of lines per thread: one more for some is worth cutting
KEPT = 8  # layouts, of the numbers of images that came last


class Room(NamedTuple):
    """Memory of a call: all values, the input and the outputs in it, every thread's scratch."""

    memory: Array
    images: Array
    outputs: list[Array]
    scratch: Array
    state: Array


@dataclass(frozen=True)
class Layout:
    """Where everything lies for a number of images, and in which order it runs.

    Attributes
    ----------
    threads : int
        Who shares a call: its turns are made for so many.
    table : ndarray of int64
        With the places of values.
    pieces : list
        Regions of `run`, and steps between them that Python runs.
    segments : ndarray of int64
        Of `run`; none where threads share each step.
    places : dict
        Value -> byte it begins at, of those that all threads see.
    local, local_size, size : int
        Where the threads' own values begin, how many bytes each has, and bytes in all.
    idle : list of Room
        Memory of calls that are over, still in the caches.
    """

    threads: int
    table: Array
    pieces: list[Array | Step]
    segments: Array
    places: dict[int, int]
    local: int
    local_size: int
    size: int
    idle: list[Room] = field(default_factory=list)


class Plan:
    """A compiled model: ``plan(images) -> outputs``. Made by `minidnn.compile`.

    What it computes never changes. Several threads of Python may call it at the same time.

    Attributes
    ----------
    input_shape : tuple of int
        Of one image.
    program : Program
        Its steps.
    pitches : dict of int to int
        Numbers from pixel to pixel, of values whose pixels lie apart.
    rows : list of (int, int)
        Which rows of the table are each step's; none for an op's own function.
    weights : ndarray of uint8
        All weights, as the loops read them; halves of large matrices are made when needed.
    scratch : int
        float32 of memory that every thread needs beside the values.
    """

    def __init__(self, program: Program) -> None:
        self.input_shape = program.input_shape
        self.program = program
        self.pitches = pitches(program)
        weights = Weights()
        rows: list[Array] = []
        self.rows: list[tuple[int, int]] = []
        for step in program.steps:
            found = [] if step.kind == "op" else rows_of(program, step, weights, self.pitches)
            self.rows.append((len(rows), len(rows) + len(found)))
            rows += found
        self._table = np.array(rows, np.int64).reshape(-1, f.FIELDS)
        self.weights = weights.memory()
        most = max([scratch_of(row) // 4 + 1 for row in rows], default=0)
        self.scratch = -(-most // CACHE_LINE) * CACHE_LINE + CACHE_LINE
        self._late: tuple[Array, Array] | None = None
        self._layouts: dict[tuple[int, int], Layout] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.input_shape))
        return f"Plan((N, {shape}), {len(self.program.steps)} steps)"

    def __call__(self, images: Array | Tensor) -> Any:
        """Compute the outputs for some images.

        Parameters
        ----------
        images : ndarray of float32 of shape (N, ...)
            As the model takes them.

        Returns
        -------
        ndarray of float32, or tuple of them
            What the model returns in evaluation mode, to float32 rounding.

        Raises
        ------
        ShapeError, DTypeError
        InputError
            If an 8-bit plan is given NaN.
        """
        x = self._checked(images)
        layout = self.layout(len(x))
        try:
            room = layout.idle.pop()
        except IndexError:  # no call is over, or all of them are another thread's
            room = self._new_room(layout, len(x))
        room.images[...] = x
        if len(x):
            self._run(layout, len(x), room)
        outputs = tuple([output.copy() for output in room.outputs])
        layout.idle.append(room)
        return outputs[0] if len(outputs) == 1 else outputs

    def _new_room(self, layout: Layout, n: int) -> Room:
        values = aligned(layout.size)
        program = self.program
        regions = [piece for piece in layout.pieces if not isinstance(piece, Step)]
        return Room(
            values,
            view(values, layout.places[program.input], (n, *self.input_shape)),
            [
                view(values, layout.places[value], (n, *shape), program.item(value))
                for value, shape in program.outputs
            ],
            # For all threads there may be: someone may ask for more of them during this call.
            aligned(4 * max_threads() * self.scratch).view(np.float32).reshape(-1, self.scratch),
            np.empty(max([0, *map(state_of, regions)]), np.int64),
        )

    def _checked(self, images: Array | Tensor) -> Array:
        x = images.data if isinstance(images, Tensor) else np.asarray(images)
        if x.shape[1:] != self.input_shape or not x.ndim:
            wanted = ", ".join(["N", *map(str, self.input_shape)])
            raise ShapeError(f"plan: expected images of shape ({wanted}), got {x.shape}")
        if x.dtype != np.float32:
            raise DTypeError(f"plan: expected float32 images, got {x.dtype}")
        if self.program.codes and np.isnan(x).any():
            raise InputError(
                "plan: expected numbers, got images with NaN, which no code stands for"
            )
        return x

    def _run(self, layout: Layout, n: int, room: Room) -> None:
        for piece in layout.pieces:
            if isinstance(piece, Step):
                self._run_op(piece, layout, n, room.memory)
            else:
                run(
                    layout.table, self.weights, room.memory, piece, layout.segments, n,
                    layout.threads, layout.local, layout.local_size, room.scratch, room.state,
                )  # fmt: skip

    def _run_op(self, step: Step, layout: Layout, n: int, room: Array) -> None:
        assert step.op is not None
        settings = dict(step.settings)
        shapes = settings.pop("shapes")
        arrays: list[Array | None] = []
        for position, (value, shape) in enumerate(zip(step.inputs, shapes, strict=True)):
            if value is None:
                arrays.append(step.arrays.get(str(position)))
            else:
                arrays.append(view(room, layout.places[value], (n, *shape)))
        y, _ = step.op.function(*arrays, **settings)
        target = view(room, layout.places[step.output], (n, self.program.sizes[step.output]))
        if y.size != target.size or y.dtype != np.float32:
            raise GraphError(
                f"plan: {step.labels[0]}: expected {target.size} float32 numbers for {n} images, "
                f"got {y.dtype} of shape {y.shape}"
            )
        target[...] = y.reshape(target.shape)

    # --- layouts ------------------------------------------------------------------------

    def layout(self, n: int) -> Layout:
        """Return where values lie for n images, and how the plan runs on them."""
        key = n, num_threads()
        with self._lock:
            found = self._layouts.get(key)
            if found is None:
                ops = any(step.kind == "op" for step in self.program.steps)
                own = not ops and n >= OWN * key[1]
                found = self._new_layout(*key, self._segments() if own else [])
                while len(self._layouts) >= KEPT:
                    self._layouts.pop(next(iter(self._layouts)))
                self._layouts[key] = found
        return found

    def shared_layout(self, n: int) -> Layout:
        """Return the layout in which all threads share each step, however many images."""
        with self._lock:
            return self._new_layout(n, num_threads(), [])

    def shared_regions(self, first: int, last: int, n: int, threads: int) -> Array:
        """Return rows of the table as regions of `run` that all threads share, but the smallest."""
        turns = [turns_of(row, n, threads) for row in self._table[first:last]]
        return np.stack([np.arange(first, last), np.array(turns, np.int64)], 1)

    def _new_layout(self, n: int, threads: int, segments: list[tuple[int, int, int]]) -> Layout:
        local: dict[int, int] = {}  # value -> segment
        for i, (first, last, _) in enumerate(segments):
            local |= dict.fromkeys(self._inner(first, last), i)
        lives = self._lives()
        shared = {v: Life(*life[:2], life.size * n) for v, life in lives.items() if v not in local}
        if segments:  # threads do not wait for each other: another may be anywhere
            shared = {v: Life(0, 0, life.size) for v, life in shared.items()}
        places, size = arrange(shared)
        start = -(-(size + ALIGNMENT) // ALIGNMENT) * ALIGNMENT
        own: dict[int, int] = {}
        local_size = 0
        for i, (_, _, images) in enumerate(segments):
            inside = [v for v, segment in local.items() if segment == i]
            mine = {v: Life(*lives[v][:2], lives[v].size * images) for v in inside}
            found, needed = arrange(mine)
            own |= found
            local_size = max(local_size, -(-needed // ALIGNMENT) * ALIGNMENT + ALIGNMENT)
        ranges = [(self.rows[a][0], self.rows[b - 1][1], images) for a, b, images in segments]
        return Layout(
            threads,
            self._placed(places, own, n),
            self._pieces(n, threads, max([images for _, _, images in segments], default=0)),
            np.array(ranges, np.int64).reshape(-1, 3),
            places,
            start,
            local_size,
            start + max_threads() * local_size + ALIGNMENT,
        )

    def _late_places(self) -> Array:
        """Return where halves of large matrices lie, from `weights` on, and make them once.

        Whoever serves single images never needs them, and loads a plan in half of the memory.
        """
        if self._late is None:
            memory, places = halves_for_many(self.program.steps, self.rows, self._table)
            self._late = memory, places + memory.ctypes.data - self.weights.ctypes.data
        return self._late[1]

    def _segments(self) -> list[tuple[int, int, int]]:
        """Return runs of steps, first and last + 1, and how many images go through at a time."""
        found: list[tuple[int, int, int]] = []
        first, images = 0, 1
        for i, step in enumerate(self.program.steps):
            wanted = images_at_a_time(step)
            if wanted > 2 * images:
                if i > first:
                    found.append((first, i, images))
                first, images = i, wanted
        return [*found, (first, len(self.program.steps), images)] if self.program.steps else []

    def _lives(self) -> dict[int, Life]:
        """Return from which step to which each value is needed, and its bytes per image."""
        steps, sizes = self.program.steps, list(self.program.sizes)
        seen: dict[int, list[int]] = {self.program.input: [-1]}
        for i, step in enumerate(steps):
            for value in (*step.inputs, step.output):
                if value is not None:
                    seen.setdefault(value, []).append(i)
        for value, _ in self.program.outputs:
            seen[value].append(len(steps))
        item, channels = self.program.item, {step.output: step.channels for step in steps}
        for value, pitch in self.pitches.items():
            sizes[value] = sizes[value] // channels[value] * pitch
        return {v: Life(min(at), max(at), item(v) * sizes[v]) for v, at in seen.items()}

    def _inner(self, first: int, last: int) -> list[int]:
        """Return the values that no step outside of a run of steps touches."""
        lives = self._lives()
        return [v for v, life in lives.items() if first <= life.first and life.last < last]

    def _pieces(self, n: int, threads: int, group: int) -> list[Array | Step]:
        """Return what is run after each other; group: images at a time, or 0 for shared steps."""
        if group:  # as even as can be, and enough images for the largest matrices
            turns = threads * math.ceil(n / (threads * group))
            return [np.array([[WHOLE, turns]], np.int64)]
        pieces: list[Array | Step] = []
        for step, (first, last) in zip(self.program.steps, self.rows, strict=True):
            if step.kind == "op":
                pieces.append(step)
                continue
            regions = self.shared_regions(first, last, n, threads)
            if pieces and not isinstance(pieces[-1], Step):
                pieces[-1] = np.concatenate([pieces[-1], regions])
            else:
                pieces.append(regions)
        return pieces

    def _placed(self, places: dict[int, int], own: dict[int, int], n: int) -> Array:
        table = self._table.copy()
        late = table[:, f.PAIRED] == f.MANY_IMAGES
        if n < MANY_IMAGES:  # from n alone, for the bits of a result depend on it
            table[late, f.PAIRED] = 0
        elif late.any():
            table[late, f.HALVES] = self._late_places()[late]
        for step, (first, last) in zip(self.program.steps, self.rows, strict=True):
            for row in table[first:last]:
                values = [step.inputs[0], step.inputs[-1], step.output]
                for value, (column, flag) in zip(values, PLACED, strict=True):
                    assert value is not None
                    row[flag] = value in own
                    row[column] = own[value] if value in own else places[value]
        return table


def turns_of(row: Array, n: int, threads: int) -> int:
    """Return in how many turns threads share a row of the table for n images.

    Twice as many as threads where few windows of lines are left over, see `run_part`.
    """
    if n * row[f.WORK] < SMALL:
        return 1
    windows = n * row[f.OUT_HEIGHT] // row[f.POOL]
    product = row[f.KIND] in (f.CONVOLVE, f.INT8_CONVOLVE) and not row[f.BY_PANEL]
    left_over = windows % threads and threads <= windows < FEW * threads
    return 2 * threads if product and left_over else threads


PLACED = ((f.X, f.X_LOCAL), (f.OTHER, f.OTHER_LOCAL), (f.Y, f.Y_LOCAL))


def view(room: Array, at: int, shape: Sequence[int], item: int = 4) -> Array:
    """Return float32 numbers, or codes, of that shape from a byte of memory on."""
    size = item * int(np.prod(shape, dtype=np.int64))
    return room[at : at + size].view(np.float32 if item == 4 else np.uint8).reshape(shape)


def compile(model: Module, input_shape: Sequence[int]) -> Plan:
    """Compile a model for inference.

    Batch normalisation is folded into weights; activations and max-pools join the products
    before them; a depthwise convolution is fetched by the product after it; matrices are laid
    out as the loops read them, once; values share memory.

    Parameters
    ----------
    model : Module
        Is traced in evaluation mode, and may change afterwards: its weights are copied.
    input_shape : sequence of int
        Of a batch, such as (1, 32, 32, 3). Any number of images will do later.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        If the shape is none of a batch.
    GraphError
        If the model mixes images.
    ShapeError
        If the model does not take such images.
    """
    return Plan(fold(lower(model, image_shape(input_shape, "compile"))))


def image_shape(input_shape: Sequence[int], who: str) -> tuple[int, ...]:
    """Return the shape of one image of a batch.

    Raises
    ------
    ConfigError
        If the shape is none of a batch; names `who` asked.
    """
    shape = tuple(int(size) for size in input_shape)
    if len(shape) < 2 or min(shape) < 1:
        raise ConfigError(
            f"{who}: expected the shape of a batch, such as (1, 32, 32, 3), got {shape}"
        )
    return shape[1:]
