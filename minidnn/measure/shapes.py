"""QuickNet's layer shapes as data (Ghosh 2017, arXiv:1701.02291), 32x32 input.

Sizes of one image; whoever measures puts a batch size in front.
"""

from __future__ import annotations

from typing import NamedTuple

from minidnn.errors import ConfigError
from minidnn.kernels.ladder import unknown


class Map(NamedTuple):
    """A feature map: height and width, channels; how many layers of a kind meet it."""

    size: int
    channels: int
    times: int = 1

    @property
    def label(self) -> str:
        """Name in tables, such as 28x28x128."""
        return f"{self.size}x{self.size}x{self.channels}"


class Pointwise(NamedTuple):
    """A pointwise convolution: the map's height and width, channels in and out; how many."""

    size: int
    c_in: int
    c_out: int
    times: int = 1

    @property
    def label(self) -> str:
        """Name in tables, such as 28x28x64->128."""
        return f"{self.size}x{self.size}x{self.c_in}->{self.c_out}"


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
# Full 3x3 convolutions in their place, as plain_cnn has them: those that widen, one per stage.
FULL = POINTWISE[::2]
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
PARAMETERS = 3_557_322


class Shapes(NamedTuple):
    """What kernels meet in a network, or in a part of it; the names are those above."""

    image: Map
    stem_channels: int
    depthwise: tuple[Map, ...]
    pointwise: tuple[Pointwise, ...]
    full: tuple[Pointwise, ...]
    activation: tuple[Map, ...]
    max_pool: tuple[Map, ...]
    global_avg_pool: Map
    parameters: int


QUICKNET = Shapes(
    IMAGE,
    STEM_CHANNELS,
    DEPTHWISE,
    POINTWISE,
    FULL,
    ACTIVATION,
    MAX_POOL,
    GLOBAL_AVG_POOL,
    PARAMETERS,
)
# The widest layer of each of the four stages.
STAGES = QUICKNET._replace(
    depthwise=DEPTHWISE[1::2], pointwise=POINTWISE[1::2], activation=ACTIVATION[1:]
)
# Small enough for loops that no compiler has touched.
CLASSROOM = Shapes(
    Map(9, 3),
    4,
    (Map(6, 5),),
    (Pointwise(6, 5, 7),),
    (Pointwise(6, 5, 7),),
    (Map(6, 5),),
    (Map(6, 5),),
    Map(3, 6),
    101,
)
SIZES = {"classroom": CLASSROOM, "stages": STAGES, "full": QUICKNET}


def shapes_of(size: str) -> Shapes:
    """Return the shapes of a size.

    Raises
    ------
    ConfigError
        If there is no such size; the nearest name is given.
    """
    if size not in SIZES:
        raise ConfigError(unknown("size", size, SIZES))
    return SIZES[size]


def images_of(batch: int | None, usual: int) -> int:
    """Return how many images to measure on: those asked for, else the usual number.

    Raises
    ------
    ConfigError
        If that is below 1.
    """
    if batch is None:
        return usual
    if batch < 1:
        raise ConfigError(f"batch: expected at least 1, got {batch}")
    return batch
