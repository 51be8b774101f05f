"""Steps of a model to be profiled: training and inference on random pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from minidnn.fusion import fuse
from minidnn.graph import trace as trace_graph
from minidnn.losses import cross_entropy
from minidnn.measure.profile import Clock, Profile, profiling
from minidnn.measure.profiled import Result
from minidnn.measure.trace import Trace
from minidnn.module import Module
from minidnn.optim import SGD, decay_groups
from minidnn.tensor import Tensor, no_grad
from minidnn.warmup import warm_up

WARM_STEPS = 2  # the first fills the arena, the second the caches


def profile_training(
    model: Module,
    shape: Sequence[int],
    *,
    classes: int,
    steps: int,
    fused: bool = True,
    trace: Trace | None = None,
    clock: Clock = time.perf_counter,
    check: Callable[[float], None] = lambda seconds: None,
) -> Result:
    """Profile training steps: forward, loss, backward and an SGD update.

    Parameters
    ----------
    model : Module
        Pictures -> logits (N, classes). Its weights change, and it stays in training mode.
    shape : sequence of int
        Of one batch, (N, H, W, C).
    classes : int
    steps : int
        Measured ones; `WARM_STEPS` go before.
    fused : bool
        Whether to join layers first, as `minidnn train` does.
    trace : Trace, optional
    clock : callable
    check : callable
        Told the seconds of a whole step before the first measured one; may raise.
    """
    if fused:
        fuse(model, shape)
    model.train()
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape, np.float32)
    labels = rng.integers(0, classes, shape[0])
    optimizer = SGD(decay_groups(model, 5e-4), lr=0.01, momentum=0.9, nesterov=True)

    def step(profile: Profile) -> None:
        with profile.section("optimizer.zero_grad"):
            optimizer.zero_grad()
        with profile.section("forward"):
            loss = cross_entropy(model(Tensor(x)), labels)
        with profile.section("backward"):
            loss.backward()
        with profile.section("optimizer.step"):
            optimizer.step()

    with profiling(clock=clock, trace=trace) as profile:
        warm_up(lambda: step(profile), model, optimizer)
        return _measure(profile, step, steps, check)


def profile_inference(
    model: Module,
    shape: Sequence[int],
    *,
    steps: int,
    trace: Trace | None = None,
    clock: Clock = time.perf_counter,
    check: Callable[[float], None] = lambda seconds: None,
) -> Result:
    """Profile forward passes in evaluation mode; parameters as in `profile_training`."""
    model.eval()
    x = np.random.default_rng(0).standard_normal(shape, np.float32)

    def step(profile: Profile) -> None:
        with profile.section("forward"), no_grad():
            model(Tensor(x))

    with profiling(clock=clock, trace=trace) as profile:
        warm_up(lambda: step(profile), model)
        return _measure(profile, step, steps, check)


def _measure(
    profile: Profile,
    step: Callable[[Profile], None],
    steps: int,
    check: Callable[[float], None],
) -> Result:
    seconds = 0.0
    for _ in range(WARM_STEPS):
        start = time.perf_counter()
        step(profile)  # outside of profile.step(): not counted
        seconds = time.perf_counter() - start
    check(seconds)
    for _ in range(steps):
        with profile.step():
            step(profile)
    return profile.result()


def needed_bytes(model: Module, shape: Sequence[int], *, training: bool) -> int:
    """Return about how much memory a step on a batch of this shape takes, weights included.

    Training keeps the output of every op until the backward pass has used it; inference keeps
    the inputs and the output of one op at a time.
    """
    graph = trace_graph(model, (1, *shape[1:]))
    size = [4 * math.prod(value.shape) for value in graph.values]
    weights = sum(p.data.nbytes for p in model.parameters())
    if training:
        return shape[0] * sum(size[step.output] for step in graph.steps) + 4 * weights
    most = max(
        (
            size[step.output]
            + sum(
                size[i] for i in step.inputs if i is not None and graph.values[i].parameter is None
            )
            for step in graph.steps
        ),
        default=0,
    )
    return shape[0] * most + weights
