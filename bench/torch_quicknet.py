"""QuickNet as a PyTorch user would write it; parameters bear the names of minidnn's."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from bench.shapes import CLASSES, IMAGE, POINTWISE, STEM_CHANNELS, STEM_KERNEL

BLOCKS = 3


class _Separable(nn.Sequential):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False)
        self.pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)


def _normed(conv: nn.Module, filters: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(conv=conv, norm=nn.BatchNorm2d(filters), act=nn.PReLU(filters))
    )


class TorchQuickNet(nn.Sequential):
    """The default reconstruction without dropout, so that two libraries can be held equal."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Conv2d(IMAGE.channels, STEM_CHANNELS, STEM_KERNEL, bias=False)
        parts: OrderedDict[str, nn.Module] = OrderedDict(stem=_normed(stem, STEM_CHANNELS))
        channels, stages = STEM_CHANNELS, sorted({p.c_out for p in POINTWISE})
        for stage, filters in enumerate(stages, 1):
            for block in range(1, BLOCKS + 1):
                parts[f"s{stage}_{block}"] = _normed(_Separable(channels, filters), filters)
                channels = filters
            if filters != stages[-1]:
                parts[f"pool{stage}"] = nn.MaxPool2d(2)
        self.features = nn.Sequential(parts)
        self.head = nn.Sequential(
            OrderedDict(
                pool=nn.AdaptiveAvgPool2d(1),
                flat=nn.Flatten(),
                linear=nn.Linear(channels, CLASSES),
            )
        )
