"""`Batches`: mini-batches in a repeatable order, prepared by one thread while others compute."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from minidnn.data.augment import Augment
from minidnn.data.dataset import Array, Dataset, channel_statistics
from minidnn.errors import ConfigError
from minidnn.kernels import augment as kernel

Batch = tuple[Array, Array]

# Batches prepared ahead: one to be taken at once, one in the making.
AHEAD = 2


class Batches:
    """Cut a data set into batches of normalised float32 pictures.

    The order depends on (seed, epoch) alone, the augmentation of a picture on (seed, epoch,
    its index): neither on threads, nor on where in the epoch one starts.

    Parameters
    ----------
    dataset : Dataset
    batch_size : int
    seed : int
        Of the order and the augmentation.
    augment : Augment, optional
    mean, std : ndarray, optional
        Per channel, of pixels scaled to 0..1, shape (C,). Default: the data set's own. A test
        set needs its training set's.
    shuffle : bool
        True for training; False takes the pictures as they stand.
    drop_last : bool, optional
        Leave out a last, smaller batch; default: as `shuffle`.
    prefetch : bool
        Prepare batches on a thread of their own.

    Attributes
    ----------
    mean, std : ndarray
        What the pixels are normalised by.

    Raises
    ------
    ConfigError
        If a number is out of range, or no batch can be filled.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int = 0,
        augment: Augment | None = None,
        mean: Array | None = None,
        std: Array | None = None,
        shuffle: bool = True,
        drop_last: bool | None = None,
        prefetch: bool = True,
    ) -> None:
        if batch_size < 1 or seed < 0:
            raise ConfigError(f"expected batch_size >= 1 and seed >= 0, got {batch_size}, {seed}")
        if augment is not None:
            augment.check(dataset.input_shape[:2])
        self.drop_last = shuffle if drop_last is None else drop_last
        if self.drop_last and batch_size > len(dataset):
            raise ConfigError(
                f"batch_size: expected at most the {len(dataset)} training images of "
                f"{dataset.name}, got {batch_size}"
            )
        if mean is None or std is None:
            own_mean, own_std = channel_statistics(dataset.images)
            mean, std = own_mean if mean is None else mean, own_std if std is None else std
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.augment, self.mean, self.std = augment, mean, std
        self.shuffle, self.prefetch = shuffle, prefetch

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def order(self, epoch: int) -> Array:
        """Return the indices of all pictures, int64 (N,), in the order of an epoch."""
        n = len(self.dataset)
        if not self.shuffle:
            return np.arange(n)
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(n)

    def take(self, index: Array, epoch: int = 0) -> Batch:
        """Return pictures by index as an epoch shows them: x (B, H, W, C) and labels (B,)."""
        h, w, _ = self.dataset.input_shape
        settings = self.augment or Augment(pad=0, flip="none")
        pose = settings.poses(index, seed=self.seed, epoch=epoch, size=(h, w))
        x = kernel.forward(
            self.dataset.images, index, pose, self.mean, self.std,
            fill=settings.fill, cutout=settings.cutout,
        )  # fmt: skip
        return x, self.dataset.labels[index]

    def epoch(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch from batch `start` on; closing it early is fine.

        Yields
        ------
        x : ndarray
            float32, shape (B, H, W, C).
        labels : ndarray
            int64, shape (B,).

        Raises
        ------
        ConfigError
            If `epoch` is negative, or `start` lies outside the epoch.
        """
        if epoch < 0 or not 0 <= start <= len(self):
            raise ConfigError(
                f"expected epoch >= 0 and start in 0 to {len(self)}, got {epoch} and {start}"
            )
        order, size = self.order(epoch), self.batch_size
        parts = [order[i * size : (i + 1) * size] for i in range(start, len(self))]
        return self._ahead(parts, epoch) if self.prefetch else self._plain(parts, epoch)

    def _plain(self, parts: list[Array], epoch: int) -> Generator[Batch, None, None]:
        for index in parts:
            yield self.take(index, epoch)

    def _ahead(self, parts: list[Array], epoch: int) -> Generator[Batch, None, None]:
        """Let one thread run `AHEAD` batches in front; what it raises is raised here."""
        # The thread sees the caller's context, so that `using("naive")` holds there too.
        context = contextvars.copy_context()
        worker = ThreadPoolExecutor(1, thread_name_prefix="minidnn-batches")
        waiting: deque[Future[Batch]] = deque()
        try:
            for index in parts:
                waiting.append(worker.submit(context.run, self.take, index, epoch))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            worker.shutdown(wait=True, cancel_futures=True)
