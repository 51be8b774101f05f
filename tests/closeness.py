"""One comparison for every kernel test: a tolerance derived from the number of terms summed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def assert_close(
    got: NDArray[Any], want: NDArray[Any], *, terms: int, dtype: Any, what: str = "result"
) -> None:
    """Assert that `got` equals the float64 oracle `want` up to rounding in `dtype`.

    A sum of n rounded terms in any order is off by at most about n * eps times the sum of
    magnitudes, and by sqrt(n) * eps typically; 8 * sqrt(n) * eps of the largest magnitude in
    `want` leaves room for the order, and none for a wrong or missing term.

    Parameters
    ----------
    got, want : ndarray
    terms : int
        How many products or values are summed into one element.
    dtype : dtype
        What `got` must have.
    """
    assert isinstance(got, np.ndarray), f"{what}: expected an ndarray, got {type(got).__name__}"
    assert got.dtype == np.dtype(dtype), f"{what}: expected {np.dtype(dtype)}, got {got.dtype}"
    assert got.shape == want.shape, f"{what}: expected shape {want.shape}, got {got.shape}"
    assert np.array_equal(np.isnan(got), np.isnan(want)), f"{what}: NaNs differ"
    assert want.dtype == np.float64, f"{what}: the oracle must be float64, is {want.dtype}"
    if want.size == 0:
        return
    finite = np.isfinite(want)
    assert np.array_equal(got[~finite & ~np.isnan(want)], want[~finite & ~np.isnan(want)]), (
        f"{what}: infinities differ"
    )
    scale = np.abs(want[finite]).max(initial=0.0)
    tolerance = 8 * np.sqrt(max(terms, 1)) * np.finfo(got.dtype).eps * scale
    error = np.abs(got.astype(np.float64)[finite] - want[finite])
    worst = error.max(initial=0.0)
    assert worst <= tolerance, (
        f"{what}: largest error {worst:.3g} exceeds {tolerance:.3g} "
        f"({terms} terms, largest magnitude {scale:.3g}, {np.dtype(dtype)})"
    )
