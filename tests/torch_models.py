"""The same networks in PyTorch, with the same names, as oracles; imports torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn


def separable(channels: int, filters: int) -> Any:
    """3x3 depthwise, then 1x1."""
    return nn.Sequential(
        OrderedDict(
            depthwise=nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            pointwise=nn.Conv2d(channels, filters, 1, bias=False),
        )
    )


def full(channels: int, filters: int) -> Any:
    """3x3 over all channels."""
    return nn.Conv2d(channels, filters, 3, padding=1, bias=False)


def quicknet(
    stem: int = 64,
    stages: Sequence[int] = (128, 256, 512, 1024),
    blocks: int = 3,
    convolution: Callable[[int, int], Any] = separable,
) -> Any:
    """QuickNet without dropout."""

    def normed(conv: Any, filters: int) -> Any:
        return nn.Sequential(
            OrderedDict(conv=conv, norm=nn.BatchNorm2d(filters), act=nn.PReLU(filters))
        )

    parts = OrderedDict(stem=normed(nn.Conv2d(3, stem, 5, bias=False), stem))
    channels = stem
    for stage, filters in enumerate(stages, 1):
        for block in range(1, blocks + 1):
            parts[f"s{stage}_{block}"] = normed(convolution(channels, filters), filters)
            channels = filters
        if stage < len(stages):
            parts[f"pool{stage}"] = nn.MaxPool2d(2)
    linear = OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten())
    head = nn.Sequential(OrderedDict(**linear, linear=nn.Linear(channels, 10)))
    return nn.Sequential(OrderedDict(features=nn.Sequential(parts), head=head))


def plain_cnn(**arguments: Any) -> Any:
    """QuickNet with full convolutions in place of separable ones; arguments as there."""
    return quicknet(convolution=full, **arguments)


def nchw(x: Any) -> Any:
    """Turn an NHWC array into an NCHW tensor."""
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
