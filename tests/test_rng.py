"""The counter-based generator: known values, no pattern that a simple test sees."""

from __future__ import annotations

import numpy as np
import pytest

from minidnn.kernels import rng

SEEDS = [0, 1, 2, 12345, 2**63 - 1, 2**64 - 1]


def _mix(z: int) -> int:
    """SplitMix64's finaliser with Python's integers, from the paper."""
    mask = 2**64 - 1
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    return z ^ z >> 31


def test_mix_gives_the_published_sequence_of_splitmix64() -> None:
    # The first three outputs of the reference program for seed 0.
    want = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    golden = 0x9E3779B97F4A7C15
    assert [int(rng.mix(np.uint64(golden * i % 2**64))) for i in (1, 2, 3)] == want


@pytest.mark.parametrize("seed", SEEDS)
def test_bits_are_that_sequence_from_a_mixed_seed_compiled_or_not(seed: int) -> None:
    golden, counters = 0x9E3779B97F4A7C15, [0, 1, 2, 1000, 2**40, 2**62]
    start = _mix((seed + golden) % 2**64)
    want = [_mix((start + (c + 1) * golden) % 2**64) for c in counters]
    assert [int(rng.bits(np.uint64(seed), c)) for c in counters] == want
    assert rng.bits_numpy(seed, counters).tolist() == want


def test_negative_seeds_and_counters_wrap() -> None:
    assert rng.bits(-1, -2) == rng.bits(np.uint64(2**64 - 1), np.uint64(2**64 - 2))
    assert rng.bits_numpy(-1, [-2]).tolist() == [int(rng.bits(-1, -2))]


def test_uniform_keeps_the_shape_and_stays_below_one() -> None:
    u = rng.uniform_numpy(3, np.arange(20000).reshape(100, 200))
    assert u.shape == (100, 200)
    assert u.dtype == np.float64
    assert u.min() >= 0
    assert u.max() < 1
    assert u[1, 7] == rng.uniform(3, 207)


@pytest.mark.parametrize("seed", SEEDS)
def test_mean_variance_and_bins_are_those_of_a_uniform(seed: int) -> None:
    n = 100_000
    u = rng.uniform_numpy(seed, np.arange(n))
    assert abs(u.mean() - 0.5) < 5 / np.sqrt(12 * n)
    assert abs(u.var() - 1 / 12) < 5 / np.sqrt(180 * n)
    counts = np.bincount((u * 100).astype(int), minlength=100)
    chi2 = ((counts - n / 100) ** 2 / (n / 100)).sum()
    assert 40 < chi2 < 180  # 99 degrees of freedom: six standard deviations either way


def test_neighbouring_counters_and_seeds_are_uncorrelated() -> None:
    n = 100_000
    first = rng.uniform_numpy(5, np.arange(n)) - 0.5
    others = {
        "next counter": rng.uniform_numpy(5, np.arange(1, n + 1)),
        "next seed": rng.uniform_numpy(6, np.arange(n)),
        "across seeds": np.array([rng.uniform(i, 5) for i in range(n)]),
    }
    for name, u in others.items():
        correlation = np.mean(first * (u - 0.5)) * 12
        assert abs(correlation) < 5 / np.sqrt(n), name
        assert abs(u.mean() - 0.5) < 5 / np.sqrt(12 * n), name


def test_every_bit_is_set_half_of_the_time() -> None:
    drawn = rng.bits_numpy(9, np.arange(50_000))
    for bit in range(64):
        share = float(((drawn >> np.uint64(bit)) & np.uint64(1)).mean())
        assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(50_000), bit
