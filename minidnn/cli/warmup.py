"""``minidnn warmup``: compile what a network needs, before it is needed."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from minidnn.cli.session import add_threads, set_threads

if TYPE_CHECKING:
    from minidnn.cli.compiling import Watch
    from minidnn.kernels.ahead import Call

NAME = "warmup"
HELP = "compile the kernels a network needs into the disk cache, saying which"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", nargs="?", default="quicknet", metavar="MODEL")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N")
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Run one training step and one evaluation on random pictures, and tell what compiled."""
    set_threads(args.threads)
    from minidnn.cli.compiling import Compiled, Watch, from_cache
    from minidnn.kernels.cache import CACHE_DIR

    def tell(compiled: Compiled) -> None:
        print(f"  {compiled.seconds:6.2f} s  {compiled.name}", flush=True)

    start = time.perf_counter()
    with Watch(tell) as watch:
        _train_once(args.model, args.batch_size, watch)
    loaded = max(0, len(from_cache()) - len(watch.done))
    print(
        f"{args.model}: {len(watch.done)} kernels compiled in {watch.seconds:.1f} s of work, "
        f"{loaded} loaded from the cache; {time.perf_counter() - start:.1f} s in all"
    )
    print(f"cache: {CACHE_DIR}")
    return 0


def _train_once(name: str, batch_size: int, watch: Watch) -> None:
    import numpy as np

    from minidnn.cli.session import build_model
    from minidnn.config import resolve
    from minidnn.data import Augment, Batches, draw_shapes
    from minidnn.evaluation import evaluate
    from minidnn.fusion import fuse
    from minidnn.losses import cross_entropy
    from minidnn.rules import make_optimizer
    from minidnn.tensor import Tensor
    from minidnn.warmup import warm_up

    config = resolve({"model": name, "batch_size": batch_size})
    pictures = draw_shapes("train", count=batch_size)
    model = build_model(config, len(pictures.classes), pictures.input_shape)
    fuse(model, (batch_size, *pictures.input_shape))
    optimizer = make_optimizer(config, model)
    batches = Batches(pictures, batch_size=batch_size, augment=Augment())

    def step() -> None:
        x, labels = batches.take(np.arange(batch_size))
        optimizer.zero_grad()
        cross_entropy(model(Tensor(x)), labels).backward()
        optimizer.step()

    def tell(call: Call, seconds: float) -> None:
        watch.helped(str(call), seconds)

    warm_up(step, model, optimizer, tell=tell)
    step()
    evaluate(model, batches, tell=tell)
