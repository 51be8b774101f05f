"""Grade a submission: rules, then correctness, then speed; one verdict."""

from __future__ import annotations

import ast
import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minidnn.errors import ConfigError, InputError
from minidnn.kernels.ladder import unknown
from minidnn.measure.compare import FASTER, LEAST_ROUNDS, SLOWER, paired, word
from minidnn.measure.exercises import judge, rules, runner
from minidnn.measure.exercises.catalogue import EXERCISES, Case, Exercise
from minidnn.measure.exercises.child import KEPT, MOST_ROUNDS, first_number
from minidnn.measure.exercises.runner import Answer, Limits, Ran, line

MOST_SOURCE = 1_000_000  # bytes of a file that a person wrote
DEFAULT_RUNG = "naive"
FEW_ROUNDS = 2.0  # too few of them leave this factor either way
UNREADABLE = "no readable answer"
# What a record that is not the child's own can raise where it is read.
FORGED = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)

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


class StoppedError(Exception):
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
        check_speed(parts["speed"], exercise, file, rung, factor, limits)
    except StoppedError as stop:
        return Grade(exercise.name if exercise else None, stop.verdict, str(stop), parts)
    raise AssertionError("the last part always ends with a verdict")


# --- the file -------------------------------------------------------------------------------------


def _tree(file: Path) -> ast.Module:
    """Read a file's syntax tree."""
    if file.stat().st_size > MOST_SOURCE or not (file.is_file() or file.is_dir()):
        raise InputError(f"{file}: expected a Python file below {MOST_SOURCE:,} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strange escapes and comparisons
            return ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        raise StoppedError(UNUSABLE, f"syntax error: {where}{error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise StoppedError(UNUSABLE, f"cannot be read as Python: {error}") from None


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
        raise StoppedError(UNUSABLE, f"one exercise per file, please; found {', '.join(found)}")
    nearest = names[0] if len(names) == 1 else file.stem
    text = unknown("exercise", nearest, EXERCISES)
    raise StoppedError(UNUSABLE, f"defines no exercise's function; {text}")


def _rung(exercise: Exercise, against: str | None) -> str:
    rungs = exercise.rungs().rungs
    rung = DEFAULT_RUNG if against is None else against
    if rung not in rungs:
        raise ConfigError(unknown(f"rung of {exercise.ladder}", rung, rungs))
    return rung


# --- the parts ------------------------------------------------------------------------------------


def _check_rules(part: Part, tree: ast.Module, exercise: Exercise) -> None:
    part.found["broken"] = broken = list(map(line, rules.broken(tree, exercise.forbidden)))
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise StoppedError(FORBIDDEN, broken[0] + more)
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
        raise StoppedError(WRONG, text + more)


def judged(exercise: Exercise, cases: Sequence[Case], ran: Ran) -> list[dict[str, Any]]:
    """Return a test per case; those that were not reached are not passed."""
    names = [case.name for case in cases]
    answers = {a.record["case"]: a for a in ran.answers if a.record.get("case") in names}
    last = ran.answers[-1].record if ran.answers else {}
    tests = []
    for case in cases:
        message: str | None = "not reached"
        if case.name in answers:
            try:
                message = judge.wrong(exercise, case, answers[case.name])
            except FORGED:
                message = UNREADABLE
        if message is None and case.name in _names(last, "overwritten"):
            message = "a later call overwrites the array that this call returned"
        passed = message is None
        tests.append({"name": case.name, "passed": passed, "message": line(message or "")})
    return tests


def _names(record: Mapping[str, Any], key: str) -> list[str]:
    """Return a list of names that a record may hold."""
    found = record.get(key)
    return [line(name) for name in found] if isinstance(found, list) else []


def _stop_if_ended(ran: Ran, limits: Limits) -> None:
    """Stop where the process did not come to its end, or imported what it may not."""
    sneaked = [name for a in ran.answers for name in _names(a.record, "imports")]
    if sneaked:
        raise StoppedError(FORBIDDEN, f"reaches for {sneaked[0]} while it runs")
    if refused := ran.find("forbidden"):
        raise StoppedError(FORBIDDEN, line(refused.record["forbidden"]))
    for answer in ran.answers:
        if answer.record.get("memory"):
            where = line(answer.record.get("case", ran.during))
            text = f"{where}: needs more than {limits.memory} MB of memory"
            raise StoppedError(MEMORY, text)
    if failed := ran.find("unusable"):
        raise StoppedError(UNUSABLE, line(failed.record["unusable"]))
    if ran.ended == "timeout":
        raise StoppedError(HANGS, f"{ran.during}: no end within {limits.timeout:g} s")
    if ran.ended != "done":
        raise StoppedError(CRASHED, f"{ran.during}: the process {ran.ended}")


def check_speed(
    part: Part, exercise: Exercise, file: Path, rung: str, factor: float, limits: Limits
) -> None:
    """Measure; the verdict is `passed` only if the whole interval is above what is asked for."""
    part.found["shape"] = f"{exercise.work().label}, batch {exercise.batch}"
    ran = runner.speed(exercise, file, rung, limits)
    if ran.ended == "timeout" and ran.during == "the timed call":
        late = f"too slow to time, no end within {limits.timeout:g} s"
        raise StoppedError(SLOW, f"{part.found['shape']}: {late}")
    _stop_if_ended(ran, limits)
    if failed := ran.find("error"):
        raise StoppedError(WRONG, f"the timed call: {line(failed.record['error'])}")
    try:
        (answer,) = (a for a in ran.answers if "seconds" in a.record)
        ours, theirs = _seconds(answer)
        text = _wrong_result(exercise, [a for a in ran.answers if "call" in a.record])
    except FORGED:
        raise StoppedError(WRONG, f"the timed call: {UNREADABLE}") from None
    if text is not None:
        raise StoppedError(WRONG, f"the timed call, {part.found['shape']}: {line(text)}")
    raise StoppedError(*judge_speed(part, ours, theirs, rung, factor))


def _seconds(answer: Answer) -> list[list[float]]:
    """Return the seconds of ours and theirs; raise where it is not a number for every round."""
    seconds = answer.record["seconds"]
    sides = [[float(s) for s in seconds[side]] for side in ("ours", "theirs")]
    if not 1 <= len(sides[0]) == len(sides[1]) <= MOST_ROUNDS:
        raise ValueError(f"{[len(side) for side in sides]} rounds")
    if not all(math.isfinite(s) and s > 0 for side in sides for s in side):
        raise ValueError("expected seconds above 0")
    return sides


def _wrong_result(exercise: Exercise, answers: Sequence[Answer]) -> str | None:
    """Return what is wrong with what timed calls returned, None if nothing is."""
    if not answers:
        raise ValueError("no results")
    work = exercise.work()
    args = work.drawn()
    case = Case("the timed call", tuple(args), work.settings)
    for answer in answers[: KEPT + 1]:
        args[0].reshape(-1)[0] = first_number(int(answer.record["call"]))
        want = judge.wanted(exercise, args, work.settings)
        text = judge.different(exercise, answer, want, case)
        if text is not None:
            return text
    return None


def judge_speed(
    part: Part, ours: Sequence[float], theirs: Sequence[float], rung: str, factor: float
) -> tuple[str, str]:
    """Turn seconds per round into a ratio, an interval, a verdict and its message.

    As many times as fast as the rung as `factor` says, or more, is passed: the whole bootstrap
    interval has to lie above it. Rounds too few for a bootstrap leave a factor of two.
    """
    # Compared with the factor as other ratios are with 1.
    found, rounds = paired(theirs, [factor * s for s in ours]), len(ours)
    low, high = found.low, found.high
    if rounds < LEAST_ROUNDS:
        low, high = min(low, found.ratio / FEW_ROUNDS), max(high, found.ratio * FEW_ROUNDS)
    verdict = {FASTER: PASSED, SLOWER: SLOW}.get(word(low, high), INCONCLUSIVE)
    ratio, low, high = (number * factor for number in (found.ratio, low, high))
    part.score = min(1.0, ratio / factor)
    part.found |= {
        "ratio": ratio,
        "low": low,
        "high": high,
        "conclusion": verdict,
        "rounds": rounds,
        "seconds": statistics.median(ours),
        "rung_seconds": statistics.median(theirs),
    }
    where = f"{ratio:.2f} times as fast as {rung} ({low:.2f} to {high:.2f})"
    words = {
        PASSED: f"correct, and {where}",
        SLOW: f"correct, but only {where}; asked for {factor:g}x or more",
        INCONCLUSIVE: f"correct, and {where}: {factor:g}x lies inside, so this measurement "
        "cannot tell; try again on a quieter machine",
    }
    return verdict, words[verdict]
