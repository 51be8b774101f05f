"""The tape: `Tensor`, the `@op` decorator and `backward()`. Read this file first.

An op is a function from arrays to ``(y, backward)``; the closure is the saved state::

    @op
    def prelu(x, slope):
        y = kernel.forward(x, slope)
        def backward(dy):
            return kernel.backward(dy, x, slope)  # dx, dslope
        return y, backward

Arrays that can need gradients are positional; settings, integer arrays and buffers are
keyword-only. `backward` is one closure that returns a gradient for every positional array,
or a tuple with one closure each, of which the tape calls only those that are needed.
Images are NHWC; float32 everywhere, float64 for gradient checks; mixed dtypes raise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minidnn.errors import DTypeError, GraphError, ShapeError
from minidnn.kernels.memory import empty_like, held_alone

Array: TypeAlias = NDArray[Any]
Backward: TypeAlias = Callable[[Array], Any] | tuple[Callable[[Array], Array], ...] | None
Function: TypeAlias = Callable[..., tuple[Array, Backward]]
Recorder: TypeAlias = Callable[["Node", "Tensor"], None]
Runner: TypeAlias = Callable[["Op", list[Array | None], dict[str, Any]], tuple[Array, Backward]]


class _State(threading.local):
    """Per thread, as in PyTorch: whether to keep the tape, who watches ops, who runs them."""

    grad_enabled = True
    recorder: Recorder | None = None
    runner: Runner | None = None


_state = _State()


@contextmanager
def no_grad() -> Iterator[None]:
    """Keep no tape inside the block: for evaluation and for updates of weights."""
    previous, _state.grad_enabled = _state.grad_enabled, False
    try:
        yield
    finally:
        _state.grad_enabled = previous


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Call ``recorder(node, output)`` after every op that this thread runs inside the block."""
    previous, _state.recorder = _state.recorder, recorder
    try:
        yield
    finally:
        _state.recorder = previous


@contextmanager
def running(runner: Runner) -> Iterator[None]:
    """Let ``runner(op, arrays, settings)`` call the functions of this thread's ops in the block.

    It returns ``(y, backward)`` as they do, and may put closures of its own around theirs.
    """
    previous, _state.runner = _state.runner, runner
    try:
        yield
    finally:
        _state.runner = previous


class Node:
    """One run of an op: what it was called with, and how to go back through it."""

    __slots__ = ("backward", "op", "parents", "settings")

    def __init__(
        self,
        op: Op,
        parents: tuple[Tensor | None, ...],
        settings: dict[str, Any],
        backward: Backward,
    ) -> None:
        self.op, self.parents, self.settings, self.backward = op, parents, settings, backward

    def gradients(self, dy: Array) -> list[Array | None]:
        """Run the closure(s); return one gradient per parent, None where none is needed."""
        wanted = [parent is not None and parent.requires_grad for parent in self.parents]
        closure = self.backward
        if closure is None:
            raise GraphError(
                f"{self.op.name}: backward() was already called through this graph and its saved "
                "arrays are gone; run the forward pass again, or add the losses first"
            )
        lazy = isinstance(closure, tuple)  # one closure per input, each called only if needed
        result = closure if isinstance(closure, tuple) else closure(dy)
        every = result if isinstance(result, tuple) else (result,)
        if len(every) != len(wanted):
            raise GraphError(
                f"{self.op.name}: expected a gradient for each of {len(wanted)} inputs, "
                f"got {len(every)}"
            )
        grads = [
            (part(dy) if lazy else part) if want else None
            for part, want in zip(every, wanted, strict=True)
        ]
        for i, (grad, parent) in enumerate(zip(grads, self.parents, strict=True)):
            if grad is None or parent is None:
                continue
            if grad.shape != parent.shape or grad.dtype != parent.dtype:
                raise GraphError(
                    f"{self.op.name}: gradient of input {i}: expected shape {parent.shape} "
                    f"{parent.dtype}, got {grad.shape} {grad.dtype}"
                )
        return grads


class Op:
    """A function on arrays made differentiable; see `op`."""

    def __init__(self, function: Function, macs: Callable[..., int] | None = None) -> None:
        self.function = function
        self.name = function.__name__
        self.macs = macs
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __call__(self, *inputs: Tensor | Array | None, **settings: Any) -> Tensor:
        parents = tuple(None if a is None else as_tensor(a) for a in inputs)
        arrays = [None if p is None else p.data for p in parents]
        run = _state.runner
        if run is None:
            y, backward = self.function(*arrays, **settings)
        else:
            y, backward = run(self, arrays, settings)
        out = Tensor(y)
        needs_grad = on_tape(*parents)
        if needs_grad or _state.recorder is not None:
            node = Node(self, parents, settings, backward)
            if needs_grad:
                out.node, out.requires_grad = node, True
            if _state.recorder is not None:
                _state.recorder(node, out)
        return out


