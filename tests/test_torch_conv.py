"""Random configurations of convolutions and Linear, forward and all gradients, against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidnn import (
    Conv2d,
    DepthwiseConv2d,
    Flatten,
    Linear,
    Module,
    PointwiseConv2d,
    SeparableConv2d,
    Sequential,
    Tensor,
)
from tests.closeness import assert_close

torch = pytest.importorskip("torch", reason="needs the extra: python -m pip install '.[oracle]'")

SEEDS = range(14)


def _tensor(a: Any) -> Any:
    return torch.tensor(np.asarray(a, np.float64), requires_grad=True)


def _nchw(x: Any) -> Any:
    return x.permute(0, 3, 1, 2)


def _conv(x: Any, w: Any, bias: Any, pads: Any, **settings: Any) -> Any:
    """Torch's convolution on NHWC arrays and (KH, KW, Cin/groups, Cout) weights."""
    top, bottom, left, right = pads
    padded = torch.nn.functional.pad(_nchw(x), (left, right, top, bottom))
    y = torch.nn.functional.conv2d(padded, w.permute(3, 2, 0, 1), bias, **settings)
    return y.permute(0, 2, 3, 1)


def _same(size: tuple[int, int], kernel: Any, stride: Any, dilation: Any) -> tuple[int, ...]:
    """Keras's rule, written by walking: the fewest zeros for ceil(size / stride) windows."""
    pads: list[int] = []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        last = max(range(0, n, s))  # where the last window starts, were it not for the zeros
        total = max(0, last + d * (k - 1) + 1 - n)
        pads += [total // 2, (total + 1) // 2]
    return tuple(pads)


def _compare(layer: Module, x: Any, reference: Any, terms: int) -> None:
    """Compare output, input gradient and parameter gradients, in float64 and in float32.

    `reference(x, *parameters)` computes with torch; the parameters come in order of declaration.
    """
    rng = np.random.default_rng(5)
    for p in layer.parameters():  # biases start at zero, which would hide them
        p.data[...] = rng.standard_normal(p.shape)
    for dtype in (np.float32, np.float64):
        layer.astype(dtype)
        rounded = x.astype(dtype)
        theirs = [_tensor(rounded), *(_tensor(p.data) for p in layer.parameters())]
        want = reference(*theirs)
        ours = Tensor(rounded, requires_grad=True)
        got = layer(ours)
        dy = rng.standard_normal(got.shape).astype(dtype)
        got.backward(dy)
        want.backward(torch.tensor(dy.astype(np.float64)))
        pairs = [("y", got.data, want), ("dx", ours.grad, theirs[0].grad)]
        for (name, p), t in zip(layer.named_parameters(), theirs[1:], strict=True):
            pairs.append((f"gradient of {name}", p.grad, t.grad))
        for what, a, b in pairs:
            assert a is not None
            assert_close(a, b.detach().numpy(), terms=terms, dtype=dtype, what=what)


def _draw(rng: np.random.Generator) -> dict[str, Any]:
    """Draw sizes at which a window always fits."""
    kernel = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
    stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    size = (int(rng.integers(9, 14)), int(rng.integers(9, 14)))
    choice = rng.integers(3)
    padding: Any = ("same", "valid", (int(rng.integers(0, 4)), int(rng.integers(0, 4))))[choice]
    return {
        "n": int(rng.integers(1, 4)),
        "size": size,
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
    }


def _pads(draw: dict[str, Any], dilation: tuple[int, int] = (1, 1)) -> tuple[int, ...]:
    if draw["padding"] == "same":
        return _same(draw["size"], draw["kernel_size"], draw["stride"], dilation)
    if draw["padding"] == "valid":
        return 0, 0, 0, 0
    h, w = draw["padding"]
    return h, h, w, w


@pytest.mark.parametrize("seed", SEEDS)
def test_conv2d(seed: int) -> None:
    rng = np.random.default_rng(seed)
    draw = _draw(rng)
    groups = int(rng.choice([1, 1, 2, 3]))
    cin, cout = groups * int(rng.integers(1, 6)), groups * int(rng.integers(1, 6))
    dilation = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    layer = Conv2d(
        cin,
        cout,
        draw["kernel_size"],
        stride=draw["stride"],
        padding=draw["padding"],
        dilation=dilation,
        groups=groups,
        bias=bool(seed % 2),
    )
    pads = _pads(draw, dilation)

    def reference(x: Any, w: Any, b: Any = None) -> Any:
        return _conv(x, w, b, pads, stride=draw["stride"], dilation=dilation, groups=groups)

    x = rng.standard_normal((draw["n"], *draw["size"], cin))
    _compare(layer, x, reference, terms=draw["n"] * 14 * 14)


@pytest.mark.parametrize("seed", SEEDS)
def test_depthwise(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    draw = _draw(rng)
    channels, multiplier = int(rng.choice([1, 3, 17])), int(rng.choice([1, 1, 2]))
    layer = DepthwiseConv2d(
        channels,
        draw["kernel_size"],
        stride=draw["stride"],
        padding=draw["padding"],
        multiplier=multiplier,
        bias=bool(seed % 2),
    )

    def reference(x: Any, w: Any, b: Any = None) -> Any:
        return _conv(x, w[:, :, None], b, _pads(draw), stride=draw["stride"], groups=channels)

    x = rng.standard_normal((draw["n"], *draw["size"], channels))
    _compare(layer, x, reference, terms=draw["n"] * 14 * 14)


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_separable(seed: int) -> None:
    rng = np.random.default_rng(200 + seed)
    draw = _draw(rng)
    layer = SeparableConv2d(
        5,
        7,
        draw["kernel_size"],
        stride=draw["stride"],
        padding=draw["padding"],
        bias=bool(seed % 2),
    )

    def reference(x: Any, deep: Any, point: Any, b: Any = None) -> Any:
        y = _conv(x, deep[:, :, None], None, _pads(draw), stride=draw["stride"], groups=5)
        return y @ point if b is None else y @ point + b

    x = rng.standard_normal((draw["n"], *draw["size"], 5))
    _compare(layer, x, reference, terms=draw["n"] * 14 * 14 * 7)


@pytest.mark.parametrize(("cin", "cout", "bias"), [(1, 1, True), (7, 33, False), (17, 5, True)])
def test_pointwise(cin: int, cout: int, bias: bool) -> None:
    def reference(x: Any, w: Any, b: Any = None) -> Any:
        return _conv(x, w[None, None], b, (0, 0, 0, 0))

    x = np.random.default_rng(cin).standard_normal((2, 3, 5, cin))
    _compare(PointwiseConv2d(cin, cout, bias=bias), x, reference, terms=33)


@pytest.mark.parametrize(("lead", "bias"), [((1,), True), ((33,), False), ((2, 5), True)])
def test_linear(lead: tuple[int, ...], bias: bool) -> None:
    def reference(x: Any, w: Any, b: Any = None) -> Any:
        return torch.nn.functional.linear(x, w.T, b)

    x = np.random.default_rng(3).standard_normal((*lead, 17))
    _compare(Linear(17, 10, bias=bias), x, reference, terms=33)


def test_flatten_then_linear_has_torchs_rows_in_channels_last_order() -> None:
    def reference(x: Any, w: Any, b: Any) -> Any:
        rows = w.reshape(3, 4, 5, 6).permute(2, 0, 1, 3).reshape(60, 6)  # HWC -> CHW
        return torch.nn.functional.linear(torch.flatten(_nchw(x), 1), rows.T, b)

    x = np.random.default_rng(4).standard_normal((2, 3, 4, 5))
    _compare(Sequential(Flatten(), Linear(60, 6)), x, reference, terms=60)
