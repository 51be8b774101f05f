"""Measure everything and write it down: ``python -m bench.report [PART ...]``.

Runs the commands below one after the other and puts their tables into ``bench/RESULTS.md``, a
part of the page each, with the command, the machine, the versions and the date. Without names
of parts all are measured, on an idle machine in half an hour, and the kernels' slow rungs in some
more. Other parts of the page stay as they are.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import compare_gemm, compare_ops, kernel_tables, peer_tables
from bench.duel import ROOT
from minidnn.measure import serving_report
from minidnn.measure.machine import describe, surroundings
from minidnn.measure.results import PACKAGES
from minidnn.measure.tables import Table
from minidnn.threads import num_threads

PAGE = Path(__file__).parent / "RESULTS.md"


class Part(NamedTuple):
    """A heading of the page, and the command whose tables stand below it."""

    heading: str
    command: str


KERNELS = "pytest bench/test_kernels.py --full"  # and which of them
PARTS = {
    "train": Part("Training QuickNet", "bench.peers train"),
    "plain_cnn": Part("Training plain_cnn", "bench.peers train --network plain_cnn"),
    "infer": Part("Inference with QuickNet", "bench.peers infer"),
    "fps": Part("Frames per second", "minidnn fps --table"),
    "layers": Part("Layers", "bench.compare_ops"),
    "gemm": Part("Matrix products", "bench.compare_gemm"),
    "kernels": Part("Kernels", f"{KERNELS} -k 'not conv2d'"),
    "conv2d": Part("Kernels of full convolutions", f"{KERNELS} -k conv2d"),
}


def tables(found: Mapping[str, Any]) -> list[Table]:
    """Return the tables of any command's JSON, verdicts first."""
    if "ops" in found:
        parts = compare_ops.tables(found["ops"], found["verdicts"], found)
    elif "products" in found:
        parts = compare_gemm.tables(found["products"], found["verdicts"], found)
    elif "kernels" in found:
        parts = kernel_tables.tables(found["kernels"])
    elif "cases" in found:
        parts = serving_report.tables(found)
    else:
        parts = peer_tables.tables(found)
    return parts[-1:] + parts[:-1] if "verdicts" in found else parts


def section(part: Part, found: Mapping[str, Any]) -> str:
    """Return one part of the page."""
    reasons = peer_tables.failures(found) if "sides" in found or "batches" in found else []
    reasons += serving_report.texts(found) if "cases" in found else []
    blocks = [
        f"## {part.heading}",
        f"`python -m {part.command}`, {describe(found.get('machine', found))}",
        *(table.markdown() for table in tables(found)),
        *(f"```\n{reason}\n```" for reason in reasons),
    ]
    return "\n\n".join(blocks) + "\n"


def replace(page: str, heading: str, text: str) -> str:
    """Put a part in the place of the one with the same heading, or at the end of the page."""
    place = re.compile(rf"^## {re.escape(heading)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if place.search(page):
        return place.sub(lambda _: text + "\n", page, count=1).rstrip() + "\n"
    return f"{page.rstrip()}\n\n{text}"


def measure(part: Part) -> dict[str, Any]:
    """Run the command of a part and return its JSON."""
    if part.command.startswith(KERNELS):
        return measure_kernels(part.command)
    command = [sys.executable, "-m", *part.command.split(), "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"python -m {part.command}: exit {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure_kernels(command: str) -> dict[str, Any]:
    """Run benches of rungs, and return the medians with the machine."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernels.json"
        options = ["--quiet", f"--benchmark-json={file}"]
        run = [sys.executable, "-m", *shlex.split(command), *options]
        done = subprocess.run(run, cwd=ROOT, stdout=sys.stderr, check=False)
        if done.returncode:
            raise SystemExit(f"python -m {command}: exit {done.returncode}")
        benchmarks = json.loads(file.read_text(encoding="utf-8"))["benchmarks"]
    where = surroundings(num_threads(), PACKAGES)
    return {"kernels": kernel_tables.measured(benchmarks), **where}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure some parts or all, and write each into the page as soon as it is there."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all if left out")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write")
    args = parser.parse_args(arguments)
    for name in args.parts:
        if name not in PARTS:
            parser.error(f"no part {name!r}; there are {', '.join(PARTS)}")
    for name in args.parts or PARTS:
        text = section(PARTS[name], measure(PARTS[name]))
        page = args.page.read_text(encoding="utf-8") if args.page.exists() else "# Measured\n"
        args.page.write_text(replace(page, PARTS[name].heading, text), encoding="utf-8")


if __name__ == "__main__":
    main()