def on_tape(*inputs: Tensor | None) -> bool:
    """Tell whether an op on these inputs would be kept on the tape."""
    return _state.grad_enabled and any(p is not None and p.requires_grad for p in inputs)


@overload
def op(function: Function) -> Op: ...
@overload
def op(*, macs: Callable[..., int]) -> Callable[[Function], Op]: ...
def op(
    function: Function | None = None, *, macs: Callable[..., int] | None = None
) -> Op | Callable[[Function], Op]:
    """Make an op of a function from arrays to ``(y, backward)``.

    Parameters
    ----------
    function : callable
        Takes arrays positionally, settings by keyword; returns the output array and either
        one closure ``dy -> gradients`` or a tuple of closures ``dy -> gradient``.
    macs : callable, optional
        ``macs(y, *arrays, **settings)`` returns the multiply-accumulates of one call.
    """
    if function is None:
        return lambda f: Op(f, macs)
    return Op(function, macs)


class Tensor:
    """An array that remembers how it was computed.

    Parameters
    ----------
    data : array_like
        float32 or float64 values; Python numbers and lists become float32.
    requires_grad : bool
        Whether `backward()` fills `grad`.

    Attributes
    ----------
    data : ndarray
    grad : ndarray or None
        Gradient of the last `backward()` calls, summed; for leaves only.
    """

    __slots__ = ("_hooks", "data", "grad", "node", "requires_grad")
    __array_ufunc__ = None  # so that ndarray * Tensor asks Tensor.__rmul__

    def __init__(self, data: ArrayLike, requires_grad: bool = False) -> None:
        array = data if isinstance(data, np.ndarray | np.generic) else np.asarray(data, np.float32)
        if array.dtype not in (np.float32, np.float64):
            raise DTypeError(
                f"Tensor: expected float32 (or float64 for gradient checks), got {array.dtype}; "
                "convert it yourself with .astype(np.float32)"
            )
        self.data: Array = np.asarray(array)
        self.requires_grad = requires_grad
        self.grad: Array | None = None
        self.node: Node | None = None
        self._hooks: list[Callable[[Tensor], None]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type: float32 or float64."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.data.size

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({np.array2string(self.data, threshold=20)}, dtype={self.dtype}{grad})"

    def numpy(self) -> Array:
        """Return the array itself, not a copy."""
        return self.data

    def item(self) -> float:
        """Return the value of a one-element tensor as a Python float."""
        return float(self.data.item())

    def detach(self) -> Tensor:
        """Return a tensor on the same array that is cut off from the tape."""
        return Tensor(self.data)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> None:
        """Call ``hook(self)`` in each `backward()` once this leaf's gradient is final."""
        self._hooks = [*(self._hooks or []), hook]

    def backward(self, grad: Array | None = None) -> None:
        """Fill `grad` of every leaf this tensor was computed from that requires it.

        Parameters
        ----------
        grad : ndarray of this tensor's shape, optional
            Gradient to start from; 1 for a tensor of one element.

        Raises
        ------
        GraphError
            If nothing here requires gradients, or the graph was used before.
        """
        if not self.requires_grad:
            raise GraphError(
                "backward(): this tensor requires no gradient and was computed from none that does"
            )
        if grad is None:
            if self.size != 1:
                raise ShapeError(
                    f"backward(): shape {self.shape} has no default gradient; pass one"
                )
            grad = np.ones_like(self.data)
        if grad.shape != self.shape or grad.dtype != self.dtype:
            raise ShapeError(
                f"backward(): expected a gradient of shape {self.shape} {self.dtype}, "
                f"got {grad.shape} {grad.dtype}"
            )
        pending: dict[int, Array] = {id(self): grad}
        order = _parents_first(self)
        while order:
            tensor = order.pop()  # forgotten once done with, so that memory is free early
            node = tensor.node
            if id(tensor) not in pending:  # an op returned None: no gradient flows here
                continue
            if node is None:
                tensor._accumulate(pending)
                continue
            _hand_on(node, pending.pop(id(tensor)), pending)
            node.backward, node.parents = None, ()

    def _accumulate(self, pending: dict[int, Array]) -> None:
        """Take this leaf's gradient out of `pending`: add it to `grad`, or become `grad`."""
        ours = held_alone(pending, id(self))
        grad = pending.pop(id(self))
        if self.grad is not None:
            self.grad += grad
        elif ours and grad.flags.c_contiguous:
            self.grad = grad
        else:
            # A copy, and an array where NumPy made a scalar of shape ().
            self.grad = np.array(grad, order="C")
        for hook in self._hooks or ():
            hook(self)

    def __add__(self, other: Operand) -> Tensor:
        return arithmetic.add(self, self._operand(other))

    __radd__ = __add__

    def __sub__(self, other: Operand) -> Tensor:
        return arithmetic.sub(self, self._operand(other))

    def __rsub__(self, other: Operand) -> Tensor:
        return arithmetic.sub(self._operand(other), self)

    def __mul__(self, other: Operand) -> Tensor:
        return arithmetic.mul(self, self._operand(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Operand) -> Tensor:
        return arithmetic.div(self, self._operand(other))

    def __rtruediv__(self, other: Operand) -> Tensor:
        return arithmetic.div(self._operand(other), self)

    def __pow__(self, exponent: float) -> Tensor:
        return arithmetic.power(self, exponent=float(exponent))

    def __neg__(self) -> Tensor:
        return arithmetic.neg(self)

    def __matmul__(self, other: Tensor | Array) -> Tensor:
        return arithmetic.matmul(self, other)

    def __rmatmul__(self, other: Array) -> Tensor:
        return arithmetic.matmul(other, self)

    def __getitem__(self, index: Any) -> Tensor:
        return arithmetic.getitem(self, index=index)

    def exp(self) -> Tensor:
        """Return e to the power of every element."""
        return arithmetic.exp(self)

    def log(self) -> Tensor:
        """Return the natural logarithm of every element."""
        return arithmetic.log(self)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Sum over one axis, several, or all."""
        return arithmetic.sum_(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Average over one axis, several, or all."""
        return arithmetic.mean(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Maximum over one axis, several, or all; ties share the gradient equally."""
        return arithmetic.max_(self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """Return the same values in another shape, given as numbers or as one tuple.

        -1 stands for what is left.
        """
        return arithmetic.reshape(self, shape=_numbers(shape))

    def transpose(self, *axes: int | Sequence[int]) -> Tensor:
        """Return all axes in another order, numbers or one tuple; reversed if none is given.

        As in NumPy; PyTorch calls it permute.
        """
        order = _numbers(axes) if axes else tuple(range(self.ndim))[::-1]
        return arithmetic.transpose(self, axes=order)

    def _operand(self, value: Operand) -> Tensor | Array:
        """Give a Python number this tensor's dtype; arrays and tensors keep their own."""
        return np.asarray(value, self.dtype) if isinstance(value, float | int) else value


Operand: TypeAlias = Tensor | Array | float
Axis: TypeAlias = int | tuple[int, ...] | None


def _numbers(given: tuple[Any, ...]) -> tuple[int, ...]:
    """Return (2, 3) for both ``f(2, 3)`` and ``f((2, 3))``."""
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], Sequence) else given


def as_tensor(value: ArrayLike | Tensor) -> Tensor:
    """Return `value` itself if it is a Tensor, else a Tensor on it."""
    return value if isinstance(value, Tensor) else Tensor(value)


def _hand_on(node: Node, dy: Array, pending: dict[int, Array]) -> None:
    """Go back through one op; give each parent its gradient, added to what came before.

    A sum goes into memory of its own unless one of its terms can be reached from nowhere
    else: a closure may hand one array to two parents, or keep what it returned.
    """
    arrived = {i: dx for i, dx in enumerate(node.gradients(dy)) if dx is not None}
    for i in list(arrived):
        key = id(node.parents[i])
        if key not in pending:
            pending[key] = arrived.pop(i)
        elif held_alone(pending, key):
            pending[key] += arrived.pop(i)
        else:
            ours = held_alone(arrived, i)
            dx = arrived.pop(i)
            pending[key] = np.add(pending[key], dx, out=dx if ours else empty_like(dx))


def _parents_first(root: Tensor) -> list[Tensor]:
    """Order the graph so that every tensor comes before all that were computed from it.

    Depth-first with a stack of our own: a graph may be deeper than Python's recursion limit.
    """
    order: list[Tensor] = []
    seen: set[int] = set()
    stack: list[tuple[Tensor, bool]] = [(root, False)]
    while stack:
        tensor, parents_done = stack.pop()
        if parents_done:
            order.append(tensor)
            continue
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        stack.append((tensor, True))
        if tensor.node is not None:
            if tensor.node.backward is None:
                tensor.node.gradients(tensor.data)  # raises: already used
            # Reversed, so that the first parent is finished first.
            for parent in reversed(tensor.node.parents):
                if parent is not None and parent.requires_grad and id(parent) not in seen:
                    stack.append((parent, False))
    return order


# Down here because the two files need each other: arithmetic's ops are made of `op` above.
from minidnn import arithmetic  # noqa: E402
