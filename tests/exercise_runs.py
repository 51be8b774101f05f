"""Run the grader as its users do: saved files, their tests, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minidnn import cli
from minidnn.measure.exercises import grader, runner
from minidnn.measure.exercises.catalogue import Exercise
from minidnn.measure.exercises.runner import Limits

LIMITS = Limits(timeout=60, memory=2048)


def saved(folder: Path, source: str) -> Path:
    """Save a submission."""
    path = folder / "mine.py"
    path.write_text(source, encoding="utf-8", errors="surrogateescape")
    return path


def graded(
    path: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, dict[str, Any], str]:
    """Grade a file as an autograder would: exit code, JSON, standard error."""
    code = cli.main(["exercise", "grade", str(path), "--json", *options])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


def outcomes(exercise: Exercise, path: Path) -> list[dict[str, Any]]:
    """Return what became of every test of a submission that runs to its end."""
    cases = exercise.cases()
    ran = runner.correctness(exercise, path, cases, LIMITS)
    assert ran.ended == "done", ran
    return grader.judged(exercise, cases, ran)
