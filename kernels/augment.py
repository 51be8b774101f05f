"""Augment: bytes in, crops, flips, cutout and normalised floats out, in one pass.

| rung  | the one idea                                                                   |
|-------|--------------------------------------------------------------------------------|
| naive | every output value asks where it comes from, then subtracts and divides        |
| numpy | index arrays for whole batches; no loop, several passes                        |
| table | where rows and columns come from is asked once; a byte has 256 floats, so look |
|       | the normalised value up                                                        |

`poses` draws what happens to each picture, `forward` does it. All numbers come from
(seed, epoch, index of the picture in its data set), so neither the order of batches nor
threads matter. Everything here is serial and releases the GIL: it runs on the one thread
that prepares batches while the others train.

A pose is five integers: (dy, dx, flip, cut_y, cut_x). Output pixel (y, x) comes from
(y + dy, x' + dx), where x' counts from the right if `flip`; what lies outside the picture is
filled. Then the square of size `cutout` whose corner is (cut_y, cut_x) is erased.
Crops follow He et al. 2015 (section 4.2), cutout DeVries and Taylor 2017, alternating flips
Jordan 2024 (section 3.6), shifts Keras' `ImageDataGenerator` (whole pixels, edges repeated).
"""

from __future__ import annotations

import numpy as np

from .checks import Array, DTypeError, InputError, LayoutError, ShapeError, check_array, describe
from .jit import kernel
from .ladder import Ladder, unknown
from .memory import empty
from .rng import bits, uniform

FILLS = {"zero": 0, "reflect": 1, "edge": 2}
FLIPS = {"none": 0, "random": 1, "alternating": 2}


def poses(
    index: Array,
    *,
    seed: int,
    epoch: int,
    size: tuple[int, int],
    reach: tuple[int, int] = (0, 0),
    flip: str = "none",
    cutout: int = 0,
) -> Array:
    """Draw one pose per picture.

    Parameters
    ----------
    index : ndarray
        int64, shape (B,): which pictures of the data set.
    seed, epoch : int
    size : tuple of int
        Height and width of a picture.
    reach : tuple of int
        Largest vertical and horizontal shift, in pixels.
    flip : {"none", "random", "alternating"}
        Alternating: random in epoch 0, then turned over in each epoch, so that every picture is
        seen from both sides in any two epochs.
    cutout : int
        Side of the erased square; its corner is drawn so that all of it lies inside.

    Returns
    -------
    ndarray
        int64, shape (B, 5).

    Raises
    ------
    InputError
        If `flip` is unknown, or the erased square is larger than the picture.
    """
    if flip not in FLIPS:
        raise InputError(unknown("flip", flip, FLIPS))
    if not 0 <= cutout <= min(size):
        raise InputError(f"cutout: expected 0 to {min(size)} for pictures of {size}, got {cutout}")
    pose = np.zeros((len(index), 5), np.int64)
    poses_loop(index, seed, epoch, *reach, FLIPS[flip], size[0] - cutout, size[1] - cutout, pose)
    return pose


@kernel
def poses_loop(
    index: Array,
    seed: int,
    epoch: int,
    reach_y: int,
    reach_x: int,
    flip: int,
    room_y: int,
    room_x: int,
    pose: Array,
) -> None:
    """Index (B,) -> pose (B, 5)."""
    for i in range(index.size):
        key = bits(bits(seed, epoch), index[i])
        pose[i, 0] = int(uniform(key, 0) * (2 * reach_y + 1)) - reach_y
        pose[i, 1] = int(uniform(key, 1) * (2 * reach_x + 1)) - reach_x
        if flip == 1:
            pose[i, 2] = uniform(key, 2) < 0.5
        elif flip == 2:
            first = uniform(bits(bits(seed, 0), index[i]), 2) < 0.5
            pose[i, 2] = first != (epoch % 2 == 1)
        pose[i, 3] = int(uniform(key, 3) * (room_y + 1))
        pose[i, 4] = int(uniform(key, 4) * (room_x + 1))


