"""The exercises as data: what to write, what it is tested on, what it is timed against.

Every exercise has the arguments of a ladder, so that a submission and a rung do the same work.
Answers are those of the ladder's own `numpy` rung in float64.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minidnn.errors import ConfigError
from minidnn.kernels.ladder import REGISTRY, Ladder, unknown
from minidnn.measure.shapes import STAGES
from minidnn.measure.workloads import Workload, workloads
from minidnn.tensor import Array

SEED = 11
Change = Callable[[Array], Array]
Settings = dict[str, Any]
# Draws the arguments for a size; `change` makes the numbers of x (or a) special.
Draw = Callable[[np.random.Generator, Any, Change], tuple[tuple[Array, ...], Settings]]
# From the arguments: what the gradients are of, and the function of them.
Forward = Callable[..., tuple[list[Array], Callable[..., Array]]]

PRODUCTS = frozenset(
    [
        "matmul",
        "dot",
        "vdot",
        "inner",
        "innerproduct",
        "einsum",
        "einsum_path",
        "tensordot",
        "kron",
        "linalg",
        "multi_dot",
        "vecdot",
        "matvec",
        "vecmat",
        "matrix",
        "asmatrix",
        "bmat",
        "imatmul",
        "cov",
        "corrcoef",
        "convolve",
        "correlate",
    ]
)
CONVOLUTIONS = frozenset({"convolve", "correlate", "fft", "polymul"})


class Case(NamedTuple):
    """One test: its name, the arguments, and the settings that go by keyword."""

    name: str
    args: tuple[Array, ...]
    settings: Settings


@dataclass(frozen=True)
class Exercise:
    """One function to write.

    Attributes
    ----------
    name, signature : str
        The function, and how it is called.
    ladder : str
        Whose rungs it is timed against.
    returns : tuple of str
        Names of the arrays it returns, in order.
    shapes, formula, hint : str
        Text of the stub.
    draw, sizes : callable, dict
        What it is tested on, by the name of the test.
    forbidden : frozenset of str
        Names of functions that would be the answer.
    gradient : callable, optional
        The forward pass, where the exercise is a backward pass.
    batch : int
        Images of the timed call, at the shapes of QuickNet's second stage.
    """

    name: str
    signature: str
    ladder: str
    returns: tuple[str, ...]
    shapes: str
    formula: str
    hint: str
    draw: Draw
    sizes: dict[str, Any]
    forbidden: frozenset[str] = frozenset()
    gradient: Forward | None = None
    batch: int = 1

    def rungs(self) -> Ladder[..., Any]:
        """Return the ladder it belongs to."""
        importlib.import_module(f"minidnn.kernels.{self.ladder.partition('.')[0]}")
        return REGISTRY[self.ladder]

    def work(self) -> Workload:
        """Return the call that is timed."""
        return workloads(STAGES, self.batch)[self.ladder][1]

    def cases(self) -> list[Case]:
        """Draw all tests: the same numbers every time."""
        rng = np.random.default_rng(SEED)
        return list(self._cases(rng))

    def _cases(self, rng: np.random.Generator) -> Iterator[Case]:
        usual = next(iter(self.sizes))
        for name, size in self.sizes.items():
            yield self._case(name, np.float32, *self.draw(rng, size, _as_drawn))
        for name, change in CHANGES.items():
            yield self._case(name, np.float32, *self.draw(rng, self.sizes[usual], change))
        if self.gradient is not None:
            args, settings = self.draw(rng, self.sizes[usual], _as_drawn)
            yield self._case("NaN in dy kept", np.float32, (_nan(args[0]), *args[1:]), settings)
        exact = "float64" if self.gradient is None else GRADIENT_CHECK
        yield self._case(exact, np.float64, *self.draw(rng, self.sizes[usual], _as_drawn))

    def _case(self, name: str, dtype: Any, args: tuple[Array, ...], settings: Settings) -> Case:
        return Case(name, tuple(a.astype(dtype, order="C") for a in args), settings)


# --- numbers --------------------------------------------------------------------------------

GRADIENT_CHECK = "float64 gradient check"


def _as_drawn(x: Array) -> Array:
    return x


def _zeros(x: Array) -> Array:
    """Every second number is zero, for kinks; the last channel is nothing else."""
    x = x.copy()
    x.reshape(-1)[::2] = 0
    x[..., -1] = 0
    return x


def _negative(x: Array) -> Array:
    return -np.abs(x)


def _nan(x: Array) -> Array:
    """One NaN in the middle, away from the border."""
    x = x.copy()
    x[tuple(size // 2 for size in x.shape)] = np.nan
    return x


CHANGES: dict[str, Change] = {"zeros": _zeros, "negatives": _negative, "NaN kept": _nan}


class Conv(NamedTuple):
    """Size of a depthwise convolution."""

    x: tuple[int, int, int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)


CONVS = {
    "odd sizes": Conv((2, 7, 5, 17)),
    "one image, one channel": Conv((1, 5, 6, 1)),
    "one pixel": Conv((1, 1, 1, 33)),
    "stride 2": Conv((2, 8, 7, 3), stride=(2, 2), pads=(0, 1, 0, 1)),
    "no padding": Conv((3, 4, 6, 16), pads=(0, 0, 0, 0)),
    "uneven kernel and padding": Conv((1, 6, 9, 7), kernel=(5, 3), pads=(2, 1, 0, 2)),
}
MAPS = {
    "odd sizes": (2, 7, 5, 17),
    "one image, one channel": (1, 5, 6, 1),
    "few pixels": (1, 1, 3, 33),
    "16 channels": (3, 4, 6, 16),
}
PIXELS = {
    "odd sizes": ((2, 7, 5, 17), 9),
    "one image, one channel": ((1, 5, 6, 1), 1),
    "one pixel": ((1, 1, 1, 33), 7),
    "to one channel": ((3, 4, 6, 16), 1),
}
MATRICES = {
    "odd sizes": (17, 33, 7),
    "one number": (1, 1, 1),
    "one row": (1, 16, 31),
    "one column": (19, 5, 1),
    "K = 1": (8, 1, 9),
}


def _conv(rng: np.random.Generator, size: Conv, change: Change) -> Any:
    settings = {"stride": size.stride, "pads": size.pads}
    x = change(rng.standard_normal(size.x))
    return (x, rng.standard_normal((*size.kernel, size.x[3]))), settings


def _conv_backward(rng: np.random.Generator, size: Conv, change: Change) -> Any:
    (x, w), settings = _conv(rng, size, change)
    top, bottom, left, right = size.pads
    oh = (x.shape[1] + top + bottom - size.kernel[0]) // size.stride[0] + 1
    ow = (x.shape[2] + left + right - size.kernel[1]) // size.stride[1] + 1
    return (rng.standard_normal((x.shape[0], oh, ow, x.shape[3])), x, w), settings


def _pixels(rng: np.random.Generator, size: Any, change: Change) -> Any:
    shape, c_out = size
    return (change(rng.standard_normal(shape)), rng.standard_normal((shape[-1], c_out))), {}


def _matrices(rng: np.random.Generator, size: Any, change: Change) -> Any:
    m, k, n = size
    return (change(rng.standard_normal((m, k))), rng.standard_normal((k, n))), {}


def _prelu(rng: np.random.Generator, shape: Any, change: Change) -> Any:
    x = change(rng.standard_normal(shape))
    return (rng.standard_normal(shape), x, rng.standard_normal(shape[-1:])), {}


def _batchnorm(rng: np.random.Generator, shape: Any, change: Change) -> Any:
    x, axes = change(rng.standard_normal(shape) + 0.5), (0, 1, 2)
    gamma = rng.standard_normal(shape[-1:])
    args = (rng.standard_normal(shape), x, gamma, x.mean(axis=axes), x.var(axis=axes))
    return args, {"eps": 1e-5}


# --- forward passes, for the gradient check -----------------------------------------------------


def _rung(ladder: str) -> Any:
    importlib.import_module(f"minidnn.kernels.{ladder.partition('.')[0]}")
    return REGISTRY[ladder]["numpy"]


def _conv_forward(dy: Array, x: Array, w: Array, **settings: Any) -> Any:
    return [x, w], lambda x, w: _rung("depthwise.forward")(x, w, **settings)


def _prelu_forward(dy: Array, x: Array, slope: Array) -> Any:
    return [x, slope], _rung("prelu.forward")


def _batchnorm_forward(
    dy: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float
) -> Any:
    def forward(x: Array, gamma: Array, beta: Array) -> Any:
        return _rung("batchnorm.forward")(x, gamma, beta, eps=eps)[0]

    return [x, gamma, np.zeros_like(gamma)], forward


# --- the exercises ------------------------------------------------------------------------------

_CONV_SETTINGS = "stride = (down, right); pads = (top, bottom, left, right), of zeros"

_ALL = (
    Exercise(
        name="depthwise_forward",
        signature="x, w, *, stride, pads",
        ladder="depthwise.forward",
        returns=("y",),
        shapes=f"x (N, H, W, C), w (KH, KW, C) -> y (N, OH, OW, C)\n{_CONV_SETTINGS}\n"
        "OH = (H + top + bottom - KH) // stride[0] + 1, OW alike",
        formula="y[n, oy, ox, c] = sum over ky, kx of\n"
        "    x[n, oy * stride[0] + ky - top, ox * stride[1] + kx - left, c] * w[ky, kx, c]\n"
        "where pixels outside of x count as zero",
        hint="With NumPy: pad once, then add up one shifted slice per tap (ky, kx).\n"
        "With numba.njit: plain loops; make c the innermost one, its numbers lie side by side.",
        draw=_conv,
        sizes=CONVS,
        forbidden=CONVOLUTIONS,
        batch=4,
    ),
    Exercise(
        name="pointwise_forward",
        signature="x, w",
        ladder="pointwise.forward",
        returns=("y",),
        shapes="x (N, H, W, Cin), w (Cin, Cout) -> y (N, H, W, Cout)",
        formula="y[n, i, j, o] = sum over c of x[n, i, j, c] * w[c, o]",
        hint="All pixels of all images are the rows of one matrix.\n"
        "Which order of the three loops walks through memory number by number?",
        draw=_pixels,
        sizes=PIXELS,
        forbidden=PRODUCTS,
    ),
    Exercise(
        name="prelu_backward",
        signature="dy, x, slope",
        ladder="prelu.backward",
        returns=("dx", "dslope"),
        shapes="dy, x (N, H, W, C), slope (C,) -> dx (N, H, W, C), dslope (C,)",
        formula="forward: y = x where x > 0, else slope * x (at x == 0 the slope side is taken)\n"
        "dx     = dy where x > 0, else slope * dy\n"
        "dslope = sum over n, i, j of x * dy where not x > 0, one number per channel",
        hint="Both gradients fit into one pass over x and dy.\n"
        "A float32 sum of many numbers loses digits: sum in float64, or in parts.",
        draw=_prelu,
        sizes=MAPS,
        gradient=_prelu_forward,
        batch=4,
    ),
    Exercise(
        name="depthwise_backward",
        signature="dy, x, w, *, stride, pads",
        ladder="depthwise.backward",
        returns=("dx", "dw"),
        shapes="dy (N, OH, OW, C), x (N, H, W, C), w (KH, KW, C) -> dx (N, H, W, C), dw (KH, KW, C)"
        f"\n{_CONV_SETTINGS}",
        formula="with iy = oy * stride[0] + ky - top and ix = ox * stride[1] + kx - left,\n"
        "for all n, oy, ox, c, ky, kx whose (iy, ix) lies inside x:\n"
        "    dx[n, iy, ix, c] += dy[n, oy, ox, c] * w[ky, kx, c]\n"
        "    dw[ky, kx, c]    += dy[n, oy, ox, c] * x[n, iy, ix, c]",
        hint="Every product of the forward pass hands its gradient to both of its factors.\n"
        "With NumPy: the shifted slices of the forward pass, one tap at a time.",
        draw=_conv_backward,
        sizes=CONVS,
        forbidden=CONVOLUTIONS,
        gradient=_conv_forward,
        batch=4,
    ),
    Exercise(
        name="batchnorm_backward",
        signature="dy, x, gamma, mean, var, *, eps",
        ladder="batchnorm.backward",
        returns=("dx", "dgamma", "dbeta"),
        shapes="dy, x (N, H, W, C), gamma, mean, var (C,) -> dx (N, H, W, C), dgamma, dbeta (C,)\n"
        "mean and var (divided by the number of pixels) are those of x itself",
        formula="forward: y = gamma * xhat + beta with xhat = (x - mean) / sqrt(var + eps)\n"
        "dbeta  = sum of dy, dgamma = sum of dy * xhat, over all but the last axis\n"
        "dx     = gamma / sqrt(var + eps) * (dy - dbeta / M - xhat * dgamma / M)\n"
        "where M is the number of pixels of all images (mean and var depend on x too)",
        hint="Two passes: the sums, then dx. Fold a channel's constants together first.",
        draw=_batchnorm,
        sizes=MAPS,
        gradient=_batchnorm_forward,
        batch=4,
    ),
    Exercise(
        name="gemm",
        signature="a, b",
        ladder="gemm.nn",
        returns=("y",),
        shapes="a (M, K), b (K, N) -> y (M, N)",
        formula="y[i, j] = sum over k of a[i, k] * b[k, j]",
        hint="Three loops in numba.njit. In which order is the innermost one free of jumps?\n"
        "Then: numba.prange over rows, and blocks that stay in cache.",
        draw=_matrices,
        sizes=MATRICES,
        forbidden=PRODUCTS,
    ),
)
EXERCISES = {exercise.name: exercise for exercise in _ALL}


def find(name: str) -> Exercise:
    """Return an exercise by name.

    Raises
    ------
    ConfigError
        With the nearest name, if there is none.
    """
    if name not in EXERCISES:
        raise ConfigError(unknown("exercise", name, EXERCISES))
    return EXERCISES[name]
