"""QuickNet's layer shapes as data (Ghosh 2017, arXiv:1701.02291), 32x32 input.

Sizes of one image; benches put their batch size in front.
"""

from __future__ import annotations

from typing import NamedTuple


class Map(NamedTuple):
    """A feature map: height and width, channels; how many layers of a kind meet it."""

    size: int
    channels: int
    times: int = 1


class Pointwise(NamedTuple):
    """A pointwise convolution: the map's height and width, channels in and out; how many."""

    size: int
    c_in: int
    c_out: int
    times: int = 1


IMAGE = Map(32, 3)
STEM_KERNEL, STEM_CHANNELS = 5, 64

# In order; layers of equal shape are listed once, with their number.
DEPTHWISE = (
    Map(28, 64),
    Map(28, 128, times=2),
    Map(14, 128),
    Map(14, 256, times=2),
    Map(7, 256),
    Map(7, 512, times=2),
    Map(3, 512),
    Map(3, 1024, times=2),
)
POINTWISE = (
    Pointwise(28, 64, 128),
    Pointwise(28, 128, 128, times=2),
    Pointwise(14, 128, 256),
    Pointwise(14, 256, 256, times=2),
    Pointwise(7, 256, 512),
    Pointwise(7, 512, 512, times=2),
    Pointwise(3, 512, 1024),
    Pointwise(3, 1024, 1024, times=2),
)
# Batch norm and PReLU act on these.
ACTIVATION = (
    Map(28, 64),
    Map(28, 128, times=3),
    Map(14, 256, times=3),
    Map(7, 512, times=3),
    Map(3, 1024, times=3),
)
MAX_POOL = (Map(28, 128), Map(14, 256), Map(7, 512))
GLOBAL_AVG_POOL = Map(3, 1024)
CLASSES = 10
