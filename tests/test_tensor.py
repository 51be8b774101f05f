"""The tape: operators, order of the backward pass, what is kept, and what is refused."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidnn
from minidnn.errors import DTypeError, GraphError, ShapeError
from minidnn.gradcheck import check_gradients
from minidnn.module import Parameter
from minidnn.tensor import Tensor, no_grad, op, recording

RNG = np.random.default_rng(0)
A = RNG.standard_normal((3, 4))
ROW, COLUMN = RNG.standard_normal(4), RNG.standard_normal((3, 1))
AWAY = np.sign(A) * (np.abs(A) + 0.5)  # not near zero
POSITIVE = np.abs(A) + 0.5

# name -> (function, inputs); the same function runs on torch's tensors where they agree
EXPRESSIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "add": (lambda a, b: a + b, (A, 2 * A)),
    "add_row": (lambda a, b: a + b, (A, ROW)),
    "add_column": (lambda a, b: b + a, (A, COLUMN)),
    "outer_sum": (lambda a, b: a + b, (COLUMN, ROW)),
    "add_number": (lambda a: 2 + a + 1.5, (A,)),
    "sub_row": (lambda a, b: a - b, (A, ROW)),
    "sub_column": (lambda a, b: b - a, (A, COLUMN)),
    "number_minus": (lambda a: 1 - a, (A,)),
    "mul_column": (lambda a, b: a * b, (A, COLUMN)),
    "mul_scalar_array": (lambda a, b: a * b, (A, np.array(1.7))),
    "mul_ones": (lambda a, b: a * b, (A, RNG.standard_normal((1, 1, 4)))),
    "div_column": (lambda a, b: b / a, (AWAY, COLUMN)),
    "div_row": (lambda a, b: b / a, (AWAY, ROW)),
    "number_over": (lambda a: 2 / a, (AWAY,)),
    "neg": (lambda a: -a, (A,)),
    "square": (lambda a: a**2, (A,)),
    "cube_root": (lambda a: a ** (1 / 3), (POSITIVE,)),
    "exp": (lambda a: a.exp(), (A,)),
    "log": (lambda a: a.log(), (POSITIVE,)),
    "matmul": (lambda a, b: a @ b, (A, RNG.standard_normal((4, 5)))),
    "sum_all": (lambda a: a.sum(), (A,)),
    "mean_all": (lambda a: a.mean(), (A,)),
    "max_all": (lambda a: a.max(), (A,)),
    "reshape": (lambda a: a.reshape(2, -1) * 2, (A,)),
    "row": (lambda a: a[1], (A,)),
    "part": (lambda a: a[1:, ::2], (A,)),
    "one": (lambda a: a[2, 3], (A,)),
    "twice_the_same": (lambda a: a[[0, 2, 0]], (A,)),
}
# axis arguments are spelt differently by torch, so these meet finite differences alone
AXES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "sum_axis": (lambda a: a.sum(axis=1), (A,)),
    "sum_keepdims": (lambda a: a.sum(axis=(0, 1), keepdims=True) * a, (A,)),
    "mean_axis": (lambda a: a.mean(axis=-2), (A,)),
    "mean_axes": (lambda a: a.reshape(1, 3, 2, 2).mean(axis=(1, 2)), (A,)),
    "max_axis": (lambda a: a.max(axis=1), (A,)),
    "max_keepdims": (lambda a: a.max(axis=0, keepdims=True) - a, (A,)),
    "transpose": (lambda a: a.reshape(3, 2, 2).transpose(2, 0, 1) ** 2, (A,)),
    "transpose_from_the_end": (lambda a: (a.reshape((3, 2, 2))).transpose(-1, 0, -2) ** 2, (A,)),
    "transpose_all": (lambda a: a.transpose() ** 2, (A,)),
    "concat": (lambda a, b: minidnn.concat([a, b, a]) ** 2, (A, COLUMN)),
    "concat_axis": (lambda a, b: minidnn.concat([a, b], axis=0), (A, AWAY[:1])),
    "pad": (lambda a: minidnn.pad(a, [(1, 0), (0, 2)]) ** 2, (A,)),
}


def grad(x: Tensor) -> Any:
    """Return the gradient, which must be there."""
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("name", [*EXPRESSIONS, *AXES])
def test_gradient_agrees_with_finite_differences(name: str) -> None:
    function, arrays = (EXPRESSIONS | AXES)[name]
    check_gradients(function, *arrays)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_value_and_gradient_agree_with_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    function, arrays = EXPRESSIONS[name]
    ours = [Tensor(np.asarray(a, np.float32), requires_grad=True) for a in arrays]
    theirs = [torch.tensor(t.data, requires_grad=True) for t in ours]
    y, want = function(*ours), function(*theirs)
    np.testing.assert_allclose(y.data, want.detach().numpy(), rtol=1e-5, atol=1e-6)
    dy = np.asarray(np.random.default_rng(1).standard_normal(y.shape), np.float32)
    y.backward(dy)
    want.backward(torch.tensor(dy))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(grad(mine), other.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_equal_maxima_share_the_gradient() -> None:
    x = Tensor([[3.0, 1.0, 3.0], [2.0, 2.0, 2.0]], requires_grad=True)
    x.max(axis=1).sum().backward()
    np.testing.assert_allclose(grad(x), np.array([[0.5, 0, 0.5], [1 / 3] * 3]))


def test_an_array_on_the_left_gives_a_tensor() -> None:
    x = Tensor(np.ones(3, np.float32), requires_grad=True)
    y = np.full(3, 2, np.float32) * x
    assert isinstance(y, Tensor)
    y.sum().backward()
    assert grad(x).tolist() == [2, 2, 2]


def test_an_array_on_the_left_of_a_product_too() -> None:
    x = Tensor(np.eye(2, dtype=np.float32), requires_grad=True)
    y = np.full((3, 2), 2, np.float32) @ x
    assert isinstance(y, Tensor)
    y.sum().backward()
    assert grad(x).tolist() == [[6, 6], [6, 6]]


def test_axes_counted_from_the_end_move_the_gradient_back() -> None:
    x = Tensor(np.arange(8, dtype=np.float32).reshape(2, 2, 2), requires_grad=True)
    w = np.arange(8, 16, dtype=np.float32).reshape(2, 2, 2)
    (x.transpose(0, -1, 1) * w).sum().backward()
    assert np.array_equal(grad(x), w.transpose(0, 2, 1))


def test_shapes_and_axes_may_come_as_a_tuple() -> None:
    x = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert np.array_equal(x.reshape((3, 2)).data, x.reshape(3, 2).data)
    assert np.array_equal(x.transpose((1, 0)).data, x.transpose(1, 0).data)


def test_the_gradient_of_a_scalar_is_an_array_that_can_be_cleared() -> None:
    p = Parameter(np.ones((), np.float32))
    (p * 2).backward()
    assert isinstance(p.grad, np.ndarray)
    p.grad.fill(0)
    (p * 3).backward()
    assert p.grad == 3


def test_numbers_keep_the_dtype() -> None:
    for dtype in (np.float32, np.float64):
        x = Tensor(np.ones(2, dtype))
        assert {(x + 1).dtype, (2 / x).dtype, (x**0.5).dtype, x.mean().dtype} == {np.dtype(dtype)}


# --- the graph ----------------------------------------------------------------------


def test_a_graph_of_five_thousand_ops_goes_backward() -> None:
    x = Tensor([1.0], requires_grad=True)
    y = x
    for _ in range(5000):
        y = y * 1.0 + 0.5
    y.sum().backward()
    assert grad(x).item() == 1


def test_a_deep_graph_can_be_dropped_without_going_backward() -> None:
    x = Tensor([1.0], requires_grad=True)
    y = x
    for _ in range(50_000):
        y = y + 1.0
    del y


def test_diamonds_add_up_and_each_op_goes_backward_once() -> None:
    calls = []

    @op
    def twice(x: Any) -> Any:
        def backward(dy: Any) -> Any:
            calls.append(dy.item())
            return 2 * dy

        return 2 * x, backward

    x = Tensor([1.0], requires_grad=True)
    y = x
    for _ in range(30):  # 2**30 paths, 30 ops
        z = twice(y)
        y = z * 0.25 + z * 0.25
    y.sum().backward()
    assert len(calls) == 30
    assert grad(x).item() == 1


def test_one_input_given_twice_gets_both_gradients() -> None:
    x = Tensor([3.0], requires_grad=True)
    (x * x).sum().backward()
    assert grad(x).item() == 6


def test_gradients_accumulate_over_backward_calls() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    for _ in range(3):
        (x * 2.0).sum().backward()
    assert grad(x).tolist() == [6, 6]


def test_two_forwards_then_two_backwards() -> None:
    x = Tensor([2.0], requires_grad=True)
    first, second = x * x, x * x * x
    second.sum().backward()
    first.sum().backward()
    assert grad(x).item() == 12 + 4


def test_backward_lets_go_of_arrays_as_it_goes() -> None:
    @op
    def watched(x: Any) -> Any:
        y = x + 1
        alive.add(y.ctypes.data)
        weakref.finalize(y, alive.discard, y.ctypes.data)

        def backward(dy: Any) -> Any:
            most.append(len(alive))
            return dy + 0 * y

        return y, backward

    alive: set[int] = set()
    most: list[int] = []
    y = Tensor(np.zeros(1000, np.float32), requires_grad=True)
    for _ in range(8):
        y = watched(y)
    y = y.sum()
    y.backward()
    assert most == [8, 7, 6, 5, 4, 3, 2, 1]


def test_a_closure_that_returns_one_array_for_two_inputs_is_safe() -> None:
    @op
    def plus(a: Any, b: Any) -> Any:
        return a + b, lambda dy: (dy, dy)

    a, b = Tensor([1.0], requires_grad=True), Tensor([1.0], requires_grad=True)
    (plus(a, b) + a).sum().backward()
    assert (grad(a).item(), grad(b).item()) == (2, 1)


def test_a_second_backward_is_a_named_error() -> None:
    x = Tensor([1.0], requires_grad=True)
    y = x * 2.0
    z = y.sum()
    z.backward()
    with pytest.raises(GraphError, match=r"sum_: backward\(\) was already called"):
        z.backward()
    with pytest.raises(GraphError, match=r"mul: backward\(\) was already called"):
        (y + 1.0).sum().backward()


def test_a_second_backward_changes_no_gradient() -> None:
    x = Tensor([1.0], requires_grad=True)
    y = x * 2.0
    y.sum().backward()
    with pytest.raises(GraphError):
        (x + y).sum().backward()
    assert grad(x).item() == 2


def test_backward_needs_a_graph_and_a_gradient_that_fits() -> None:
    with pytest.raises(GraphError, match="requires no gradient"):
        Tensor([1.0]).backward()
    y = Tensor(np.ones((2, 3), np.float32), requires_grad=True) * 2.0
    with pytest.raises(ShapeError, match="pass one"):
        y.backward()
    with pytest.raises(ShapeError, match="expected a gradient"):
        y.backward(np.ones((3, 2), np.float32))
    with pytest.raises(ShapeError, match="expected a gradient"):
        y.backward(np.ones((2, 3)))


def test_no_grad_keeps_no_tape_and_ends_after_an_error() -> None:
    x = Tensor([1.0], requires_grad=True)
    with no_grad():
        assert not (x * 2.0).requires_grad
    with pytest.raises(RuntimeError, match="inside"), no_grad():
        raise RuntimeError("inside")
    assert (x * 2.0).requires_grad


def test_detach_cuts_the_graph_and_shares_the_array() -> None:
    x = Tensor([3.0], requires_grad=True)
    y = x.detach()
    assert y.data is x.data
    (x * y).sum().backward()
    assert grad(x).item() == 3


def test_only_needed_gradients_are_computed() -> None:
    called = []

    @op
    def times(a: Any, b: Any) -> Any:
        def left(dy: Any) -> Any:
            called.append("left")
            return dy * b

        def right(dy: Any) -> Any:
            called.append("right")
            return dy * a

        return a * b, (left, right)

    x, w = Tensor([2.0]), Tensor([3.0], requires_grad=True)
    times(x, w).sum().backward()
    assert called == ["right"]
    assert x.grad is None


def test_a_hook_runs_once_per_backward_when_the_gradient_is_final() -> None:
    x = Tensor([2.0], requires_grad=True)
    seen: list[float] = []
    x.register_post_accumulate_grad_hook(lambda t: seen.append(grad(t).item()))
    (x * x + x * 3.0 + x).sum().backward()
    assert seen == [8]
    x.sum().backward()
    assert seen == [8, 9]


@pytest.mark.parametrize("how", ["shape", "dtype", "count"])
def test_a_wrong_gradient_of_an_op_is_refused(how: str) -> None:
    @op
    def broken(x: Any) -> Any:
        def backward(dy: Any) -> Any:
            if how == "shape":
                return dy[:1]
            return dy.astype(np.float64) if how == "dtype" else (dy, dy)

        return x * 1, backward

    with pytest.raises(GraphError, match="broken: "):
        broken(Tensor([1.0, 2.0], requires_grad=True)).sum().backward()


def test_an_optional_input_may_be_none() -> None:
    @op
    def shifted(x: Any, bias: Any) -> Any:
        return (x if bias is None else x + bias), (lambda dy: dy, lambda dy: dy)

    x = Tensor([1.0], requires_grad=True)
    shifted(x, None).sum().backward()
    assert grad(x).item() == 1


def test_recording_sees_every_op_with_settings_and_parents() -> None:
    seen = []
    x = Tensor(A)
    with recording(lambda node, out: seen.append((node, out))):
        y = (x + 1.0).sum(axis=1)
    assert [node.op.name for node, _ in seen] == ["add", "sum_"]
    assert seen[1][0].settings == {"axis": 1, "keepdims": False}
    assert seen[0][0].parents[0] is x
    assert seen[1][1] is y


# --- what is refused -------------------------------------------------------------------


def test_mixed_dtypes_are_refused_everywhere() -> None:
    x, y = Tensor(np.ones((2, 2), np.float32)), Tensor(np.ones((2, 2)))
    calls: tuple[Callable[[], Tensor], ...] = (
        lambda: x + y,
        lambda: x - y,
        lambda: x * y,
        lambda: x / y,
        lambda: x @ y,
        lambda: minidnn.concat([x, y]),
    )
    for mixed in calls:
        with pytest.raises(DTypeError, match=r"float32.*float64"):
            mixed()


def test_integers_are_refused_as_tensors() -> None:
    with pytest.raises(DTypeError, match="got int64"):
        Tensor(np.arange(3))
    with pytest.raises(DTypeError, match="got int64"):
        _ = Tensor([1.0]) + np.arange(1)
    assert Tensor([1, 2]).dtype == np.float32


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Tensor(np.ones((2, 3))).transpose(0, 0),
        lambda: Tensor(np.ones((2, 3))).transpose(0),
        lambda: Tensor(np.ones((0, 3))).mean(),
        lambda: Tensor(A) + Tensor(A[:, :3]),
        lambda: Tensor(A) @ Tensor(A),
        lambda: Tensor(A).reshape(5, -1),
        lambda: minidnn.concat([Tensor(A), Tensor(A[:2])], axis=1),
        lambda: minidnn.concat([]),
        lambda: minidnn.pad(Tensor(A), [(1, 1)]),
        lambda: minidnn.pad(Tensor(A), [(1, 1), (-1, 0)]),
    ],
)
def test_shapes_that_do_not_fit_are_named_errors(wrong: Callable[[], Any]) -> None:
    with pytest.raises(ShapeError):
        wrong()


def test_nan_and_infinity_pass_through() -> None:
    x = Tensor([np.nan, np.inf, 1.0], requires_grad=True)
    y = x * 2.0
    np.testing.assert_array_equal(y.data, np.array([np.nan, np.inf, 2.0], np.float32))
    assert np.isnan(x.max().item())


def test_printing_and_sizes() -> None:
    x = Tensor(np.zeros((2, 3), np.float32), requires_grad=True)
    assert repr(x).endswith("dtype=float32, requires_grad=True)")
    assert (x.shape, x.ndim, x.size, len(x)) == ((2, 3), 2, 6, 2)
    assert x.numpy() is x.data
    assert Tensor(2.5).item() == 2.5
