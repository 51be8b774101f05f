"""Ctrl-C and SIGTERM: the first one asks the run to stop after its step, the second ends it."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

ASKED = b"\nminidnn: finishing this step, then saving; interrupt again to stop at once\n"


class StopOnSignal:
    """Inside the ``with`` block, calling it tells whether a signal asked the run to stop."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.asked

    def __enter__(self) -> StopOnSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        os.write(2, ASKED)  # print() could be in the middle of something when the signal comes
