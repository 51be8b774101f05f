"""8-bit arithmetic in Python integers and float32, independent of the kernels."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

F32 = np.float32


def _finish(acc: Any, scale: Any, slope: Any, zero: int, as_float: bool) -> Any:
    """Requantise sums (..., N): every operation on its own, rounded to float32."""
    assert np.abs(acc).max(initial=0) < 2**31
    y = np.multiply(acc.astype(F32), scale.astype(F32), dtype=F32)
    return _activated(y, slope, zero, as_float)


def _activated(y: Any, slope: Any, zero: int, as_float: bool = False) -> Any:
    """Apply slopes to float32 numbers (..., N), and turn them into codes."""
    negative = np.multiply(y, slope.astype(F32), dtype=F32)
    y = np.where(y > 0, y, negative)
    if as_float:
        return y
    # Exact in float64: Python's own rounding is to the nearest, and of two to the even one.
    codes = [min(255, max(0, round(float(v)) + zero)) for v in y.reshape(-1)]
    return np.array(codes, np.uint8).reshape(y.shape)


def _weights(panels: Any, k: int, n: int) -> Any:
    """Read weights (K, N) out of panels, one by one."""
    w = np.zeros((k, n), np.int64)
    for row, column in product(range(k), range(n)):
        group, place = divmod(row, 4)
        if k > 4 and group == k // 4:  # the last group: the last four numbers
            place = row - (k - 4)
        w[row, column] = panels[column // 32, group, column % 32, place]
    return w


def gemm(
    a: Any, panels: Any, bias: Any, scale: Any, slope: Any, *, zero: int, as_float: bool = False
) -> Any:
    """Multiply rows of codes with packed weights."""
    w = _weights(panels, a.shape[-1], bias.size)
    acc = a.astype(np.int64) @ w + bias.astype(np.int64)
    return _finish(acc, scale, slope, zero, as_float)


def _windows(x: Any, kernel: Any, stride: Any, pads: Any, dilation: Any, fill: int) -> Any:
    """Return every window (N, OH, OW, KH, KW, C), pixels outside filled."""
    n, h, w, c = x.shape
    kh, kw = kernel
    oh = (h + pads[0] + pads[1] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (w + pads[2] + pads[3] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    found = np.full((n, oh, ow, kh, kw, c), fill, np.int64)
    for oy, ox, p, q in product(range(oh), range(ow), range(kh), range(kw)):
        iy, ix = oy * stride[0] + p * dilation[0] - pads[0], ox * stride[1] + q * dilation[1]
        ix -= pads[2]
        if 0 <= iy < h and 0 <= ix < w:
            found[:, oy, ox, p, q] = x[:, iy, ix]
    return found


def depthwise(
    x: Any, w: Any, bias: Any, scale: Any, slope: Any, *, stride: Any, pads: Any, zero_in: int,
    zero: int,
) -> Any:  # fmt: skip
    """Sum the products of each channel's windows with its kernel."""
    windows = _windows(x, w.shape[:2], stride, pads, (1, 1), zero_in)
    acc = (windows * w.astype(np.int64)).sum(axis=(3, 4)) + bias.astype(np.int64)
    return _finish(acc, scale, slope, zero, as_float=False)


def conv2d(
    x: Any, panels: Any, bias: Any, scale: Any, slope: Any, *, kernel_size: Any, stride: Any,
    pads: Any, dilation: Any = (1, 1), zero_in: int, zero: int, as_float: bool = False,
) -> Any:  # fmt: skip
    """Multiply windows with packed weights."""
    windows = _windows(x, kernel_size, stride, pads, dilation, zero_in)
    rows = windows.reshape(*windows.shape[:3], -1)
    return gemm(rows, panels, bias, scale, slope, zero=zero, as_float=as_float)


def max_pool(x: Any, *, size: Any, stride: Any, pads: Any, ceil_mode: bool) -> Any:
    """Take the largest code of each window."""
    n, h, w, c = x.shape
    out = []
    for length, k, s, before, after in ((h, size[0], stride[0], *pads[:2]),
                                        (w, size[1], stride[1], *pads[2:])):  # fmt: skip
        spare = length + before + after - k
        count = spare // s + 1
        if ceil_mode and spare % s and count * s < length + before:
            count += 1
        out.append(count)
    y = np.zeros((n, *out, c), np.uint8)
    for oy, ox in product(*map(range, out)):
        top, left = oy * stride[0] - pads[0], ox * stride[1] - pads[2]
        window = x[:, max(top, 0) : top + size[0], max(left, 0) : left + size[1]]
        y[:, oy, ox] = window.max(axis=(1, 2))
    return y


def global_avg_pool(
    x: Any, *, scale: float, zero_in: int, zero: int, as_float: bool = False
) -> Any:
    """Sum all codes of a map, less their zero points."""
    acc = (x.astype(np.int64) - zero_in).sum(axis=(1, 2))
    factors = np.full(x.shape[3], scale, F32), np.ones(x.shape[3], F32)
    return _finish(acc, *factors, zero, as_float)


def add(
    x: Any, other: Any, slope: Any, *, scale: float, scale_other: float, zero_in: int,
    zero_other: int, zero: int,
) -> Any:  # fmt: skip
    """Add two maps of codes: two products and a sum, each rounded to float32."""
    terms = [
        np.multiply((a.astype(np.int64) - z).astype(F32), F32(s), dtype=F32)
        for a, z, s in ((x, zero_in, scale), (other, zero_other, scale_other))
    ]
    return _activated(np.add(*terms, dtype=F32), slope, zero)


def quantize(x: Any, *, scale: float, zero: int) -> Any:
    """Divide in float32 and round."""
    y = np.divide(x.astype(F32), F32(scale), dtype=F32)
    whole = [0.0 if v <= -(2**31) else 255.0 if v >= 2**31 else round(float(v)) + zero
             for v in y.reshape(-1)]  # fmt: skip
    return np.clip(whole, 0, 255).astype(np.uint8).reshape(x.shape)


def dequantize(codes: Any, *, scale: float, zero: int) -> Any:
    """Subtract the zero point and multiply, in float32."""
    return np.multiply((codes.astype(np.int64) - zero).astype(F32), F32(scale), dtype=F32)
