"""``minidnn predict``: what a trained network takes your pictures for."""

from __future__ import annotations

import argparse
import json

from minidnn.cli.evaluate import add_weights, check_average
from minidnn.cli.session import open_model, percent, set_threads

NAME = "predict"
HELP = "what a trained network takes a picture file for"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_weights(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="PNG, JPEG, ... of any size")
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="show the N likeliest classes (default 10)"
    )


def run(args: argparse.Namespace) -> int:
    """Predict and print; every picture is read before the first is shown."""
    set_threads(args.threads)
    import numpy as np

    from minidnn import runs
    from minidnn.data import Batches, Dataset
    from minidnn.data.pictures import read_picture
    from minidnn.evaluation import predict, softmax

    state, _, model, about = open_model(args.run, args.weights, averaged=not args.raw)
    check_average(args, state)
    h, w, c = runs.input_shape(state)
    pictures = [read_picture(path, (h, w), c) for path in args.images]
    classes = runs.classes(state)
    images = np.stack([picture for picture, _ in pictures])
    dataset = Dataset(images, np.zeros(len(images), np.int64), classes, "pictures")
    mean, std = runs.normalisation(state)
    batches = Batches(dataset, batch_size=128, mean=mean, std=std, shuffle=False)
    rows = np.concatenate([softmax(predict(model, x)) for x, _ in batches.epoch()])
    results = list(zip(args.images, (how for _, how in pictures), rows, strict=True))
    if args.json:
        named = [
            {"image": path, "resized": how, "probabilities": dict(zip(classes, row, strict=True))}
            for path, how, row in ((p, h, r.tolist()) for p, h, r in results)
        ]
        print(json.dumps({"weights": about, "predictions": named}))
        return 0
    print(about)
    for path, how, row in results:
        print(f"{path}{f' ({how})' if how else ''}")
        for i in np.argsort(-row, kind="stable")[: max(1, args.top)]:
            print(f"  {percent(row[i]):>9}  {classes[i]}")
    return 0
