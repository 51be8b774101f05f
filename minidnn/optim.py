"""Optimisers on flat buffers: SGD, Adam, AdamW, RMSProp; clipping, decay groups.

An optimiser lays all its parameters end to end in one flat array, and their gradients and
its own state in others; ``parameter.data`` and ``parameter.grad`` become views. So a step is
one pass of one kernel per group (`minidnn.kernels.sgd` and its neighbours), and clipping and
saving work on whole arrays.

Rules that follow from it: convert or reshape a model before the optimiser is built, change
weights in place (``p.data[...] = new``), and keep one optimiser per parameter: a newer one
takes the parameters over, and `step()` of the older raises. And call every `backward()` before
the step: a forward pass keeps the weights themselves, not copies, so its gradients would be
those of the new weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minidnn.errors import ConfigError, DTypeError, OptimizerError, ShapeError, StateDictError
from minidnn.kernels import adam, rmsprop, sgd, square_sum
from minidnn.module import Module, Parameter
from minidnn.tensor import Array

Groups: TypeAlias = Sequence[Parameter] | Sequence[Mapping[str, Any]]


class Group(NamedTuple):
    """A stretch of the flat buffers that shares its settings."""

    start: int
    stop: int
    weight_decay: float
    lr_scale: float


def at_least(what: str, value: float, low: float, below: float = math.inf) -> float:
    """Return `value` as a float, or raise ConfigError unless low <= value < below."""
    if not low <= value < below:
        top = "" if below == math.inf else f" and below {below:g}"
        raise ConfigError(f"{what}: expected a number of at least {low:g}{top}, got {value!r}")
    return float(value)


def _as_groups(params: Groups, weight_decay: float) -> list[tuple[list[Parameter], float, float]]:
    """Return (parameters, weight decay, learning rate scale) per group, with all checks."""
    entries: list[Any] = list(params)
    if entries and not all(isinstance(entry, Mapping) for entry in entries):
        entries = [{"params": entries}]
    groups, seen = [], set()
    for entry in entries:
        group: dict[str, Any] = dict(entry)
        members = list(group.pop("params", []))
        decay = at_least("weight_decay", group.pop("weight_decay", weight_decay), 0)
        scale = at_least("lr_scale", group.pop("lr_scale", 1.0), 0)
        if group:
            raise ConfigError(
                f"optimiser group: unknown keys {sorted(group)} "
                "(known: params, weight_decay, lr_scale)"
            )
        for p in members:
            if not isinstance(p, Parameter):
                raise ConfigError(
                    f"optimiser: expected Parameters, got {type(p).__name__}; "
                    "pass model.parameters() or decay_groups(model, weight_decay)"
                )
            if id(p) in seen:
                raise ConfigError(f"optimiser: a parameter of shape {p.shape} was given twice")
            seen.add(id(p))
        groups.append(([p for p in members if p.requires_grad], decay, scale))
    if not any(members for members, _, _ in groups):
        raise ConfigError("optimiser: expected at least one parameter that requires gradients")
    return groups


def check_state(own: Mapping[str, Array], state: Mapping[str, Array], whose: str) -> None:
    """Raise StateDictError unless names, shapes and dtypes are the same."""
    problems = [f"missing: {name}" for name in own if name not in state]
    problems += [f"unexpected: {name}" for name in state if name not in own]
    for name, mine in own.items():
        given = state.get(name, mine)
        if (given.shape, given.dtype) != (mine.shape, mine.dtype):
            problems.append(
                f"{name}: expected {mine.shape} {mine.dtype}, got {given.shape} {given.dtype}"
            )
    if problems:
        raise StateDictError(f"state does not fit {whose}: " + "; ".join(problems))


class Optimizer:
    """What all optimisers share: the flat buffers, and the loop over groups.

    Parameters
    ----------
    params : list of Parameter, or list of dict
        A dict holds ``params`` and, if they differ from the optimiser's, ``weight_decay`` and
        ``lr_scale`` (times the learning rate). Parameters with ``requires_grad=False`` are
        left alone.
    lr : float
        Learning rate; may be set anew before every step.
    weight_decay : float
        For groups that name none.
    state_names : tuple of str
        One flat array of state each, all zeros at first.

    Attributes
    ----------
    lr : float
    steps : int
        Steps taken.
    weights, gradients : ndarray of shape (n,)
        The flat buffers, in the order the parameters were given.
    state : dict of str to ndarray of shape (n,)

    Raises
    ------
    ConfigError
        Naming the setting that is out of range, or parameters that are missing or doubled.
    DTypeError
        If parameters differ in dtype.
    """

    def __init__(
        self, params: Groups, lr: float, weight_decay: float, state_names: tuple[str, ...]
    ) -> None:
        groups = _as_groups(params, at_least("weight_decay", weight_decay, 0))
        self.lr = at_least("lr", lr, 0)
        self.steps = 0
        self.params = [p for members, _, _ in groups for p in members]
        dtypes = {str(p.dtype) for p in self.params}
        if len(dtypes) > 1:
            raise DTypeError(f"optimiser: expected parameters of one dtype, got {sorted(dtypes)}")
        n, dtype = sum(p.size for p in self.params), self.params[0].dtype
        self.weights, self.gradients = np.zeros(n, dtype), np.zeros(n, dtype)
        self.state = {name: np.zeros(n, dtype) for name in state_names}
        self.groups: list[Group] = []
        self._data: list[Array] = []
        self._grads: list[Array] = []
        start = 0
        for members, decay, scale in groups:
            stop = start + sum(p.size for p in members)
            self.groups.append(Group(start, stop, decay, scale))
            for p in members:
                self._take(p, slice(start, start + p.size))
                start += p.size

    def _take(self, p: Parameter, place: slice) -> None:
        """Move one parameter's values and gradient into the flat buffers."""
        data = self.weights[place].reshape(p.shape)
        grad = self.gradients[place].reshape(p.shape)
        data[...] = p.data
        if p.grad is not None:
            grad[...] = p.grad
        p.data, p.grad = data, grad
        self._data.append(data)
        self._grads.append(grad)

    def collect(self) -> None:
        """Make sure that every parameter still lives in the flat buffers.

        A gradient that user code set to None counts as zero, one it replaced is copied in.

        Raises
        ------
        OptimizerError
            If a parameter's values are elsewhere: a newer optimiser took them, the model was
            converted, or ``p.data`` was assigned.
        """
        for i, (p, data, grad) in enumerate(zip(self.params, self._data, self._grads, strict=True)):
            if p.data is not data or not p.requires_grad:
                what = "was frozen" if p.data is data else "no longer lives in this optimiser"
                raise OptimizerError(
                    f"parameter {i} of shape {p.shape} {what}: a newer optimiser took it over, "
                    "or astype(), requires_grad or p.data = ... came after this optimiser; build "
                    "the optimiser last, and write weights in place with p.data[...] = new"
                )
            if p.grad is not grad:
                if p.grad is None:
                    grad.fill(0)
                elif p.grad.shape == grad.shape and p.grad.dtype == grad.dtype:
                    grad[...] = p.grad
                else:
                    raise ShapeError(
                        f"parameter {i}: expected a gradient of shape {grad.shape} {grad.dtype}, "
                        f"got {p.grad.shape} {p.grad.dtype}"
                    )
                p.grad = grad

    def step(self) -> None:
        """Update every parameter from its gradient.

        Raises
        ------
        OptimizerError
            If the parameters no longer live in this optimiser.
        """
        self.collect()
        self.lr = at_least("lr", self.lr, 0)
        self.steps += 1
        for group in self.groups:
            if group.stop > group.start:
                part = slice(group.start, group.stop)
                state = [array[part] for array in self.state.values()]
                rate = self.lr * group.lr_scale
                self._update(
                    self.weights[part], self.gradients[part], state, rate, group.weight_decay
                )

    def _update(self, w: Array, g: Array, state: list[Array], lr: float, decay: float) -> None:
        """Run the kernel on one group's part of the buffers."""
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Set every gradient to zero, in place."""
        self.collect()
        self.gradients.fill(0)

    def state_dict(self) -> dict[str, Array]:
        """Return name -> array: the flat state (no copies), the step count, the learning rate."""
        return {**self.state, "steps": np.asarray(self.steps, np.int64), "lr": np.asarray(self.lr)}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy state in; all or nothing.

        Raises
        ------
        StateDictError
            If names, sizes or dtypes differ: another optimiser, model or grouping saved it.
        """
        check_state(self.state_dict(), state, type(self).__name__)
        for name, array in self.state.items():
            array[...] = state[name]
        self.steps, self.lr = int(state["steps"]), float(state["lr"])


