"""Dropout."""

from __future__ import annotations

import numpy as np

from minidnn import init
from minidnn.errors import ConfigError
from minidnn.kernels import dropout as kernel
from minidnn.module import Buffer, Module
from minidnn.tensor import Array, Backward, Tensor, op


@op
def dropout(x: Array, *, p: float, seed: int, offset: int) -> tuple[Array, Backward]:
    """Keep element i where number `offset + i` of the stream `seed` is at least p.

    The loops are in `minidnn.kernels.dropout`.
    """
    y, keep = kernel.forward(x, p=p, seed=seed, offset=offset)
    return y, lambda dy: kernel.backward(dy, keep, p=p)


class Dropout(Module):
    """In training, zero each element with probability p and divide the others by 1 - p.

    (Srivastava et al. 2014, inverted form: evaluation passes its input on.) The seed and the
    number of elements drawn so far are buffers, so a saved state goes on with the same masks.

    Parameters
    ----------
    p : float
        Probability of zero, from 0 to 1.
    rng : numpy.random.Generator, optional
        Gives the seed; `minidnn.init.default_rng()` if left out.

    Shapes
    ------
    any -> the same
    """

    def __init__(self, p: float = 0.5, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ConfigError(f"Dropout: expected a probability p from 0 to 1, got {p}")
        self.p = float(p)
        rng = init.default_rng() if rng is None else rng
        self.seed = Buffer(np.array(rng.integers(2**63), np.int64))
        self.counter = Buffer(np.zeros((), np.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of an array of any shape."""
        if not self.training:
            return x
        y = dropout(x, p=self.p, seed=int(self.seed.data), offset=int(self.counter.data))
        self.counter.data += x.size
        return y

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"p={self.p:g}"
