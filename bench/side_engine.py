"""What the sides of `bench.peers` share that run a file in an inference engine.

An engine may offer several ways to run the same network: as one request that uses all threads,
or as several at once; from one file or another. `tune` tries them in turns, in a process that
ends afterwards; the side that is timed runs the fastest.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import recipe
from bench.side import latencies, seconds, serve
from minidnn.measure import timing
from minidnn.measure.machine import affinity, peak_memory

ROUNDS = 5
AT_LEAST = 0.2  # seconds of a turn


class Way(NamedTuple):
    """How an engine runs the network: from which file, a batch in how many requests at once."""

    file: str
    requests: int = 1


class Network(NamedTuple):
    """A network that is ready to run.

    Attributes
    ----------
    infer : callable
        Number of a batch -> logits.
    threads : int
        How many the engine says it uses.
    how : str
        In a few words, for the table.
    """

    infer: Callable[[int], Any]
    threads: int
    how: str


# File, requests, batches (N, C, H, W), threads -> network.
Load = Callable[[Path, int, Sequence[Any], int], Network]
Ways = Callable[[str, int, int], list[Way]]


def nchw(images: Any) -> Any:
    """Turn (N, H, W, C) into (N, C, H, W), contiguous: what engines read from such files."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def cuts(batch: int, threads: int) -> list[int]:
    """Return into how many equal requests a batch is cut: 1, then 1, 2, 4, ... per thread."""
    found = [1]
    requests = max(threads, 2)
    while batch % requests == 0 and batch > 1:
        found.append(requests)
        requests *= 2
    return found


class Engine:
    """The jobs of such a side.

    Parameters
    ----------
    load : callable
        Makes a network from a file.
    ways : callable
        Precision, batch and threads -> the ways to try; those whose file is absent are left out.
    precision : {"float32", "int8"}
    """

    def __init__(self, load: Load, ways: Ways, precision: str) -> None:
        self.imported = peak_memory()
        self.load = load
        self.ways = ways
        self.precision = precision
        self.threads = int(os.environ["OMP_NUM_THREADS"])
        self.steps = 0

    def _draw(self, batch: int) -> list[Any]:
        self.data = recipe.pictures(batch)
        batches = [nchw(images) for images, _ in self.data.batches]
        self.data.batches.clear()
        return batches

    def tune(self, files: str, batch: int, **_: Any) -> Way:
        """Return the way whose fastest turn is the fastest."""
        ways = [
            way
            for way in self.ways(self.precision, batch, self.threads)
            if Path(files, way.file).exists()
        ]
        if len(ways) == 1:
            return ways[0]
        batches = self._draw(batch)
        infer = [
            self.load(Path(files, way.file), way.requests, batches, self.threads).infer
            for way in ways
        ]
        actions = {str(number): partial(one, 0) for number, one in enumerate(infer)}
        turns = timing.take_turns(actions, rounds=ROUNDS, at_least=AT_LEAST)
        return ways[int(min(turns, key=lambda number: min(turns[number])))]

    def first(self, files: str, batch: int, way: Sequence[Any], **_: Any) -> Any:
        """Load the network and return the first batch's logits."""
        chosen = Way(*way)
        batches = self._draw(batch)
        file = Path(files, chosen.file)
        self.network = self.load(file, chosen.requests, batches, self.threads)
        return self.run()

    def run(self) -> Any:
        """Return the logits of the next batch."""
        self.steps += 1
        return self.network.infer((self.steps - 1) % recipe.BATCHES).tolist()

    def about(self) -> dict[str, Any]:
        """Return what this side runs on, and its memory in MiB."""
        return {
            "threads": self.network.threads,
            "affinity": affinity(),
            "imported_memory": self.imported,
            "peak_memory": peak_memory(),
            "how": self.network.how,
        }


def main(load: Load, ways: Ways) -> None:
    """Answer jobs; the command line says the precision."""
    parser = argparse.ArgumentParser()
    parser.add_argument("precision", choices=["float32", "int8"])
    engine = Engine(load, ways, parser.parse_args().precision)
    serve(
        {
            "tune": engine.tune,
            "first": engine.first,
            "more": lambda steps: [engine.run() for _ in range(steps)],
            "turn": lambda at_least: seconds(engine.run, at_least),
            "latencies": lambda **pace: latencies(engine.run, **pace),
            "about": engine.about,
        }
    )
