"""Exercises: right answers pass, and every way to go wrong has its verdict."""

from __future__ import annotations

import ast
import inspect
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minidnn import cli
from minidnn.measure.exercises import child, judge, rules, runner, stub
from minidnn.measure.exercises.catalogue import EXERCISES, GRADIENT_CHECK, Exercise, find
from minidnn.measure.exercises.runner import Limits
from tests.exercise_answers import ANSWERS
from tests.exercise_runs import graded, outcomes, saved

PRELU = ANSWERS["prelu_backward"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's own")

# --- stubs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_a_stub_has_the_rungs_own_arguments_and_keeps_the_rules(exercise: Exercise) -> None:
    tree = ast.parse(stub.text(exercise, "file.py"))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert function.name == exercise.name
    check = exercise.rungs().check  # has the arguments of every rung
    assert check is not None
    names = [a.arg for a in (*function.args.args, *function.args.kwonlyargs)]
    assert names == list(inspect.signature(check).parameters)
    shown = {line.strip() for line in (ast.get_docstring(tree) or "").splitlines()}
    for text in (exercise.shapes, exercise.formula, exercise.hint):
        assert text
        assert {line.strip() for line in text.splitlines()} <= shown
    assert rules.broken(tree, exercise.forbidden) == []


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_tests_hold_what_is_awkward(exercise: Exercise) -> None:
    cases = {case.name: case.args for case in exercise.cases()}
    assert {"odd sizes", "zeros", "negatives", "NaN kept"} <= set(cases)
    x = 0 if exercise.gradient is None else 1
    assert (cases["zeros"][x] == 0).any()
    assert (cases["negatives"][x] <= 0).all()
    assert np.isnan(cases["NaN kept"][x]).sum() == 1
    assert any(len(args[x]) == 1 for args in cases.values())
    assert all(a.dtype == np.float32 for a in cases["odd sizes"])
    assert (GRADIENT_CHECK in cases) == exercise.name.endswith("backward")


def test_new_writes_a_stub_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    assert cli.main(["exercise", "new", "gemm", "-o", str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    path.write_text("hours of work", encoding="utf-8")
    assert cli.main(["exercise", "new", "gemm", "-o", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert path.read_text(encoding="utf-8") == "hours of work"


def test_a_stub_as_it_is_written_is_not_passed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "stub.py"
    stub.write(find("prelu_backward"), path)
    code, found, _ = graded(path, capsys)
    assert (code, found["verdict"]) == (1, "wrong")
    assert "NotImplementedError: write prelu_backward here" in found["message"]
    assert found["parts"]["correctness"]["score"] == 0


def test_list_names_every_exercise(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["exercise", "list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in EXERCISES)
    assert cli.main(["exercise", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["exercises"]
    assert [row["name"] for row in listed] == list(EXERCISES)


# --- right and wrong answers ------------------------------------------------------------------


@pytest.mark.parametrize("name", EXERCISES)
def test_a_right_answer_passes_every_test(name: str, tmp_path: Path) -> None:
    tests = outcomes(find(name), saved(tmp_path, ANSWERS[name]))
    assert [test for test in tests if not test["passed"]] == []
    assert len(tests) >= 8


@pytest.mark.parametrize(
    ("name", "old", "new", "test", "message"),
    [
        ("prelu_backward", "x > 0", "x >= 0", "zeros", "dx[0, 0, 0, 0]: expected"),
        (
            "prelu_backward",
            "= np.where(positive, 0, x * dy)",
            "= (-(positive - 1) * np.nan_to_num(x) * dy)",
            "NaN kept",
            "dslope[8]: expected NaN",
        ),
        (
            "prelu_backward",
            "(dy, x, slope):",
            "(dy, x, slope):\n    dy[0] *= 2",
            "odd sizes",
            "changes its argument dy",
        ),
        (
            "prelu_backward",
            "dslope.astype(x.dtype)",
            "dslope",
            "odd sizes",
            "dslope: expected float32 like the arguments, got float64",
        ),
        (
            "prelu_backward",
            "dslope.astype(x.dtype)",
            "dslope.astype('f')[:1]",
            "odd sizes",
            "dslope: expected shape (17,), got (1,)",
        ),
        (
            "prelu_backward",
            "return dx, ",
            "return dx #",
            "odd sizes",
            "expected (dx, dslope), got 1 array(s)",
        ),
        ("prelu_backward", "return dx, ", "return 'dx', #", "odd sizes", "as arrays, got (str)"),
        ("prelu_backward", "return dx, ", "return None #", "odd sizes", "as arrays, got NoneType"),
        (
            "prelu_backward",
            "return dx, ",
            "return dx + 0j #",
            "odd sizes",
            "as arrays, got ndarray of complex64",
        ),
        (
            "prelu_backward",
            "return dx, ",
            "return np.broadcast_to(dx[0], (10**8, *dx.shape[1:])) #",
            "odd sizes",
            "got 1 array(s)",
        ),
        (
            "prelu_backward",
            "return dx, ",
            "return [dx] * 10**6 #",
            "odd sizes",
            "got a tuple of 9 array(s)",
        ),
        (
            "prelu_backward",
            "return dx, ",
            "raise type('E', (Exception,), {'__str__': None}) #",
            "odd sizes",
            "E: an error that cannot be told (line 8)",
        ),
        (
            "prelu_backward",
            "positive = x > 0",
            "positive = x > y",
            "odd sizes",
            "NameError: name 'y' is not defined (line 5)",
        ),
        ("prelu_backward", "return dx, ", "raise SystemExit #", "odd sizes", "SystemExit"),
        (
            "prelu_backward",
            "slope * dy)",
            "slope * dy).astype(np.float32).astype(x.dtype)",
            GRADIENT_CHECK,
            "dx[",
        ),
        ("batchnorm_backward", " - dbeta / pixels", "", "odd sizes", "dx[0, 0, 0, 0]: expected"),
        ("depthwise_forward", "y = np.zeros(", "y = np.empty(", "odd sizes", "y["),
        (
            "depthwise_forward",
            "kh, kw = w.shape[:2]",
            "kh = kw = 3",
            "uneven kernel and padding",
            "",
        ),
        ("depthwise_forward", "stride[0]", "1", "stride 2", ""),
        (
            "depthwise_backward",
            "dpadded[:, rows, columns] +=",
            "dpadded[:, rows, columns] =",
            "odd sizes",
            "dx[",
        ),
        (
            "gemm",
            "np.zeros((a.shape[0], b.shape[1]), a",
            "np.full((a.shape[0], b.shape[1]), 0.01, a",
            "one row",
            "y[0, 0]: expected",
        ),
    ],
)
def test_a_wrong_answer_is_found_and_explained(
    name: str, old: str, new: str, test: str, message: str, tmp_path: Path
) -> None:
    assert old in ANSWERS[name]
    source = ANSWERS[name].replace(old, new)
    if "np.empty" in new:  # what happens to be in new memory must not decide
        source = source.replace("x.dtype)\n", "x.dtype)\n    y.fill(1)\n", 1)
    tests = {t["name"]: t for t in outcomes(find(name), saved(tmp_path, source))}
    assert not tests[test]["passed"]
    assert message in tests[test]["message"]


def test_an_array_that_a_later_call_overwrites_is_found(tmp_path: Path) -> None:
    source = PRELU.replace("    positive", "    global kept\n    positive").replace(
        "return dx, ", "kept.setdefault(dx.shape, dx)[...] = dx\n    return kept[dx.shape], "
    )
    tests = outcomes(find("prelu_backward"), saved(tmp_path, f"kept = {{}}\n{source}"))
    found = {test["name"]: test["message"] for test in tests}
    assert "a later call overwrites" in found["odd sizes"]
    assert found["few pixels"] == ""


@pytest.mark.parametrize("name", [n for n in EXERCISES if n.endswith("backward")])
def test_the_gradient_check_can_fail(name: str) -> None:
    exercise = find(name)
    case = exercise.cases()[-1]
    right = judge.wanted(exercise, case.args, case.settings)
    assert judge.wrong_gradient(exercise, case, right) is None
    for i, returned in enumerate(exercise.returns):
        off = [g * (1.001 if i == j else 1) for j, g in enumerate(right)]
        text = judge.wrong_gradient(exercise, case, off)
        assert text is not None
        assert text.startswith(f"{returned}: a slope of")


# --- what never comes to an answer ------------------------------------------------------------

STRIDED = "np.lib.stride_tricks.as_strided(x.copy(), (1 << 30,), (4096,)).sum()"


@pytest.mark.parametrize(
    ("source", "options", "verdict", "message"),
    [
        ("def gemm(a, b:\n", (), "unusable", "syntax error: line 1:"),
        ("", (), "unusable", "defines no exercise's function"),
        ("def gem(a, b):\n    return a\n", (), "unusable", "did you mean 'gemm'?"),
        ("x = 1 / 0\n" + PRELU, (), "unusable", "ZeroDivisionError: division by zero (line 1)"),
        ("\0", (), "unusable", ""),
        ("x = " + "(" * 500, (), "unusable", ""),
        ("x = " + "-" * 100_000 + "1\n" + PRELU, (), "unusable", ""),
        ("x = '\udcff'\n" + PRELU, (), "unusable", "syntax error"),
        ('r"""\n"""\n\'\\d\'\nraise SystemExit(0)\n' + PRELU, (), "unusable", "SystemExit: 0"),
        (PRELU + "\ngemm = prelu_backward\n", (), "unusable", "one exercise per file"),
        (
            PRELU + "\nwhile True: pass\n",
            ("--timeout", "1.5"),
            "hangs",
            "import of the file: no end within 1.5 s",
        ),
        (
            PRELU.replace("positive = x", f"{STRIDED}\n    positive = x"),
            (),
            "crashed",
            "odd sizes: the process killed by SIGSEGV",
        ),
        pytest.param(
            PRELU.replace("positive = x", "more = np.ones(1 << 30)\n    positive = x"),
            ("--memory", "256"),
            "memory",
            "odd sizes: needs more than 256 MB",
            marks=linux,
        ),
    ],
)
def test_what_gives_no_answer_is_one_line_and_exit_code_2(
    source: str,
    options: tuple[str, ...],
    verdict: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = saved(tmp_path, source)
    code, found, err = graded(path, capsys, *options)
    assert (code, found["verdict"], found["passed"]) == (2, verdict, False)
    assert message in found["message"]
    assert found["message"] in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


def test_tests_before_the_endless_loop_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = PRELU.replace("positive = x", "while len(x) == 3: pass\n    positive = x")
    _, found, _ = graded(saved(tmp_path, source), capsys, "--timeout", "1.5")
    tests = found["parts"]["correctness"]["tests"]
    assert [test["passed"] for test in tests[:4]] == [True, True, True, False]
    assert tests[-1]["message"] == "not reached"
    assert found["parts"]["correctness"]["score"] == round(3 / len(tests), 4)


@pytest.mark.parametrize(
    "argv",
    [
        ("new", "gem"),
        ("grade", "no-such-file.py"),
        ("grade", "."),
        ("grade", "/dev/zero"),
        ("grade", "mine.py", "--against", "naiv"),
        ("grade", "mine.py", "--timeout", "0"),
        ("grade", "mine.py", "--memory", "1"),
        ("grade", "mine.py", "--factor", "fast"),
        ("gradee", "mine.py"),
    ],
)
def test_bad_input_is_one_line(
    argv: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    saved(tmp_path, PRELU)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["exercise", *argv]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@linux
def test_what_a_process_started_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submission may not start any; whatever got past that is ended all the same."""
    mark = tmp_path / "pid"
    script = saved(
        tmp_path,
        "import os, pathlib\n"
        "if os.fork() == 0:\n"
        f"    pathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\n"
        "    os.write(1, b'{}')\n"
        "while True: pass\n",
    )
    monkeypatch.setattr(child, "__file__", str(script))
    exercise = find("prelu_backward")
    ran = runner.correctness(exercise, script, exercise.cases(), Limits(0.2, 2048))
    assert ran.ended == "timeout"
    pid = int(mark.read_text(encoding="utf-8"))
    deadline = time.monotonic() + 30
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    """Return whether a process still runs; one that nobody has collected yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(") ")[2][0] not in "ZX"


def test_processes_have_folders_of_their_own(tmp_path: Path) -> None:
    source = "import collections\nopen('left.txt', 'w').write('x')\n" + PRELU
    assert all(t["passed"] for t in outcomes(find("prelu_backward"), saved(tmp_path, source)))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]
