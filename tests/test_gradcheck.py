"""The gradient checker accepts right gradients, and must reject wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidnn.errors import DTypeError, GraphError
from minidnn.gradcheck import GradientError, check_gradients
from minidnn.layers.activation import PReLU
from minidnn.module import Buffer, Module, Parameter
from minidnn.tensor import Tensor, op

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((4, 5)), RNG.standard_normal((4, 5))


def _product(how: str) -> Any:
    """Return an op for a * b * b whose gradient is right ('') or wrong in one way."""

    @op
    def product(a: Any, b: Any) -> Any:
        def backward(dy: Any) -> Any:
            da, db = dy * b * b, 2 * dy * a * b
            if how == "wrong sign":
                db = -db
            elif how == "missing term":
                db = db / 2
            elif how == "zero":
                db = np.zeros_like(db)
            elif how == "one element":
                db[2, 3] *= 1.01
            elif how == "nan":
                db[0, 0] = np.nan
            elif how == "swapped":
                da, db = db, da
            return da, db

        return a * b * b, backward

    return product


def test_accepts_a_right_gradient() -> None:
    check_gradients(_product(""), A, B)


@pytest.mark.parametrize("how", ["wrong sign", "missing term", "zero", "one element", "nan"])
def test_rejects_and_names_the_input(how: str) -> None:
    with pytest.raises(GradientError, match=r"input 1 of shape \(4, 5\)"):
        check_gradients(_product(how), A, B)


def test_rejects_swapped_gradients() -> None:
    with pytest.raises(GradientError, match="input 0"):
        check_gradients(_product("swapped"), A, B)


def test_rejects_a_gradient_that_never_arrives() -> None:
    with pytest.raises(GradientError, match="input 0"):
        check_gradients(lambda a, b: a.detach() * a.detach() * b, A, B)


def test_accepts_an_input_that_truly_does_not_matter() -> None:
    check_gradients(lambda a, b: b * 2.0 + a * 0.0, A, B)


def test_checks_every_output() -> None:
    check_gradients(lambda a, b: (a * b, a.exp()), A, B)
    with pytest.raises(GradientError, match="input 1"):
        check_gradients(lambda a, b: (a * b, _product("zero")(a, b)), A, B)


def test_checks_the_parameters_of_a_module_by_name() -> None:
    layer = PReLU(5).astype(np.float64)
    check_gradients(layer, A)

    class Wrong(Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = Parameter(RNG.standard_normal((4, 5)))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = _product("zero")(x, self.scale)
            return y

    with pytest.raises(GradientError, match="parameter scale"):
        check_gradients(Wrong(), A)


def test_leaves_inputs_parameters_and_counters_as_after_one_call() -> None:
    class Counting(Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = Buffer(np.zeros((), np.int64))
            self.weight = Parameter(A.copy())

        def forward(self, x: Tensor) -> Tensor:
            self.calls.data += 1
            return x * self.weight * float(self.calls.data)

    layer, x = Counting(), B.copy()
    check_gradients(layer, x)
    assert layer.calls.data == 1
    assert np.array_equal(layer.weight.data, A)
    assert np.array_equal(x, B)


def test_frozen_parameters_are_not_checked() -> None:
    layer = PReLU(A.shape[-1]).astype(np.float64)
    layer.weight.requires_grad = False
    check_gradients(layer, A)


def test_an_array_may_be_given_twice_and_need_not_be_writable() -> None:
    a = A.copy()
    a.flags.writeable = False
    check_gradients(lambda x, y: x * y * y, a, a)


def test_needs_float64_and_a_graph() -> None:
    with pytest.raises(DTypeError, match="input 0: expected float64"):
        check_gradients(_product(""), A.astype(np.float32), B)
    with pytest.raises(DTypeError, match="parameter weight: expected float64"):
        check_gradients(PReLU(5), A)
    with pytest.raises(GraphError, match="does not depend on any input"):
        check_gradients(lambda a: Tensor(B), A)