def _check(
    images: Array,
    index: Array,
    pose: Array,
    mean: Array,
    std: Array,
    *,
    fill: str = "zero",
    cutout: int = 0,
) -> None:
    """Raise unless the arguments of `forward` fit together."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise DTypeError(f"images: expected a uint8 array, got {describe(images)}")
    if images.ndim != 4:
        raise ShapeError(f"images: expected shape (N, H, W, C), got {images.shape}")
    if not images.flags.c_contiguous:
        raise LayoutError("images: expected a C-contiguous array; use np.ascontiguousarray(images)")
    for name, a, shape in (("index", index, index.shape[:1]), ("pose", pose, (index.size, 5))):
        if a.dtype != np.int64:
            raise DTypeError(f"{name}: expected int64, got {a.dtype}")
        if a.shape != shape:
            raise ShapeError(f"{name}: expected shape {shape}, got {a.shape}")
    check_array("mean", mean, images.shape[3:])
    check_array("std", std, images.shape[3:], like=mean)
    if not np.all(std > 0):
        raise InputError(f"std: expected numbers above 0, got {std}")
    if index.size and not (index.min() >= 0 and index.max() < len(images)):
        raise InputError(
            f"index: expected 0 to {len(images) - 1}, got {index.min()} to {index.max()}"
        )
    if fill not in FILLS:
        raise InputError(unknown("fill", fill, FILLS))
    if cutout < 0:
        raise InputError(f"cutout: expected 0 or more, got {cutout}")
    for axis in (0, 1):
        size, furthest = images.shape[1 + axis], np.abs(pose[:, axis]).max(initial=0)
        if furthest >= size:
            raise InputError(
                f"pose: expected shifts of less than the picture's {size} pixels, got {furthest}"
            )


@kernel
def source(position: int, size: int, fill: int) -> int:
    """Return which pixel of an axis stands at a position that may lie outside; -1 for none."""
    if 0 <= position < size:
        return position
    if fill == 0:
        return -1
    if fill == 2:
        return min(max(position, 0), size - 1)
    return -position if position < 0 else 2 * (size - 1) - position


def forward_naive(
    images: Array,
    index: Array,
    pose: Array,
    mean: Array,
    std: Array,
    *,
    fill: str = "zero",
    cutout: int = 0,
) -> Array:
    """Ask for every output value where it comes from; one subtraction and one division each."""
    y = np.empty((index.size, *images.shape[1:]), mean.dtype)
    naive_loop(images, index, pose, mean, std, FILLS[fill], cutout, y)
    return y


@kernel
def naive_loop(
    images: Array,
    index: Array,
    pose: Array,
    mean: Array,
    std: Array,
    fill: int,
    cutout: int,
    out: Array,
) -> None:
    """Images (N, H, W, C), index (B,), pose (B, 5) -> out (B, H, W, C)."""
    batch, height, width, channels = out.shape
    for i in range(batch):
        dy, dx, flip, cut_y, cut_x = pose[i]
        for y in range(height):
            for x in range(width):
                from_y = source(y + dy, height, fill)
                from_x = source((width - 1 - x if flip else x) + dx, width, fill)
                cut = cut_y <= y < cut_y + cutout and cut_x <= x < cut_x + cutout
                for c in range(channels):
                    if cut or from_y < 0 or from_x < 0:
                        out[i, y, x, c] = 0
                    else:
                        value = images[index[i], from_y, from_x, c]
                        out[i, y, x, c] = (value / 255 - mean[c]) / std[c]


def _sources_numpy(positions: Array, size: int, fill: str) -> tuple[Array, Array]:
    """Which pixel stands at each position, and whether there is one."""
    inside = (positions >= 0) & (positions < size)
    if fill == "reflect":
        mirrored = np.abs(positions)
        return np.minimum(mirrored, 2 * (size - 1) - mirrored), np.ones_like(inside)
    return np.clip(positions, 0, size - 1), inside | (fill == "edge")


def forward_numpy(
    images: Array,
    index: Array,
    pose: Array,
    mean: Array,
    std: Array,
    *,
    fill: str = "zero",
    cutout: int = 0,
) -> Array:
    """Whole batches at a time: index arrays say where each row and column comes from."""
    _, height, width, _ = images.shape
    dy, dx, flip, cut_y, cut_x = (column[:, None] for column in pose.T)
    ys, xs = np.arange(height)[None], np.arange(width)[None]
    rows, has_row = _sources_numpy(ys + dy, height, fill)
    columns, has_column = _sources_numpy(np.where(flip, width - 1 - xs, xs) + dx, width, fill)
    picked = images[index[:, None, None], rows[:, :, None], columns[:, None, :]]
    cut_rows = (ys >= cut_y) & (ys < cut_y + cutout)
    cut_columns = (xs >= cut_x) & (xs < cut_x + cutout)
    shown = has_row[:, :, None] & has_column[:, None, :]
    shown &= ~(cut_rows[:, :, None] & cut_columns[:, None, :])
    y: Array = (picked / mean.dtype.type(255) - mean) / std
    y[~shown] = 0
    return y


def forward_table(
    images: Array,
    index: Array,
    pose: Array,
    mean: Array,
    std: Array,
    *,
    fill: str = "zero",
    cutout: int = 0,
) -> Array:
    """Look each byte's float up in a table per channel; ask about rows and columns once."""
    values = np.arange(256, dtype=mean.dtype)[:, None] / mean.dtype.type(255)
    table = np.ascontiguousarray(((values - mean) / std).T)
    out = empty((index.size, *images.shape[1:]), mean.dtype)
    columns = np.empty(images.shape[2], np.int64)
    table_loop(images, index, pose, table, FILLS[fill], cutout, columns, out)
    return out


@kernel
def table_loop(
    images: Array,
    index: Array,
    pose: Array,
    table: Array,
    fill: int,
    cutout: int,
    columns: Array,
    out: Array,
) -> None:
    """Images (N, H, W, C), table (C, 256) -> out (B, H, W, C); `columns` (W,) is scratch."""
    batch, height, width, channels = out.shape
    for i in range(batch):
        dy, dx, flip, cut_y, cut_x = pose[i]
        picture = images[index[i]]
        for x in range(width):
            columns[x] = source((width - 1 - x if flip else x) + dx, width, fill)
        for y in range(height):
            from_y = source(y + dy, height, fill)
            row = out[i, y]
            if from_y < 0:
                row[:] = 0
                continue
            from_row = picture[from_y]
            cut = cut_y <= y < cut_y + cutout
            for x in range(width):
                from_x = columns[x]
                if from_x < 0 or (cut and cut_x <= x < cut_x + cutout):
                    row[x] = 0
                else:
                    pixel, from_pixel = row[x], from_row[from_x]
                    for c in range(channels):
                        pixel[c] = table[c, from_pixel[c]]


forward = Ladder(
    "augment.forward",
    check=_check,
    naive=forward_naive,
    numpy=forward_numpy,
    table=forward_table,
)
