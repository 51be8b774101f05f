"""A training step that has been run before allocates nothing large: the arena has it all."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import numpy as np
import pytest

import minidnn
from minidnn.kernels import memory
from minidnn.models.quicknet import QuickNet

LARGE = memory.SMALLEST
IMAGES = 128  # as in training; maps of up to 51 MB


@contextmanager
def large_allocations() -> Iterator[list[str]]:
    """Yield a list that names every place inside the block that asks for `LARGE` bytes or more.

    NumPy tells `tracemalloc` of its memory. Looking at each call and return how high it rose
    since the last one finds arrays that are gone by the end, too.
    """
    found: list[str] = []
    before = 0

    def look(frame: FrameType, event: str, arg: object) -> None:
        nonlocal before
        now, peak = tracemalloc.get_traced_memory()
        if peak - before >= LARGE:
            code = frame.f_code
            found.append(f"{code.co_filename}:{frame.f_lineno} {code.co_name}: {peak - before}")
        tracemalloc.reset_peak()
        before = now

    tracemalloc.start()
    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(None)
        tracemalloc.stop()


MADE: dict[str, Callable[[], object]] = {
    "array": lambda: np.empty(LARGE, np.uint8),
    "temporary": lambda: (np.ones(LARGE // 8) + 1).sum(),
    "new_block": lambda: memory.empty((LARGE,), np.uint8),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_large_allocation_is_found(make: Callable[[], object]) -> None:
    memory.release()
    with large_allocations() as found:
        make()
    assert found


def test_small_arrays_and_blocks_used_again_are_not() -> None:
    del_me = memory.empty((LARGE,), np.uint8)
    del del_me
    with large_allocations() as found:
        kept = [np.empty(LARGE // 2, np.uint8) for _ in range(4)]
        kept.append(memory.empty((LARGE,), np.uint8))
    assert not found


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_a_step_that_was_run_before_allocates_nothing_large(fused: bool) -> None:
    rng = np.random.default_rng(0)
    net = QuickNet(rng=rng)
    x = rng.standard_normal((IMAGES, 32, 32, 3)).astype(np.float32)
    labels = rng.integers(0, 10, IMAGES)
    if fused:
        assert minidnn.fuse(net, x.shape)
    loss = minidnn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = minidnn.SGD(minidnn.decay_groups(net, 5e-4), lr=0.01, momentum=0.9, nesterov=True)

    def step() -> None:
        optimizer.zero_grad()
        loss(net(minidnn.Tensor(x)), labels).backward()
        optimizer.step()

    for _ in range(3):
        step()
    with large_allocations() as found:
        step()
        step()
    assert not found
