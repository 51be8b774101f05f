"""Grade a submission: rules, then correctness, then speed; one verdict."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minidnn.errors import ConfigError, InputError
from minidnn.kernels.ladder import unknown
from minidnn.measure.exercises import judge, rules, runner
from minidnn.measure.exercises.catalogue import EXERCISES, Case, Exercise
from minidnn.measure.exercises.child import first_number
from minidnn.measure.exercises.runner import Limits, Ran
from minidnn.measure.ratios import speed_ratio

MOST_SOURCE = 1_000_000  # bytes of a file that a person wrote
DEFAULT_RUNG = "naive"
LEAST_ROUNDS = 6  # that all lie on one side of their median has a chance of 2 / 2**6

PASSED, SLOW, INCONCLUSIVE = "passed", "slow", "inconclusive"
WRONG, FORBIDDEN = "wrong", "forbidden"
HANGS, CRASHED, MEMORY, UNUSABLE = "hangs", "crashed", "memory", "unusable"
# These never came to an answer: the file cannot be used as it is.
NO_ANSWER = (HANGS, CRASHED, MEMORY, UNUSABLE)


@dataclass
class Part:
    """One part of a grade: 0 to 1, and what was found."""

    score: float
    found: dict[str, Any] = field(default_factory=dict)


@dataclass
class Grade:
    """What became of a submission.

    Attributes
    ----------
    exercise : str or None
        None where the file does not show which it is.
    verdict : str
        One word.
    message : str
        One line that explains it.
    parts : dict
        ``rules``, ``correctness``, ``speed``: each with a score from 0 to 1.
    """

    exercise: str | None
    verdict: str
    message: str
    parts: dict[str, Part]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "exercise": self.exercise,
            "verdict": self.verdict,
            "passed": self.verdict == PASSED,
            "message": self.message,
            "parts": {n: {"score": round(p.score, 4), **p.found} for n, p in self.parts.items()},
        }


class _StoppedError(Exception):
    """The verdict is known, and nothing more is run."""

    def __init__(self, verdict: str, message: str) -> None:
        super().__init__(message)
        self.verdict = verdict


def grade(file: Path, *, against: str | None, factor: float, limits: Limits) -> Grade:
    """Grade a file.

    Parameters
    ----------
    file : Path
    against : str, optional
        A rung of the exercise's ladder; naive if left out.
    factor : float
        How many times as fast as the rung it must be.
    limits : Limits

    Raises
    ------
    InputError
        If the file cannot be read, or there is no such rung.
    """
    parts = {
        "rules": Part(0, {"broken": []}),
        "correctness": Part(0, {"tests": []}),
        "speed": Part(0, {"against": against, "factor": factor}),
    }
    exercise = None
    try:
        tree = _tree(file)
        exercise = _exercise_in(tree, file)
        parts["speed"].found["against"] = rung = _rung(exercise, against)
        _check_rules(parts["rules"], tree, exercise)
        _check_answers(parts["correctness"], exercise, file, limits)
        _check_speed(parts["speed"], exercise, file, rung, factor, limits)
    except _StoppedError as stop:
        return Grade(exercise.name if exercise else None, stop.verdict, str(stop), parts)
    raise AssertionError("the last part always ends with a verdict")


# --- the file -------------------------------------------------------------------------------------


def _tree(file: Path) -> ast.Module:
    """Read a file's syntax tree."""
    if file.stat().st_size > MOST_SOURCE:
        raise InputError(f"{file}: expected a Python file below {MOST_SOURCE:,} bytes")
    try:
        return ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        line = f"line {error.lineno}: " if error.lineno else ""
        raise _StoppedError(UNUSABLE, f"syntax error: {line}{error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise _StoppedError(UNUSABLE, f"cannot be read as Python: {error}") from None


def _exercise_in(tree: ast.Module, file: Path) -> Exercise:
    """Return the one exercise whose function the file defines."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [t.id for t in node.targets if isinstance(t, ast.Name)]
    found = [name for name in dict.fromkeys(names) if name in EXERCISES]
    if len(found) == 1:
        return EXERCISES[found[0]]
    if found:
        raise _StoppedError(UNUSABLE, f"one exercise per file, please; found {', '.join(found)}")
    nearest = names[0] if len(names) == 1 else file.stem
    text = unknown("exercise", nearest, EXERCISES)
    raise _StoppedError(UNUSABLE, f"defines no exercise's function; {text}")


def _rung(exercise: Exercise, against: str | None) -> str:
    rungs = exercise.rungs().rungs
    rung = DEFAULT_RUNG if against is None else against
    if rung not in rungs:
        raise ConfigError(unknown(f"rung of {exercise.ladder}", rung, rungs))
    return rung


# --- the parts ------------------------------------------------------------------------------------


def _check_rules(part: Part, tree: ast.Module, exercise: Exercise) -> None:
    part.found["broken"] = broken = rules.broken(tree, exercise.forbidden)
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise _StoppedError(FORBIDDEN, broken[0] + more)
    part.score = 1


def _check_answers(part: Part, exercise: Exercise, file: Path, limits: Limits) -> None:
    """Run all tests; stop unless every one is passed."""
    cases = exercise.cases()
    ran = runner.correctness(exercise, file, cases, limits)
    part.found["tests"] = tests = judged(exercise, cases, ran)
    part.score = sum(test["passed"] for test in tests) / len(tests)
    _stop_if_ended(ran, limits)
    failed = [test for test in tests if not test["passed"]]
    if failed:
        text = f"{failed[0]['name']}: {failed[0]['message']}"
        more = f" ({len(failed)} of {len(tests)} tests not passed)"
        raise _StoppedError(WRONG, text + more)


def judged(exercise: Exercise, cases: Sequence[Case], ran: Ran) -> list[dict[str, Any]]:
    """Return a test per case; those that were not reached are not passed."""
    answers = {a.record["case"]: a for a in ran.answers if "case" in a.record}
    last = ran.answers[-1].record if ran.answers else {}
    tests = []
    for case in cases:
        message: str | None = "not reached"
        if case.name in answers:
            try:
                message = judge.wrong(exercise, case, answers[case.name])
            except (KeyError, TypeError, ValueError, IndexError, AttributeError):
                message = "no readable answer"
        if message is None and case.name in last.get("overwritten", ()):
            message = "a later call overwrites the array that this call returned"
        tests.append({"name": case.name, "passed": message is None, "message": message or ""})
    return tests


def _stop_if_ended(ran: Ran, limits: Limits) -> None:
    """Stop where the process did not come to its end, or imported what it may not."""
    sneaked = [name for a in ran.answers for name in a.record.get("imports", ())]
    if sneaked:
        raise _StoppedError(FORBIDDEN, f"imports {sneaked[0]} while it runs")
    if refused := ran.find("forbidden"):
        raise _StoppedError(FORBIDDEN, str(refused.record["forbidden"]))
    for answer in ran.answers:
        if answer.record.get("memory"):
            where = answer.record.get("case", ran.during)
            text = f"{where}: needs more than {limits.memory} MB of memory"
            raise _StoppedError(MEMORY, text)
    if failed := ran.find("unusable"):
        raise _StoppedError(UNUSABLE, str(failed.record["unusable"]))
    if ran.ended == "timeout":
        raise _StoppedError(HANGS, f"{ran.during}: no end within {limits.timeout:g} s")
    if ran.ended != "done":
        raise _StoppedError(CRASHED, f"{ran.during}: the process {ran.ended}")


def _check_speed(
    part: Part, exercise: Exercise, file: Path, rung: str, factor: float, limits: Limits
) -> None:
    """Measure; the verdict is `passed` only if the whole interval is above what is asked for."""
    work = exercise.work()
    part.found["shape"] = f"{work.label}, batch {exercise.batch}"
    ran = runner.speed(exercise, file, rung, limits)
    if ran.ended == "timeout" and ran.during == "the timed call":
        late = f"too slow to time, no end within {limits.timeout:g} s"
        raise _StoppedError(SLOW, f"{part.found['shape']}: {late}")
    _stop_if_ended(ran, limits)
    answer = ran.find("seconds")
    if answer is None:
        raise _StoppedError(WRONG, f"the timed call: {ran.answers[-1].record.get('error')}")
    args = work.drawn()
    args[0].reshape(-1)[0] = first_number(int(answer.record["calls"]))
    want = judge.wanted(exercise, args, work.settings)
    case = Case("the timed call", tuple(args), work.settings)
    text = judge.different(exercise, answer, want, case)
    if text is not None:
        raise _StoppedError(WRONG, f"the timed call, {part.found['shape']}: {text}")
    seconds = answer.record["seconds"]
    raise _StoppedError(*judge_speed(part, seconds["ours"], seconds["theirs"], rung, factor))


def judge_speed(
    part: Part, ours: Sequence[float], theirs: Sequence[float], rung: str, factor: float
) -> tuple[str, str]:
    """Turn seconds per round into a ratio, an interval, a verdict and its message."""
    ratio = speed_ratio(ours, theirs)
    low, high, rounds = ratio.low, ratio.high, len(ours)
    if rounds < LEAST_ROUNDS:  # too few for 95 %: a factor of two either way
        low, high = ratio.median / 2, ratio.median * 2
    verdict = INCONCLUSIVE
    if low >= factor:
        verdict = PASSED
    elif high < factor:
        verdict = SLOW
    part.score = min(1.0, ratio.median / factor)
    part.found |= {
        "ratio": ratio.median,
        "low": low,
        "high": high,
        "conclusion": verdict,
        "rounds": rounds,
        "seconds": statistics.median(ours),
        "rung_seconds": statistics.median(theirs),
    }
    asked = f"{factor:g}x " if factor != 1 else ""
    where = f"{ratio.median:.2f} times as fast as {rung} ({low:.2f} to {high:.2f})"
    words = {
        PASSED: f"correct, and {where}",
        SLOW: f"correct, but only {where}; asked for {asked or '1x '}or more",
        INCONCLUSIVE: f"correct, and {where}: {asked or '1x '}lies inside, so this measurement "
        "cannot tell; try again on a quieter machine",
    }
    return verdict, words[verdict]
