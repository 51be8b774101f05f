"""The comparison that judges all kernels must itself be able to fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.closeness import assert_close

WANT = np.random.default_rng(0).standard_normal((5, 7))


def _broken(how: str) -> Any:
    got = WANT.astype(np.float32)
    if how == "zeros":
        return np.zeros_like(got)
    if how == "nan":
        got[2, 3] = np.nan
    elif how == "flipped":
        got[4, 6] = -got[4, 6]
    elif how == "infinite":
        got[0, 0] = np.inf
    elif how == "dtype":
        return got.astype(np.float64)
    elif how == "shape":
        return got[:, :6]
    elif how == "slightly off":
        got[1, 1] += np.float32(1e-4)
    return got


def test_accepts_the_oracle_rounded_to_float32() -> None:
    assert_close(_broken(""), WANT, terms=9, dtype=np.float32)


@pytest.mark.parametrize(
    "how", ["zeros", "nan", "flipped", "infinite", "dtype", "shape", "slightly off"]
)
def test_rejects(how: str) -> None:
    with pytest.raises(AssertionError):
        assert_close(_broken(how), WANT, terms=9, dtype=np.float32)
