"""Pictures: data sets, splits, augmentation, batches.

>>> parts = load_splits("shapes")
>>> batches = Batches(parts.train, batch_size=64, seed=0, augment=Augment(pad=2))
>>> for x, labels in batches.epoch(0): ...
"""

from minidnn.data.augment import Augment
from minidnn.data.batches import Batches
from minidnn.data.dataset import Dataset, channel_statistics
from minidnn.data.shapes import draw_shapes
from minidnn.data.sources import load, load_splits
from minidnn.data.splits import Splits

__all__ = [
    "Augment",
    "Batches",
    "Dataset",
    "Splits",
    "channel_statistics",
    "draw_shapes",
    "load",
    "load_splits",
]
