"""Gradients without copies: arrays are taken over, or added to, only where nobody else has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minidnn.kernels import memory
from minidnn.tensor import Tensor, op

SHAPE = (3, 4)
LARGE = (600, 600)  # of float64 and float32 alike, larger than what the arena begins with
Array = NDArray[Any]


def leaf(shape: tuple[int, ...] = SHAPE) -> Tensor:
    values = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    return Tensor(values, requires_grad=True)


def grad(x: Tensor) -> Array:
    assert x.grad is not None
    return x.grad


def gives(returned: Callable[[Array, Array], Array]) -> Any:
    """Return an op whose gradient is what a function of dy and x returns."""

    @op
    def identity(x: Array) -> Any:
        return x.copy(), lambda dy: returned(dy, x)

    return identity


# --- held_alone -----------------------------------------------------------------------------

FRESH: dict[str, Callable[[], Array]] = {
    "numpy": lambda: np.empty(SHAPE, np.float32),
    "arena": lambda: memory.empty(LARGE, np.float32),
    "reshaped": lambda: np.empty(12, np.float32).reshape(SHAPE),
    "arena_reshaped": lambda: memory.empty(LARGE, np.float32).reshape(-1),
    "part": lambda: np.empty((5, 4), np.float32)[1:4],
}


@pytest.mark.parametrize("make", FRESH.values(), ids=FRESH)
def test_an_array_that_only_the_holder_has_is_alone(make: Callable[[], Array]) -> None:
    assert memory.held_alone([make()], 0)
    assert memory.held_alone({7: make()}, 7)


OTHERS: dict[str, Callable[[Array], object]] = {
    "name": lambda a: a,
    "view": lambda a: a[1:],
    "view_of_a_view": lambda a: a[1:].reshape(-1)[2:],
    "transpose": lambda a: a.T,
    "memoryview": lambda a: a.data,
    "closure": lambda a: lambda: a.sum(),
    "iterator": lambda a: iter(a),
    "frombuffer": lambda a: np.frombuffer(a, np.uint8),
}


@pytest.mark.parametrize("make", FRESH.values(), ids=FRESH)
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_an_array_that_others_can_reach_is_not(
    other: Callable[[Array], object], make: Callable[[], Array]
) -> None:
    holder = [make()]
    kept = other(holder[0])
    assert not memory.held_alone(holder, 0)
    del kept
    assert memory.held_alone(holder, 0)


def test_memory_of_others_is_never_alone() -> None:
    assert not memory.held_alone([np.frombuffer(bytearray(8), np.float32)], 0)
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    holder = [frozen]
    del frozen
    assert not memory.held_alone(holder, 0)
    assert not memory.held_alone([np.float32(1)], 0)  # type: ignore[list-item]  # what a sum gives


# --- leaves ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [SHAPE, LARGE])
def test_a_leaf_takes_over_an_array_made_for_it(shape: tuple[int, ...]) -> None:
    def returned(dy: Array, x: Array) -> Array:
        dx = memory.empty_like(x)
        dx[...] = 2 * dy
        places.append(dx.ctypes.data)
        return dx

    places: list[int] = []
    x = leaf(shape)
    gives(returned)(x).sum().backward()
    assert grad(x).ctypes.data == places[0]
    assert (grad(x) == 2).all()


kept_array = np.full(SHAPE, 5, np.float32)
KEPT: dict[str, Callable[[Array, Array], Array]] = {
    "its_input": lambda dy, x: x,
    "an_array_of_its_own": lambda dy, x: kept_array,
    "a_view_of_it": lambda dy, x: kept_array.reshape(-1).reshape(SHAPE),
    "dy": lambda dy, x: dy,
    "dy_in_another_shape": lambda dy, x: dy.reshape(-1).reshape(SHAPE),
    "a_repeated_number": lambda dy, x: np.broadcast_to(dy[:1, :1], SHAPE),
    "another_order": lambda dy, x: np.asfortranarray(dy),
}


@pytest.mark.parametrize("returned", KEPT.values(), ids=KEPT)
def test_a_leaf_never_shares_what_others_keep(returned: Callable[[Array, Array], Array]) -> None:
    x, dy = leaf(), np.random.default_rng(4).standard_normal(SHAPE).astype(np.float32)
    before = [a.copy() for a in (x.data, dy, kept_array)]
    want = returned(dy, x.data).copy()
    for times in (1, 2):  # the second time adds in place
        gives(returned)(x).backward(dy)
        assert np.array_equal(grad(x), times * want)
        assert grad(x).flags.c_contiguous
        assert grad(x).flags.writeable
    for a, kept in zip((x.data, dy, kept_array), before, strict=True):
        assert np.array_equal(a, kept)
        assert not np.shares_memory(a, grad(x))


def test_the_caller_may_use_its_gradient_again() -> None:
    x, dy = leaf(), np.ones(SHAPE, np.float32)
    x.backward(dy)
    (-x).backward(dy)
    (x + x).backward(dy)
    x.reshape(-1).reshape(SHAPE).backward(dy)
    dy[:] = 7
    assert (grad(x) == 1 - 1 + 2 + 1).all()


def test_a_hook_may_keep_a_gradient_and_clear_it() -> None:
    def keep(x: Tensor) -> None:
        kept.append(grad(x))
        x.grad = None

    kept: list[Array] = []
    x = leaf()
    x.register_post_accumulate_grad_hook(keep)
    for factor in (2.0, 3.0):
        (x * factor).sum().backward()
    assert [float(a[0, 0]) for a in kept] == [2, 3]


def test_two_leaves_that_get_one_array_do_not_share_it() -> None:
    a, b = leaf(), leaf()
    (a + b).backward(np.ones(SHAPE, np.float32))
    grad(a)[:] = 9
    assert (grad(b) == 1).all()


# --- several readers ------------------------------------------------------------------------

SUMS: dict[str, Callable[[Tensor], Tensor]] = {
    "itself_added": lambda x: x + x,
    "itself_multiplied": lambda x: x * x,
    "three_readers": lambda x: x * 2.0 + x * 3.0 + x,
    "a_view_and_a_copy": lambda x: x.reshape(-1).reshape(*x.shape) + x * 2.0,
    "a_copy_and_a_view": lambda x: x * 2.0 + x.reshape(-1).reshape(*x.shape),
    "parts": lambda x: x[1:] * x[:-1] + x[1:],
    "transposed": lambda x: (x.transpose() * x.transpose()).transpose() + x,
    "twice_the_same_sum": lambda x: (x + x) + (x + x) * x,
}


@pytest.mark.parametrize("shape", [SHAPE, LARGE])
@pytest.mark.parametrize("name", SUMS)
def test_gradients_of_several_readers_add_up_and_leave_dy_alone(
    name: str, shape: tuple[int, ...]
) -> None:
    torch = pytest.importorskip("torch")
    x = leaf(shape)
    y = SUMS[name](x)
    dy = np.random.default_rng(5).standard_normal(y.shape).astype(np.float32)
    kept = dy.copy()
    twin = torch.tensor(x.data, requires_grad=True)
    theirs = {
        "itself_added": lambda x: x + x,
        "itself_multiplied": lambda x: x * x,
        "three_readers": lambda x: x * 2 + x * 3 + x,
        "a_view_and_a_copy": lambda x: x + x * 2,
        "a_copy_and_a_view": lambda x: x * 2 + x,
        "parts": lambda x: x[1:] * x[:-1] + x[1:],
        "transposed": lambda x: x * x + x,
        "twice_the_same_sum": lambda x: (x + x) + (x + x) * x,
    }[name](twin)
    theirs.backward(torch.from_numpy(dy))
    y.backward(dy)
    assert np.array_equal(dy, kept)
    np.testing.assert_allclose(grad(x), twin.grad.numpy(), rtol=1e-6, atol=1e-6)


def test_sums_of_large_gradients_use_memory_again() -> None:
    x, dy = leaf(LARGE), np.ones(LARGE, np.float32)
    y = x + x  # both readers get dy itself: the sum needs a place of its own
    memory.release()
    block = memory.empty(LARGE, np.float32)
    where = block.ctypes.data
    del block
    y.backward(dy)
    assert grad(x).ctypes.data == where


def test_a_sum_goes_into_the_term_that_nobody_else_has() -> None:
    def returned(dy: Array, x: Array) -> Array:
        dx = 3 * dy
        places.append(dx.ctypes.data)
        return dx

    places: list[int] = []
    x = leaf()
    (gives(returned)(x) + x).backward(np.ones(SHAPE, np.float32))  # dy reaches x first or last
    assert (grad(x) == 4).all()
    assert grad(x).ctypes.data == places[0]
