"""Run Winograd's tiles on maps of odd sizes, between unreadable pages.

``python -m tests.guard_winograd`` dies of a segmentation fault if a kernel goes too far, and
prints how many convolutions were right otherwise.
"""

from __future__ import annotations

import faulthandler
import random
from typing import Any

import numpy as np

from tests.guard_conv import check

COUNT = 100


def main() -> None:
    """Check some convolutions, guarded at their end or their start."""
    faulthandler.enable()
    choose, rng = random.Random(0), np.random.default_rng(0)
    for i in range(-2, COUNT):
        pads = [choose.randint(0, 3) for _ in range(4)]
        height, width = (choose.randint(1, 9) for _ in range(2))
        pads[1] += max(0, 3 - height - sum(pads[:2]))  # a window at least must fit
        pads[3] += max(0, 3 - width - sum(pads[2:]))
        cin, cout = (choose.choice((1, 3, 15, 16, 17, 32, 33, 49)) for _ in range(2))
        x = rng.standard_normal((choose.choice((1, 2, 3)), height, width, cin), np.float32)
        w = rng.standard_normal((3, 3, cin, cout), np.float32)
        settings: dict[str, Any] = {
            "stride": (1, 1), "pads": tuple(pads), "dilation": (1, 1), "groups": 1
        }  # fmt: skip
        # Compiled before the allocations are replaced.
        check(x, w, settings, "" if i == -2 else ("end", "start")[i % 2], "winograd")
    print(COUNT)


if __name__ == "__main__":
    main()
