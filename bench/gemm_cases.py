"""The matrix products of QuickNet's training, as data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bench.shapes import CLASSES, GLOBAL_AVG_POOL, POINTWISE
from minidnn.kernels import gemm

# Forms of `minidnn.kernels.gemm`, and what they compute in a layer y = x @ w.
FORMS = {"nn": "forward", "nt": "dX", "tn": "dW"}


class GemmCase(NamedTuple):
    """A product of (rows, c_in) and (c_in, c_out), or one of its two gradients."""

    form: str
    rows: int
    c_in: int
    c_out: int

    @property
    def label(self) -> str:
        """Short name for tables."""
        return f"{self.rows}x{self.c_in}x{self.c_out} {FORMS[self.form]}"

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.rows * self.c_in * self.c_out

    def draw(self) -> tuple[Any, Any]:
        """Draw the operands as the kernel takes them."""
        x, w, y = (self.rows, self.c_in), (self.c_in, self.c_out), (self.rows, self.c_out)
        shapes = {"nn": (x, w), "nt": (y, w), "tn": (x, y)}[self.form]
        rng = np.random.default_rng(7)
        a, b = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
        return a, b

    @property
    def ladder(self) -> Callable[[Any, Any], Any]:
        """minidnn's product of that form."""
        return {"nn": gemm.nn, "nt": gemm.nt, "tn": gemm.tn}[self.form]

    def transposed(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Return the operands so that NumPy's ``@`` computes the form."""
        return (a.T if self.form == "tn" else a), (b.T if self.form == "nt" else b)


def cases(batch: int) -> tuple[GemmCase, ...]:
    """Return the products of all pointwise layers and of the linear one."""
    layers = [(batch * p.size**2, p.c_in, p.c_out) for p in POINTWISE]
    layers.append((batch, GLOBAL_AVG_POOL.channels, CLASSES))
    return tuple(GemmCase(form, *layer) for layer in layers for form in FORMS)
