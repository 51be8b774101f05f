"""Calibration: which range of numbers the 256 codes of each value should cover.

A few hundred training images go through a simplified program in float32 (`observe`), and of every
value its extremes and a histogram are kept. `choose` makes `Codes` of them:

- ``minmax``: all that was seen (Jacob et al. 2018, arXiv:1712.05877, section 3.1).
- ``percentile``: a share of it; the few numbers beyond are cut off (Krishnamoorthi 2018,
  arXiv:1806.08342, and Nagel et al. 2021, arXiv:2106.08295, section 3.1).
- ``mse``: the range with the least mean squared error on the histogram, cutting and rounding
  together (Nagel et al. 2021, eq. 10).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from minidnn.errors import ConfigError, NonFiniteError
from minidnn.kernels.ladder import unknown
from minidnn.plan.compiler import Plan
from minidnn.plan.program import Codes, Program
from minidnn.tensor import Array

BINS = 4096
SHARE = 0.9999
# Bytes of values that are kept of the images going through together.
ROOM = 128 << 20
# Numbers that are sorted into bins at a time: they stay in the second-level cache.
PIECE = 1 << 15
# Ranges that `mse` tries on each side of 0, each so much shorter than the one before, and how many
# of the pairs are judged by the histogram itself.
TRIED, SHRINK, JUDGED = 128, 0.97, 48


@dataclass(frozen=True)
class Seen:
    """What a value held, over all images.

    Attributes
    ----------
    low, high : ndarray of float32 of shape (C,)
        Extremes per channel.
    counts : ndarray of int64 of shape (BINS,)
        How many numbers, of all channels, were in each bin.
    start, width : float
        Bin i holds start + i * width <= x < start + (i + 1) * width. The width is a power of 2
        and start a multiple of it, so 0 lies on an edge.
    """

    low: Array
    high: Array
    counts: Array
    start: float
    width: float

    @property
    def centres(self) -> Array:
        """The middle of every bin."""
        return self.start + self.width * (np.arange(BINS) + 0.5)

    @property
    def shares(self) -> Array:
        """Which share of all numbers is in each bin."""
        return np.asarray(self.counts / self.counts.sum())


class _Histogram:
    """A `Seen` in the making. Its bins grow with what comes, two becoming one; nothing is lost."""

    def __init__(self, channels: int) -> None:
        self.low = np.full(channels, np.inf, np.float32)
        self.high = np.full(channels, -np.inf, np.float32)
        self.counts = np.zeros(BINS, np.int64)
        self.exponent = -120  # width 2**exponent, of bins whose range is as good as nothing
        self.first = 0  # start / width

    def add(self, x: Array) -> None:
        """Count numbers (rows, channels), all finite."""
        np.minimum(self.low, x.min(axis=0), out=self.low)
        np.maximum(self.high, x.max(axis=0), out=self.high)
        self._cover(min(float(self.low.min()), 0.0), max(float(self.high.max()), 0.0))
        per_width = np.float32(2.0**-self.exponent)
        flat = x.reshape(-1)
        for i in range(0, flat.size, PIECE):
            at = np.floor(flat[i : i + PIECE] * per_width).astype(np.intp) - self.first
            self.counts += np.bincount(at, minlength=BINS)

    def _cover(self, low: float, high: float) -> None:
        """Widen and move the bins until they hold everything from low to high."""
        exponent = self.exponent
        while _bin(high, exponent) - _bin(low, exponent) >= BINS:
            exponent += 1
        first = _bin(low, exponent)
        old = (self.first + np.arange(BINS)) >> min(exponent - self.exponent, 62)
        counts = np.zeros(BINS, np.int64)
        held = self.counts > 0
        np.add.at(counts, old[held] - first, self.counts[held])
        self.counts, self.exponent, self.first = counts, exponent, first

    def seen(self) -> Seen:
        width = 2.0**self.exponent
        return Seen(self.low, self.high, self.counts, self.first * width, width)


def _bin(x: float, exponent: int) -> int:
    return math.floor(math.ldexp(x, -exponent))


# --- looking ----------------------------------------------------------------------------


def observe(program: Program, batches: Iterable[Array]) -> dict[int, Seen]:
    """Send images through a program in float32 and return what every value held.

    Parameters
    ----------
    program : Program
        A simplified one (`minidnn.plan.folding.simplify`).
    batches : iterable of ndarray of float32 of shape (N, ...)
        Images as the network takes them, in batches of any size; memory stays bounded.

    Returns
    -------
    dict of int to Seen
        For the input and for what every step writes.

    Warns
    -----
    UserWarning
        Once, if the images are all the same, or a value is one number throughout: a range of
        codes made from that says nothing about other images.

    Raises
    ------
    ConfigError
        If there is no image.
    NonFiniteError
        If an image or a value holds NaN or infinity; says which image or which layer.
    ShapeError, DTypeError
        If images do not fit the program.
    """
    layers, channels = layers_of(program), _channels(program)
    shapes = {v: (program.sizes[v] // c, c) for v, c in channels.items()}
    plan = Plan(replace(program, outputs=list(shapes.items()), codes={}))
    together = max(1, ROOM // (4 * sum(program.sizes[v] for v in shapes)))
    histograms = {v: _Histogram(c) for v, c in channels.items()}
    images, first, alike = 0, None, True
    for part in _pieces(batches, together):
        values = plan(part)
        if len(part) == 0:
            continue
        first = part[0].copy() if first is None else first
        alike = alike and bool((part == first).all())
        _refuse(part, images, "image {}: expected numbers, got NaN or infinity")
        for value, found in zip(shapes, values if len(shapes) > 1 else (values,), strict=True):
            message = f"{layers[value]}: its output for image {{}} holds NaN or infinity"
            _refuse(found, images, message)
            histograms[value].add(found.reshape(-1, channels[value]))
        images += len(part)
    if not images:
        raise ConfigError("calibration: expected at least one image, got none")
    seen = {value: histogram.seen() for value, histogram in histograms.items()}
    _warn(seen, layers, images if alike else 0)
    return seen


def layers_of(program: Program) -> dict[int, str]:
    """Return the value -> name of the layers that write it; "input" for the input."""
    found = {program.input: "input"}
    for step in program.steps:
        before = found.get(step.output)
        name = step.labels[0]
        found[step.output] = name if before in (None, name) else f"{before}, {name}"
    return found


def _channels(program: Program) -> dict[int, int]:
    shape = program.input_shape
    return {program.input: shape[-1]} | {step.output: step.channels for step in program.steps}


def _pieces(batches: Iterable[Array], most: int) -> Iterator[Array]:
    for batch in map(np.asarray, batches):
        if batch.ndim == 0 or len(batch) <= most:
            yield batch
        else:
            yield from (batch[i : i + most] for i in range(0, len(batch), most))


def _refuse(x: Array, before: int, message: str) -> None:
    """Raise unless an array of some images is finite; `before` images came before them."""
    with np.errstate(over="ignore", invalid="ignore"):
        whole = x.sum()
    if not np.isfinite(whole):  # or only too large a sum
        for i, one in enumerate(x):
            if not np.isfinite(one).all():
                raise NonFiniteError(f"calibration: {message.format(before + i)}")


def _warn(seen: Mapping[int, Seen], layers: Mapping[int, str], same: int) -> None:
    """Warn of `same` images that are equal, or of values that are one number."""
    single = [layers[v] for v, one in seen.items() if one.low.min() == one.high.max()]
    what = []
    if same > 1:
        what.append(f"all {same} images are the same")
    if single:
        more = f" and {len(single) - 3} more" if len(single) > 3 else ""
        what.append(f"one number is all there is in {', '.join(single[:3])}{more}")
    if what:
        warnings.warn(
            f"calibration: {'; '.join(what)}: ranges taken from that may not suit other images",
            stacklevel=3,
        )


# --- choosing ---------------------------------------------------------------------------


def choose(seen: Seen, method: str = "mse", *, share: float = SHARE) -> Codes:
    """Return codes for what was seen.

    Parameters
    ----------
    seen : Seen
    method : {"mse", "percentile", "minmax"}
    share : float
        Of ``percentile``: which share of all numbers lies inside, above 0 and at most 1; half
        of the others are below, half above. 0 is always inside.

    Raises
    ------
    ConfigError
    """
    if method not in METHODS:
        raise ConfigError(unknown("method of calibration", method, METHODS))
    if not 0 < share <= 1:
        raise ConfigError(f"share: expected a number above 0 and at most 1, got {share!r}")
    return METHODS[method](seen, share)


def _everything(seen: Seen, share: float) -> Codes:
    return Codes.over(float(seen.low.min()), float(seen.high.max()))


def _percentile(seen: Seen, share: float) -> Codes:
    """Cut off (1 - share) / 2 on each side; inside a bin numbers count as evenly spread."""
    below = np.concatenate([[0], np.cumsum(seen.counts)])
    out, total = (1 - share) / 2 * below[-1], below[-1]
    first = int(np.searchsorted(below[1:], out, side="right"))
    last = int(np.searchsorted(below, total - out, side="left")) - 1
    low = first + (out - below[first]) / seen.counts[first]
    high = last + (total - out - below[last]) / seen.counts[last]
    low, high = (seen.start + seen.width * float(at) for at in (low, high))
    return Codes.over(max(low, float(seen.low.min())), min(high, float(seen.high.max())))


def _least_error(seen: Seen, share: float) -> Codes:
    """Search over ranges that shrink from either side.

    Rounding to steps s costs about s^2 / 12, cutting the mean of (low - x)^2 below and of
    (x - high)^2 above: so much for every pair of ends. The best pairs and the whole range are
    then judged by `error`.
    """
    x, p = seen.centres, seen.shares
    whole = min(float(seen.low.min()), 0.0), max(float(seen.high.max()), 0.0)
    lows, highs = (end * SHRINK ** np.arange(TRIED if end else 1) for end in whole)
    below = np.square(np.maximum(lows[:, None] - x, 0)) @ p
    above = np.square(np.maximum(x - highs[:, None], 0)) @ p
    steps = (highs - lows[:, None]) / 255
    at_zero = min(round(-seen.start / seen.width), BINS - 1)
    rounded = 1 - p[at_zero]  # what lies there is zeros above all, which cost nothing
    model = below[:, None] + above + rounded * np.square(steps) / 12
    best = np.argsort(model, axis=None, kind="stable")[:JUDGED]
    rows, columns = np.unravel_index(best, model.shape)
    pairs = [whole, *zip(lows[rows], highs[columns], strict=True)]
    found = [Codes.over(float(low), float(high)) for low, high in pairs]
    return min(found, key=lambda codes: error(seen, codes))


METHODS: dict[str, Callable[[Seen, float], Codes]] = {
    "mse": _least_error,
    "percentile": _percentile,
    "minmax": _everything,
}


def error(seen: Seen, codes: Codes) -> float:
    """Return the mean squared difference between numbers and what their codes stand for.

    From the histogram: a bin's numbers are taken as evenly spread around its middle.
    """
    x, p = seen.centres, seen.shares
    kept = (np.clip(np.rint(x / codes.scale) + codes.zero, 0, 255) - codes.zero) * codes.scale
    spread = min(seen.width, codes.scale) ** 2 / 12
    return float(((x - kept) ** 2) @ p + spread)


def decibels(seen: Seen, codes: Codes) -> float:
    """Return the signal-to-noise ratio 10 log10(mean x^2 / `error`); infinite for all zeros."""
    signal = float((seen.centres**2) @ seen.shares)
    if seen.low.min() == seen.high.max() == 0:
        return math.inf
    return 10 * math.log10(signal / error(seen, codes))


def calibrate(
    program: Program,
    images: Iterable[Array] | Mapping[int, Seen],
    method: str = "mse",
    *,
    share: float = SHARE,
) -> dict[int, Codes]:
    """Return codes for every value of a program.

    Parameters
    ----------
    program : Program
        A simplified one.
    images : iterable of ndarray, or dict of int to Seen
        Batches for `observe`, or what it returned.
    method, share
        As in `choose`.
    """
    seen = images if isinstance(images, Mapping) else observe(program, images)
    return {value: choose(one, method, share=share) for value, one in seen.items()}


@dataclass(frozen=True)
class Row:
    """One value in a `Report`.

    Attributes
    ----------
    value : int
    layer : str
    low, high : float
        What was seen.
    codes : dict of str to Codes
        By method.
    decibels : dict of str to float
        Signal-to-noise ratio that is expected of these codes.
    """

    value: int
    layer: str
    low: float
    high: float
    codes: dict[str, Codes]
    decibels: dict[str, float]


@dataclass(frozen=True)
class Report:
    """What each method would choose for every value.

    Attributes
    ----------
    method : str
        The chosen one.
    rows : list of Row
        In the order in which values are computed.
    """

    method: str
    rows: list[Row]

    @property
    def codes(self) -> dict[int, Codes]:
        """Codes of the chosen method for every value."""
        return {row.value: row.codes[self.method] for row in self.rows}


def report(
    program: Program, seen: Mapping[int, Seen], method: str = "mse", *, share: float = SHARE
) -> Report:
    """Compare all methods on what `observe` returned."""
    if method not in METHODS:
        raise ConfigError(unknown("method of calibration", method, METHODS))
    rows = []
    for value, layer in layers_of(program).items():
        one = seen[value]
        codes = {name: choose(one, name, share=share) for name in METHODS}
        noise = {name: decibels(one, chosen) for name, chosen in codes.items()}
        low, high = float(one.low.min()), float(one.high.max())
        rows.append(Row(value, layer, low, high, codes, noise))
    return Report(method, rows)
