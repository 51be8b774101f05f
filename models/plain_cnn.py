"""QuickNet (Ghosh 2017, arXiv:1701.02291) with full 3x3 convolutions: the control of comparisons.

Everything but the convolutions is `minidnn.models.quicknet.QuickNet`'s, its arguments too: any
difference between the two in accuracy or speed is what separable convolutions cost or gain.
"""

from __future__ import annotations

import numpy as np

from minidnn.layers.conv import Conv2d
from minidnn.models.quicknet import QuickNet
from minidnn.module import Module


class PlainCNN(QuickNet):
    """QuickNet with a full convolution in every block; arguments as there.

    31,366,922 parameters by default, 8.8 times QuickNet's.
    """

    def convolution(
        self, channels: int, filters: int, bias: bool, rng: np.random.Generator
    ) -> Module:
        """Return the 3x3 convolution of one block."""
        return Conv2d(channels, filters, 3, padding="same", bias=bias, rng=rng)
