"""What stands around the convolutions: activations against each other, networks end to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from minidnn.fusion import fuse
from minidnn.kernels.ladder import load_all
from minidnn.losses import cross_entropy
from minidnn.measure import timing
from minidnn.measure.ratios import Ratio, speed_ratio
from minidnn.measure.separable import FASTEST, PASSES, Layer, Times
from minidnn.measure.shapes import CLASSES, Map
from minidnn.measure.summary import summarize
from minidnn.models import build
from minidnn.optim import SGD
from minidnn.tensor import Tensor, no_grad
from minidnn.warmup import warm_up

# In tables -> kernel file, arguments after x (forward) or dy and x (backward).
ACTIVATIONS = ("relu", "leaky_relu", "prelu")
SLOPE = 0.1


class Activation(NamedTuple):
    """One pass of the activation kernels at one map.

    Attributes
    ----------
    seconds : dict
        Kernel -> seconds per image.
    gbs : dict
        Kernel -> 10^9 least bytes per second.
    prelu_over_leaky : Ratio
        PReLU's time over leaky ReLU's.
    of_separable, of_full : float or None
        PReLU's time over that of the convolution before it, None where none was measured.
    """

    seconds: dict[str, float]
    gbs: dict[str, float]
    prelu_over_leaky: Ratio
    of_separable: float | None
    of_full: float | None


def activations(
    at: Map, batch: int, found: Mapping[Layer, Times], *, rounds: int
) -> dict[str, Activation]:
    """Time ReLU, leaky ReLU and PReLU in turns, forward and backward.

    Parameters
    ----------
    at : Map
    batch : int
    found : mapping
        The convolutions' times, for the shares.
    rounds : int
    """
    rng = np.random.default_rng(3)
    shape = (batch, at.size, at.size, at.channels)
    dy, x = (rng.standard_normal(shape, np.float32) for _ in range(2))
    slope = np.full(at.channels, SLOPE, np.float32)
    own = [layer for layer in found if (layer.size, layer.c_out) == (at.size, at.channels)]
    results = {}
    for name, arrays in zip(PASSES, ((x,), (dy, x)), strict=True):
        actions = {kernel: _activation(kernel, name, arrays, slope) for kernel in ACTIVATIONS}
        turns = timing.take_turns(actions, rounds=rounds)
        seconds = {k: timing.summarise(turns[k]).seconds / batch for k in ACTIVATIONS}
        moved = (len(arrays) + 1) * x.nbytes / batch  # slopes are few
        before = found[own[-1]][FASTEST][name] if own else None
        results[name] = Activation(
            seconds,
            {k: moved / s / 1e9 for k, s in seconds.items()},
            speed_ratio(turns["leaky_relu"], turns["prelu"]),
            seconds["prelu"] / before.separable if before else None,
            seconds["prelu"] / before.full if before else None,
        )
    return results


def _activation(kernel: str, name: str, arrays: Any, slope: Any) -> Callable[[], object]:
    ladder: Any = load_all()[f"{kernel}.{name}"]
    if kernel == "prelu":
        return lambda: ladder(*arrays, slope)
    settings = {"slope": SLOPE} if kernel == "leaky_relu" else {}
    return lambda: ladder(*arrays, **settings)


# --- networks ------------------------------------------------------------------------------

NETWORKS = ("quicknet", "plain_cnn")
MODES = ("training", "inference")
# For the classroom: one block of the same kind.
SMALL: dict[str, Any] = {"stem": 5, "stages": (7,), "blocks": 1}


class EndToEnd(NamedTuple):
    """QuickNet against the same network with full convolutions, one mode.

    Attributes
    ----------
    rates : dict
        Network -> images per second.
    ratio : Ratio
        QuickNet's time over plain_cnn's.
    predicted : float
        QuickNet's multiply-accumulates over plain_cnn's.
    """

    rates: dict[str, float]
    ratio: Ratio
    predicted: float


def end_to_end(batch: int, *, small: bool, rounds: int) -> dict[str, EndToEnd]:
    """Time a step of training (fused, SGD with momentum) and a forward pass of both networks."""
    shape = (10, 10, 3) if small else (32, 32, 3)
    arguments = SMALL if small else {}
    rng = np.random.default_rng(3)
    images = rng.standard_normal((batch, *shape), np.float32)
    labels = rng.integers(0, CLASSES, batch)
    macs = {}
    results = {}
    for mode in MODES:
        actions = {}
        for name in NETWORKS:
            net = build(name, num_classes=CLASSES, input_shape=shape, rng=rng, **arguments)
            macs[name] = summarize(net, shape).macs
            start = _training if mode == "training" else _inference
            actions[name] = start(net, images, labels)
        turns = timing.take_turns(actions, rounds=rounds, at_least=0.05)
        rates = {name: batch / timing.summarise(turns[name]).seconds for name in NETWORKS}
        ratio = speed_ratio(turns["plain_cnn"], turns["quicknet"])
        results[mode] = EndToEnd(rates, ratio, macs["quicknet"] / macs["plain_cnn"])
    return results


def _training(net: Any, images: Any, labels: Any) -> Callable[[], object]:
    fuse(net, (2, *images.shape[1:]))
    optimizer = SGD(list(net.parameters()), 1e-4, 0.9)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(net(Tensor(images)), labels).backward()
        optimizer.step()

    warm_up(step, net, optimizer)
    return step


def _inference(net: Any, images: Any, labels: Any) -> Callable[[], object]:
    del labels
    net.eval()

    def step() -> None:
        with no_grad():
            net(Tensor(images))

    warm_up(step, net)
    return step
