"""Whole training against PyTorch: ``python -m bench.peers train [--json]``.

QuickNet, batch 128, SGD with Nesterov momentum, PyTorch eager in channels_last. Both sides
start from the same weights and must compute the same losses before anything is timed. Then
they take turns (see `bench.duel`); the result is the median over rounds of the ratio of
images per second, minidnn / PyTorch, with the range of the rounds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from bench.duel import Side, default_threads, duel, surroundings

SAME = 1e-3  # relative: float32 rounding grows from step to step
STEPS = 3


def check_same(ours: list[float], theirs: list[float]) -> None:
    """Raise unless both sides computed the same losses."""
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if not abs(a - b) <= SAME * abs(b):
            raise SystemExit(
                f"the two sides do not train the same network: loss {a} against {b} in step {step}"
            )


def train(batch: int, rounds: int, threads: int) -> dict[str, Any]:
    """Time training steps of both sides in turns.

    Returns
    -------
    dict
        ``train_ratio`` first: images per second, minidnn / PyTorch.
    """
    with tempfile.TemporaryDirectory() as folder:
        weights = str(Path(folder) / "quicknet.safetensors")
        with (
            Side("bench.side_minidnn", threads) as ours,
            Side("bench.side_torch", threads) as theirs,
        ):
            ours.ask("save", weights=weights)
            losses = {
                "minidnn": ours.ask("prepare", batch=batch, steps=STEPS),
                "torch": theirs.ask("prepare", weights=weights, batch=batch, steps=STEPS),
            }
            check_same(losses["minidnn"], losses["torch"])
            result = duel(ours, theirs, "train", rounds=rounds, steps=STEPS)
            about = surroundings(threads, {side.name: side.ask("about") for side in (ours, theirs)})
    return {
        "train_ratio": round(1 / result.ratio, 3),
        "train_ratio_low": round(1 / result.high, 3),
        "train_ratio_high": round(1 / result.low, 3),
        "minidnn_images_per_second": round(batch / result.ours, 1),
        "torch_images_per_second": round(batch / result.theirs, 1),
        "batch": batch,
        "rounds": rounds,
        "losses": losses,
        **about,
    }


def main() -> None:
    """Run one comparison and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("what", choices=["train"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7, help="at least 5")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args()
    if args.rounds < 5:
        parser.error("--rounds: a median with its spread needs at least 5")
    found = train(args.batch, args.rounds, args.threads)
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f"{name:<28}{value}")


if __name__ == "__main__":
    main()
