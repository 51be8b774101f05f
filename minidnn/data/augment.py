"""`Augment`: what happens to a picture before training sees it, as plain settings."""

from __future__ import annotations

from dataclasses import dataclass

from minidnn.errors import ConfigError
from minidnn.kernels import augment as kernel
from minidnn.kernels.checks import Array
from minidnn.kernels.ladder import unknown


@dataclass(frozen=True)
class Augment:
    """Random crops, flips, shifts and cutout; the loops are in `minidnn.kernels.augment`.

    Attributes
    ----------
    pad : int
        Pad each side by this many pixels, then crop a window of the old size at random
        (He et al. 2015, section 4.2).
    pad_mode : {"reflect", "zero", "edge"}
        What the padding holds. Zeros are laid on after normalisation: the mean colour.
    flip : {"random", "alternating", "none"}
        Left to right. Alternating (Jordan 2024, section 3.6): random in the first epoch, then
        the other side each time.
    shift : float
        Shift by up to this fraction of height and width in whole pixels, edges repeated, as
        Keras' ImageDataGenerator does. It takes the place of `pad`; set one of the two.
    cutout : int
        Side of a square erased at a random place inside the picture (after DeVries and Taylor
        2017, whose squares may reach beyond it).

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.
    """

    pad: int = 4
    pad_mode: str = "reflect"
    flip: str = "random"
    shift: float = 0.0
    cutout: int = 0

    def __post_init__(self) -> None:
        if self.pad_mode not in kernel.FILLS:
            raise ConfigError(unknown("pad_mode", self.pad_mode, kernel.FILLS))
        if self.flip not in kernel.FLIPS:
            raise ConfigError(unknown("flip", self.flip, kernel.FLIPS))
        if self.pad < 0 or self.cutout < 0:
            raise ConfigError(
                f"augmentation: expected pad and cutout >= 0, got {self.pad} and {self.cutout}"
            )
        if not 0 <= self.shift < 1:
            raise ConfigError(f"augmentation: expected shift in [0, 1), got {self.shift}")
        if self.pad and self.shift:
            raise ConfigError(
                f"augmentation: pad={self.pad} and shift={self.shift} both move the picture; "
                "set one of them to 0"
            )

    @property
    def fill(self) -> str:
        """Return what stands where the moved picture leaves a gap."""
        return "edge" if self.shift else self.pad_mode

    def check(self, size: tuple[int, int]) -> None:
        """Raise ConfigError unless pictures of this height and width are large enough."""
        smallest = min(size)
        if self.pad >= smallest or self.cutout > smallest:
            raise ConfigError(
                f"augmentation: pad={self.pad} and cutout={self.cutout} do not fit pictures of "
                f"{size[0]}x{size[1]} pixels; expected pad < {smallest} and cutout <= {smallest}"
            )

    def poses(self, index: Array, *, seed: int, epoch: int, size: tuple[int, int]) -> Array:
        """Draw the pose (B, 5) of each picture; see `minidnn.kernels.augment.poses`."""
        h, w = size
        reach = (round(self.shift * h), round(self.shift * w)) if self.shift else (self.pad,) * 2
        return kernel.poses(
            index, seed=seed, epoch=epoch, size=size, reach=reach, flip=self.flip,
            cutout=self.cutout,
        )  # fmt: skip
