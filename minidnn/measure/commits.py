"""Compare an op in two commits of this repository: each in a process of its own, in turns.

The commits are unpacked into a temporary folder, so that neither the checkout nor the list of
git's worktrees is touched. Both get the same arguments, as a file.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minidnn.errors import InputError
from minidnn.measure import commit_side
from minidnn.measure.compare import paired, row
from minidnn.measure.machine import affinity
from minidnn.measure.rungs import (
    AT_LEAST,
    CHECKED,
    LIMIT,
    ROUNDS,
    Case,
    cases,
    check_rounds,
    differs,
    named,
    refuse_memory,
    refuse_time,
)
from minidnn.measure.sides import Side, SideError, take_turns
from minidnn.measure.workloads import Workload
from minidnn.threads import num_threads

SHORT = 10  # characters of a commit's name


def git(*arguments: str, cwd: Path) -> bytes:
    """Return what git prints.

    Raises
    ------
    InputError
        If there is no git, or it fails; with its last line.
    """
    try:
        done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, check=False)
    except FileNotFoundError:
        raise InputError("comparing commits needs git, which was not found") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise InputError(f"git {arguments[0]}: {said[-1] if said else 'failed'}")
    return done.stdout


def commit(revision: str, repository: Path) -> str:
    """Return the full name of a commit.

    Raises
    ------
    InputError
        If `repository` is none, or has no such commit.
    """
    git("rev-parse", "--show-toplevel", cwd=repository)
    if not revision.startswith("-"):
        with contextlib.suppress(InputError):
            found = git("rev-parse", "--verify", f"{revision}^{{commit}}", cwd=repository)
            return found.decode().strip()
    raise InputError(f"unknown commit: {revision!r} (a branch, a tag or a hash of this repository)")


def unpack(name: str, folder: Path, repository: Path) -> None:
    """Write a commit's files into a new folder."""
    top = Path(git("rev-parse", "--show-toplevel", cwd=repository).decode().strip())
    archive = git("archive", "--format=tar", name, cwd=top)
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        # By name: Pythons before 3.10.12 and 3.11.4 have no such filter.
        files.extraction_filter = getattr(tarfile, "data_filter", None)
        files.extractall(folder)
    if not (folder / "minidnn" / "__init__.py").is_file():
        raise InputError(f"commit {name[:SHORT]} holds no minidnn")


def start(label: str, folder: Path, cache: Path) -> Side:
    """Start the process of a commit; kernels it compiles are thrown away with the folder."""
    env = {"PYTHONPATH": str(folder), "MINIDNN_CACHE_DIR": str(cache)}
    source = Path(commit_side.__file__).read_text(encoding="utf-8")
    command = [sys.executable, "-c", source]
    return Side(label, command, cwd=folder, threads=num_threads(), env=env)


def ask(side: Side, job: str, **arguments: Any) -> Any:
    """Return a side's answer.

    Raises
    ------
    InputError
        If the job failed there, or the process ended.
    """
    try:
        answer = side.ask(job, **arguments)
    except SideError as error:
        raise InputError(" ".join(str(error).split())) from None
    if "error" in answer:
        raise InputError(f"{side.name}: {answer['error']}")
    return answer["answer"]


def compare(
    revisions: tuple[str, str],
    what: str,
    *,
    batch: int = 1,
    size: str = "stages",
    rounds: int = ROUNDS,
    limit: float = LIMIT,
    repository: Path | None = None,
) -> dict[str, Any]:
    """Compare one op, ``OP`` or ``OP:RUNG``, in two commits.

    Raises
    ------
    InputError
        On unknown names or commits, too few rounds, what needs too much memory or time, and
        where the commits do not compute the same.
    """
    check_rounds(rounds)
    op, rung = named(what)
    todo = cases(op, size, batch)
    refuse_memory(todo)
    refuse_time([(case, (rung, rung)) for case in todo], rounds, limit)
    place = repository or Path.cwd()
    names = [commit(revision, place) for revision in revisions]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minidnn-commits-")))
        sides = []
        for number, (revision, name) in enumerate(zip(revisions, names, strict=True)):
            unpack(name, folder / str(number), place)
            side = start(f"{revision} ({name[:SHORT]})", folder / str(number), folder / "cache")
            sides.append(stack.enter_context(side))
        for number, side in enumerate(sides):
            check_side(side, folder / str(number))
        rows = [_measure(case, rung, sides, rounds, folder) for case in todo]
    return {
        "first": sides[0].name,
        "second": sides[1].name,
        "commits": names,
        "op": what,
        "paired": True,
        "rounds": rounds,
        "rows": rows,
    }


def check_side(side: Side, folder: Path) -> None:
    """Raise if a side runs other files than its commit's, or on other CPUs than this process."""
    about = ask(side, "about")
    if folder.resolve() not in Path(about["minidnn"]).resolve().parents:
        raise InputError(f"{side.name}: imported {about['minidnn']} instead of the commit's files")
    if about["affinity"] != affinity():
        raise InputError(f"{side.name}: runs on CPUs {about['affinity']}, not on {affinity()}")


def _measure(
    case: Case, rung: str | None, sides: Sequence[Side], rounds: int, folder: Path
) -> dict[str, Any]:
    """Time one case on both sides, once both have shown that they compute the same."""
    small = _prepare(case, case.at(min(case.batch, CHECKED)), rung, sides, folder)
    if differs(*small):
        raise InputError(
            f"{case.ladder} at {case.work.label}: the commits do not compute the same, "
            "so their speeds cannot be compared"
        )
    _prepare(case, case.work, rung, sides, folder)
    asks = {str(i): partial(ask, s, "seconds", at_least=AT_LEAST) for i, s in enumerate(sides)}
    first, second = take_turns(asks, rounds).values()
    return row(case.describe(), first, second, paired(first, second))


def _prepare(
    case: Case, work: Workload, rung: str | None, sides: Sequence[Side], folder: Path
) -> list[list[Any]]:
    """Hand the arguments to both sides; return what each computes from them."""
    arguments, result = folder / "arguments.npz", folder / "result.npz"
    np.savez(arguments, *work.drawn())
    found = []
    for side in sides:
        ask(
            side,
            "prepare",
            ladder=case.ladder,
            rung=rung,
            arguments=str(arguments),
            settings=work.settings,
            in_place=work.in_place,
            result=str(result),
        )
        with np.load(result) as file:
            found.append([file[name] for name in file.files])
    return found
