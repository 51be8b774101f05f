"""Counter-based random numbers: each is a hash of (seed, counter), so none depends on another.

Any element of any epoch can be drawn alone, in any order, on any thread, and comes out the
same. The hash is SplitMix64's (Steele, Lea and Flood 2014, "Fast splittable pseudorandom
number generators", figure 17, with Stafford's mix 13): number `counter` of the sequence that
starts at a mixed seed. Mixing the seed first keeps the streams of neighbouring seeds apart.

A key of several parts is a chain: ``bits(bits(seed, epoch), image)`` is the seed of a picture.
The first three functions are for use inside kernels; `bits_numpy` and `uniform_numpy` need no
compiler and give the same values.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from .checks import Array
from .jit import kernel

Bits: TypeAlias = int | np.uint64

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd
MIX1 = np.uint64(0xBF58476D1CE4E5B9)
MIX2 = np.uint64(0x94D049BB133111EB)
S27, S30, S31, S11 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(11)
ONE = np.uint64(1)
UNIT = 2.0**-53


@kernel
def mix(z: Bits) -> np.uint64:
    """Scramble 64 bits one to one: every input bit moves every output bit half of the time."""
    a = np.uint64(z)
    a = (a ^ (a >> S30)) * MIX1
    a = (a ^ (a >> S27)) * MIX2
    return a ^ (a >> S31)


@kernel
def bits(seed: Bits, counter: Bits) -> np.uint64:
    """Return 64 random bits (uint64), a pure function of two integers; negative ones wrap."""
    return mix(mix(np.uint64(seed) + GOLDEN) + (np.uint64(counter) + ONE) * GOLDEN)


@kernel
def uniform(seed: Bits, counter: Bits) -> float:
    """Return a float64 in [0, 1): the upper 53 of `bits`, so 1.0 itself never comes."""
    return float(bits(seed, counter) >> S11) * UNIT


def _mix_numpy(z: Array) -> Array:
    z = (z ^ (z >> S30)) * MIX1
    z = (z ^ (z >> S27)) * MIX2
    z ^= z >> S31
    return z


def bits_numpy(seed: int, counters: ArrayLike) -> Array:
    """Return `bits(seed, counter)` for an array of integer counters, as uint64."""
    # An array of one element, because NumPy warns where a scalar wraps and an array may.
    start = _mix_numpy(np.array([seed % 2**64], np.uint64) + GOLDEN)
    steps = np.asarray(counters).astype(np.uint64).reshape(-1) + ONE
    return _mix_numpy(start + steps * GOLDEN).reshape(np.shape(counters))


def uniform_numpy(seed: int, counters: ArrayLike) -> Array:
    """Return `uniform(seed, counter)` for an array of integer counters, as float64."""
    result: Array = (bits_numpy(seed, counters) >> S11) * UNIT
    return result
