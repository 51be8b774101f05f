"""``minidnn data``: fetch, check and show data sets."""

from __future__ import annotations

import argparse
import sys

NAME = "data"
HELP = "download, verify or show a data set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``get``, ``verify`` and ``show``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    get = actions.add_parser("get", help="download the official binary archive and unpack it")
    verify = actions.add_parser("verify", help="is a folder the official archive?")
    for action in (get, verify):
        action.add_argument("dataset", metavar="NAME", help="cifar10 or cifar100")
        action.add_argument(
            "--data-dir", metavar="DIR", help="where its folder stands (default: the user's cache)"
        )
    get.add_argument("--mirror", metavar="URL", help="another copy of the archive or its folder")
    show = actions.add_parser("show", help="write a sheet of pictures, one row per class")
    show.add_argument("dataset", metavar="NAME", help="shapes, cifar10, folder:PATH, FILE.npz, ...")
    show.add_argument("-o", "--out", metavar="PNG", required=True, help="the file to write")
    show.add_argument("--data-dir", metavar="DIR", help="where CIFAR's folder stands")
    show.add_argument("--split", choices=("train", "test"), default="train")
    show.add_argument("--columns", type=int, default=12, help="pictures per class (default: 12)")


def run(args: argparse.Namespace) -> int:
    """Run one action and return the exit code."""
    return {"get": _get, "verify": _verify, "show": _show}[args.action](args)


def download(name: str, data_dir: str | None, mirror: str | None, *, show: bool = True) -> None:
    """Fetch a data set, with a progress bar on standard error, and say where it is."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    from minidnn.data.cifar import format_named
    from minidnn.data.download import get

    format_named(name)  # a wrong name is said before a progress bar appears
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not show) as bar:
        task = bar.add_task(name, total=None)
        folder = get(
            name,
            data_dir,
            mirror=mirror,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(f"{name}: {folder} (official archive, checksum verified)", flush=True)


def _get(args: argparse.Namespace) -> int:
    download(args.dataset, args.data_dir, args.mirror)
    return 0


def _verify(args: argparse.Namespace) -> int:
    """Exit code 0 for the official files, 1 for others that can be used."""
    from minidnn.data import cifar

    form = cifar.format_named(args.dataset)
    folder = cifar.find_folder(form, args.data_dir)
    findings = cifar.verify(form, folder)
    print(folder)
    for finding in findings:
        print(f"  {'ok ' if finding.official else 'NOT'}  {finding.file:<18} {finding.text}")
    for split in form.records:
        dataset = cifar.read(args.dataset, split, folder)
        print(f"  {split}: {len(dataset):,} images of {len(dataset.classes)} classes can be read")
    if all(finding.official for finding in findings):
        print("This is the official archive.")
        return 0
    print(
        "This folder is NOT the official archive. Training works; "
        f"beside every accuracy will stand: {dataset.note}"
    )
    return 1


def _show(args: argparse.Namespace) -> int:
    from minidnn.data.pictures import pillow, sheet
    from minidnn.data.sources import load
    from minidnn.errors import ConfigError, DataError

    image = pillow()
    if args.columns < 1:
        raise ConfigError(f"--columns: expected at least 1, got {args.columns}")
    dataset = load(args.dataset, split=args.split, data_dir=args.data_dir)
    try:
        image.fromarray(sheet(dataset, args.columns)).save(args.out)
    except (OSError, ValueError) as error:
        raise DataError(f"{args.out}: cannot be written: {error}") from None
    print(f"{args.out}: {', '.join(dataset.classes)}", file=sys.stdout)
    return 0
