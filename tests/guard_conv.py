"""Run convolutions of odd sizes on raw addresses, between unreadable pages.

``python -m tests.guard_conv`` dies of a segmentation fault if a kernel goes too far, and
prints how many convolutions were right otherwise. Each runs once as the cost model cuts it
and once with every zero of the padding cut away.
"""

from __future__ import annotations

import contextlib
import faulthandler
import random
from typing import Any

import numpy as np

from minidnn.kernels import conv2d
from minidnn.kernels.conv2d import axes, plan
from minidnn.kernels.windows import output_size
from tests.guarded import guarded, guarded_allocations

COUNT = 200


def settings_of(choose: random.Random) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Draw the shapes of x and w, and settings that fit them."""
    groups = choose.choice((1, 1, 1, 2))
    kernel = choose.choice((1, 2, 3, 5)), choose.choice((1, 2, 3, 5))
    x = (
        choose.choice((1, 2, 3, 17)),
        choose.randint(1, 9),
        choose.randint(1, 9),
        groups * choose.choice((3, 7, 13, 16, 19, 31, 32, 40)),
    )
    w = (*kernel, x[3] // groups, groups * choose.choice((4, 15, 16, 17, 31, 32, 33, 40)))
    dilation = choose.choice((1, 1, 2)), choose.choice((1, 1, 2))
    pads = [choose.randint(0, 3) for _ in range(4)]
    for axis in range(2):  # a window at least must fit
        lacking = dilation[axis] * (kernel[axis] - 1) + 1 - x[1 + axis] - sum(pads[2 * axis :][:2])
        pads[2 * axis + 1] += max(0, lacking)
    stride = choose.randint(1, 3), choose.randint(1, 3)
    return x, w, {"stride": stride, "pads": tuple(pads), "dilation": dilation, "groups": groups}


def forget() -> None:
    """Plan convolutions anew: the costs of cutting them have changed."""
    plan.plan_outputs.cache_clear()
    plan.plan_taps.cache_clear()


def check(x: Any, w: Any, settings: dict[str, Any], at: str, rung: str = "simd") -> None:
    """Compare the three directions with whole-array expressions in float64.

    Guarded at its "start" or "end", or not at all.
    """
    window = {key: settings[key] for key in ("stride", "pads", "dilation")}
    size = output_size(x.shape[1:3], w.shape[:2], **window)
    dy = np.random.default_rng(1).standard_normal((len(x), *size, w.shape[3]), np.float32)
    calls: tuple[tuple[Any, tuple[Any, ...], dict[str, Any]], ...] = (
        (conv2d.forward, (x, w), {}),
        (conv2d.backward_input, (dy, w), {"size": x.shape[1:3]}),
        (conv2d.backward_weight, (dy, x), {"kernel_size": w.shape[:2]}),
    )
    for ladder, arrays, more in calls:
        want = ladder["numpy"](*[a.astype(np.float64) for a in arrays], **settings, **more)
        with guarded_allocations(at) if at else contextlib.nullcontext():
            near = [guarded(a, at) if at else a for a in arrays]
            error = np.abs(ladder[rung](*near, **settings, **more) - want).max()
        assert error <= 1e-5 * max(1, np.abs(want).max()), (ladder, x.shape, w.shape, settings)


def main() -> None:
    """Check some convolutions, guarded at their end or their start."""
    faulthandler.enable()
    choose = random.Random(0)
    rng = np.random.default_rng(0)
    x, w = rng.random((1, 4, 4, 17), np.float32), rng.random((2, 2, 17, 19), np.float32)
    plain = {"stride": (1, 1), "pads": (0,) * 4, "dilation": (1, 1), "groups": 1}
    for at in ("", "end"):  # compiled before the allocations are replaced
        check(x, w, plain, at)
    costs = axes.LOOP_STEPS, axes.VISIT_STEPS, axes.PANEL_STEPS
    for i in range(COUNT):
        axes.LOOP_STEPS, axes.VISIT_STEPS, axes.PANEL_STEPS = costs if i % 2 else (0, 0, 0)
        forget()
        x_shape, w_shape, settings = settings_of(choose)
        x, w = rng.standard_normal(x_shape, np.float32), rng.standard_normal(w_shape, np.float32)
        check(x, w, settings, "start" if i % 4 == 3 else "end")
    print(COUNT)


if __name__ == "__main__":
    main()