class SGD(Optimizer):
    """Stochastic gradient descent; formulas in `minidnn.kernels.sgd`, as `torch.optim.SGD`.

    Parameters
    ----------
    params, lr, weight_decay
        See `Optimizer`; decay adds ``weight_decay * w`` to the gradient.
    momentum : float
        In [0, 1).
    nesterov : bool
        Look one step of momentum ahead; needs momentum.
    """

    def __init__(
        self,
        params: Groups,
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self.momentum = at_least("momentum", momentum, 0, below=1)
        self.nesterov = nesterov
        if nesterov and not momentum:
            raise ConfigError("nesterov: expected momentum above 0, got 0; try momentum=0.9")
        super().__init__(params, lr, weight_decay, ("momentum",))

    def _update(self, w: Array, g: Array, state: list[Array], lr: float, decay: float) -> None:
        sgd.step(
            w,
            g,
            *state,
            lr=lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=decay,
        )


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015); formulas in `minidnn.kernels.adam`, as `torch.optim.Adam`.

    Parameters
    ----------
    params, lr, weight_decay
        See `Optimizer`; decay adds ``weight_decay * w`` to the gradient.
    betas : (float, float)
        Decay rates of the two running means, in [0, 1).
    eps : float
        Added to the root of the second.
    """

    decoupled = False

    def __init__(
        self,
        params: Groups,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        beta1, beta2 = betas
        self.betas = (at_least("beta1", beta1, 0, below=1), at_least("beta2", beta2, 0, below=1))
        self.eps = at_least("eps", eps, 0)
        super().__init__(params, lr, weight_decay, ("mean", "square"))

    def _update(self, w: Array, g: Array, state: list[Array], lr: float, decay: float) -> None:
        adam.step(
            w,
            g,
            *state,
            lr=lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=self.eps,
            weight_decay=decay,
            decoupled=self.decoupled,
            t=self.steps,
        )


class AdamW(Adam):
    """Adam whose decay shrinks the weights directly (Loshchilov & Hutter 2019).

    Parameters
    ----------
    params, lr, betas, eps
        See `Adam`.
    weight_decay : float
        Weights are multiplied by ``1 - lr * weight_decay`` before each step.
    """

    decoupled = True

    def __init__(
        self,
        params: Groups,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


class RMSProp(Optimizer):
    """RMSProp; formulas in `minidnn.kernels.rmsprop`, as `torch.optim.RMSprop`.

    Parameters
    ----------
    params, lr, weight_decay
        See `Optimizer`; decay adds ``weight_decay * w`` to the gradient.
    alpha : float
        Decay rate of the running mean of squares, in [0, 1).
    eps : float
        Added to its root.
    momentum : float
        In [0, 1).
    """

    def __init__(
        self,
        params: Groups,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        self.alpha = at_least("alpha", alpha, 0, below=1)
        self.eps = at_least("eps", eps, 0)
        self.momentum = at_least("momentum", momentum, 0, below=1)
        super().__init__(params, lr, weight_decay, ("square", "momentum"))

    def _update(self, w: Array, g: Array, state: list[Array], lr: float, decay: float) -> None:
        rmsprop.step(
            w,
            g,
            *state,
            lr=lr,
            alpha=self.alpha,
            eps=self.eps,
            momentum=self.momentum,
            weight_decay=decay,
        )


def clip_grad_norm(optimizer: Optimizer, max_norm: float) -> float:
    """Scale all gradients so that their common Euclidean norm is at most `max_norm`.

    As `torch.nn.utils.clip_grad_norm_`: times ``max_norm / (norm + 1e-6)`` where that is below 1.

    Returns
    -------
    float
        The norm before scaling; where it is not finite, the gradients stay as they are.
    """
    at_least("max_norm", max_norm, 0)
    optimizer.collect()
    norm = float(np.sqrt(square_sum.forward(optimizer.gradients).item()))
    scale = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and scale < 1:
        optimizer.gradients *= optimizer.gradients.dtype.type(scale)
    return norm


def decay_groups(model: Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups: parameters that weight decay may act on, and those it must spare.

    `Parameter.decay` tells them apart: full kernels and matrices decay; depthwise kernels,
    biases, batch norm and PReLU slopes do not.
    """
    params = model.parameters()
    groups = [
        {"params": [p for p in params if p.decay], "weight_decay": weight_decay},
        {"params": [p for p in params if not p.decay], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
