"""Exercises: who lets a library do the work, or forges results, does not pass."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidnn.measure.exercises import grader, judge, rules, runner
from minidnn.measure.exercises.catalogue import find
from minidnn.measure.exercises.child import KEPT, first_number
from tests.exercise_answers import ANSWERS
from tests.exercise_runs import LIMITS, graded, saved

PRELU = ANSWERS["prelu_backward"]

# --- the library's own answers ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("gemm", "import minidnn.kernels.gemm", "line 1: imports minidnn.kernels.gemm"),
        ("gemm", "from kernels import gemm as g", "line 1: imports kernels"),
        ("gemm", "from scipy.signal import convolve", "imports scipy.signal"),
        ("gemm", "def f():\n    import torch", "line 2: imports torch"),
        ("gemm", "from . import gemm as g", "line 1: imports"),
        ("gemm", "from numpy import *", "imports everything from numpy"),
        ("gemm", "from numpy import dot as plus", "imports numpy.dot"),
        ("gemm", "import numpy as np\ny = np.matmul(1, 2)", "line 2: uses matmul"),
        ("gemm", "y = [1] @ [2]", "line 1: uses the operator @"),
        ("gemm", "y = [1]\ny @= y", "line 2: uses the operator @"),
        ("pointwise_forward", "import numpy as np\nnp.einsum('i,i', 1, 2)", "line 2: uses einsum"),
        ("depthwise_forward", "import numpy as np\nnp.convolve([1], [2])", "uses convolve"),
        ("prelu_backward", "eval('1')", "uses eval"),
        ("prelu_backward", "e = eval", "uses eval"),
        ("prelu_backward", "().__class__.__bases__", "uses .__bases__"),
        ("prelu_backward", "import numpy as np\nnp.ctypeslib", "uses .ctypeslib"),
        ("prelu_backward", "import collections\ncollections._sys.modules", "uses .modules"),
        ("prelu_backward", "import numpy as np\nnp.where = 1", "changes np.where"),
        ("prelu_backward", "import importlib", "imports importlib; allowed"),
        ("prelu_backward", "import subprocess", "imports subprocess; allowed"),
        ("prelu_backward", "import gc", "imports gc; allowed"),
        ("prelu_backward", "import ctypes", "imports ctypes; allowed"),
        ("prelu_backward", "import sys", "imports sys; allowed"),
        ("prelu_backward", "__import__('minidnn')", "uses __import__"),
        ("prelu_backward", "from collections import _sys", "imports collections._sys"),
        ("prelu_backward", "from numpy import os", "imports numpy.os"),
        ("prelu_backward", "import numba.core.types as t", "imports numba.core.types"),
        ("prelu_backward", "import numba\nnumba.extending", "uses .extending"),
        ("gemm", "import numba\nnumba.types.ExternalFunction", "uses .ExternalFunction"),
        ("gemm", "import numba\nnumba.set_num_threads(1)", "uses .set_num_threads"),
        ("gemm", "import numpy as np\nnp.ma.innerproduct", "uses innerproduct"),
        ("gemm", "match 1:\n    case object(dot=f): pass", "line 2: uses dot"),
        ("gemm", "match 1:\n    case object(sys=f): pass", "line 2: uses .sys"),
        ("prelu_backward", "(i for i in ()).gi_frame", "uses .gi_frame"),
        ("prelu_backward", "import typing\ntyping.get_type_hints", "uses .get_type_hints"),
        ("prelu_backward", "import numpy as np\nnp.testing.measure", "uses .testing"),
        ("prelu_backward", "from functools import update_wrapper", "functools.update_wrapper"),
        ("prelu_backward", "import numpy as np\nnp" + ".a" * 2000 + " = 1", "changes np.a.a"),
    ],
)
def test_a_file_that_breaks_the_rules_never_runs(
    name: str, line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, f"{line}\n{ANSWERS[name]}")
    code, found, _ = graded(path, capsys)
    assert (code, found["verdict"]) == (1, "forbidden")
    assert any(message in text for text in found["parts"]["rules"]["broken"])
    assert found["parts"]["rules"]["score"] == 0
    assert found["parts"]["correctness"] == {"score": 0, "tests": []}


def test_what_a_submission_needs_is_allowed() -> None:
    source = (
        "import math\nimport numpy as np\nfrom numba import njit, prange\n"
        "from numpy.lib.stride_tricks import as_strided\n"
        "y = np.zeros(3)\ny.shape = (3, 1)\ny[0] = np.add.reduce(y) * math.pi\n"
    )
    assert rules.broken(ast.parse(source), find("gemm").forbidden) == []
    product = ast.parse("import numpy as np\ny = np.einsum('i,i', 1, 2) @ 3")
    assert rules.broken(product, find("batchnorm_backward").forbidden) == []


SNEAKING = """
import collections
modules = collections._sys.modules
{imported}
def prelu_backward(dy, x, slope):
    raise ValueError([name for name in modules if name.startswith("minidnn")])
"""


@pytest.mark.parametrize(
    "imported",
    [
        "try:\n    import minidnn\nexcept:\n    pass",
        "modules['importlib'].import_module('minidnn.kernels.prelu')",
        "modules['importlib'].import_module('scipy.signal')",
    ],
)
def test_a_library_is_out_of_reach_whatever_the_text_says(imported: str, tmp_path: Path) -> None:
    """The rules would not let these run; see what stands behind them."""
    exercise = find("prelu_backward")
    path = saved(tmp_path, SNEAKING.format(imported=imported))
    ran = runner.correctness(exercise, path, exercise.cases()[:1], LIMITS)
    if "except" in imported:
        assert ran.answers[-2].record["imports"] == ["minidnn"]
    else:
        assert "cannot be imported in an exercise (line 4)" in ran.answers[-1].record["unusable"]


def test_minidnn_is_out_of_reach_while_a_submission_is_timed(tmp_path: Path) -> None:
    path = saved(tmp_path, SNEAKING.format(imported=""))
    ran = runner.speed(find("prelu_backward"), path, "numpy", LIMITS)
    assert ran.answers[-1].record["error"] == "ValueError: [] (line 6)"


# What the rules would not let run, and audit events refuse all the same.
REACHING = """
import collections
system = collections._sys
modules = system.modules
def prelu_backward(dy, x, slope):
    {action}
"""


@pytest.mark.parametrize(
    ("action", "event"),
    [
        ("modules['os'].system('true')", "os.system"),
        ("modules['os'].fork()", "os.fork"),
        ("modules['subprocess'].run(['true'])", "subprocess.Popen"),
        ("modules['_ctypes'].dlopen('libm.so.6', 2)", "ctypes.dlopen"),
        ("modules['gc'].get_objects()", "gc.get_objects"),
        ("system._getframe(1).f_locals", "sys._getframe"),
        ("try: system._getframe(1)\n    except BaseException: pass", "sys._getframe"),
    ],
)
def test_other_processes_libraries_and_variables_are_out_of_reach(
    action: str, event: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = REACHING.format(action=action)
    for module in ("gc", "subprocess", "_ctypes"):
        name = f"modules['{module}']"
        source = source.replace(name, f"modules['importlib'].import_module('{module}')")
    path = saved(tmp_path, source)
    exercise = find("prelu_backward")
    ran = runner.correctness(exercise, path, exercise.cases()[:1], LIMITS)
    assert ran.answers[-2].record["imports"] == [event]
    monkeypatch.setattr(rules, "broken", lambda *_: [])
    found = grader.grade(path, against=None, factor=1, limits=LIMITS)
    assert (found.verdict, found.message) == ("forbidden", f"reaches for {event} while it runs")


def test_numba_and_the_standard_library_keep_what_they_need(tmp_path: Path) -> None:
    source = (
        "import collections, dataclasses, enum, typing\nimport numba\nimport numpy as np\n"
        "Pair = collections.namedtuple('Pair', 'a b')\n"
        "class More(typing.NamedTuple):\n    a: int\n"
        "class Kind(enum.Enum):\n    ONE = 1\n"
        "@dataclasses.dataclass\nclass Data:\n    a: int = 1\n"
        "@numba.vectorize\ndef double(x):\n    return 2 * x\n"
        "@numba.njit(parallel=True)\ndef fill(x):\n"
        "    for i in numba.prange(x.size):\n        x[i] = i\n"
        "fill(double(np.ones(3)))\n"
    )
    assert rules.broken(ast.parse(source), frozenset()) == []
    path = saved(tmp_path, source + PRELU)
    exercise = find("prelu_backward")
    ran = runner.correctness(exercise, path, exercise.cases()[:1], LIMITS)
    assert ran.ended == "done", ran.answers
    assert ran.answers[-2].record["imports"] == []


LAZY = """
import numpy as np

class Lazy(np.ndarray):
    @property
    def nbytes(self):
        self[...] = 1
        return 4

def gemm(a, b):
    return np.zeros((a.shape[0], b.shape[1]), a.dtype).view(Lazy)
"""


def test_work_cannot_be_put_off_until_somebody_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, found, _ = graded(saved(tmp_path, LAZY), capsys)
    assert found["verdict"] == "wrong"
    assert "expected y as arrays, got Lazy" in found["message"]


# --- forged results ---------------------------------------------------------------------------


def test_printing_results_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = json.dumps({"done": True, "overwritten": [], "verdict": "passed", "sizes": []})
    source = f"print({fake!r}, flush=True)\n{PRELU.replace('x > 0', 'x < 0')}\nprint({fake!r})\n"
    code, found, _ = graded(saved(tmp_path, source), capsys)
    assert (code, found["verdict"]) == (1, "wrong")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense\n",
        b"[]\n",
        b'{"case": "odd sizes"}\n',
        b'{"case": "odd sizes", "sizes": [99999999]}\n',
        b'{"case": "odd sizes", "sizes": [-1]}\n',
        b'{"case": "odd sizes", "sizes": []}\n',
        b'{"case": "odd sizes", "sizes": [], "changed": [], '
        b'"returned": {"arrays": [{}, {}], "many": true}}\n',
        b'{"case": "odd sizes", "sizes": [4], "changed": [], '
        b'"returned": {"arrays": [{"dtype": "O", "shape": [1]}], "many": false}}\n1234',
        b'{"case": "odd sizes", "sizes": [], "changed": [99], "returned": {"kind": 1}}\n',
        b'{"case": "odd sizes", "sizes": [1e999]}\n',
        b'{"case": "odd sizes", "sizes": {"4": 4}}\n1234',
        b'{"case": "odd sizes", "sizes": [4], "changed": [], "returned": {"arrays": '
        b'[{"dtype": "float32", "shape": [10000000000000000000000]}], "many": false}}\n1234',
        b'{"case": "odd sizes", "sizes": [], "changed": [], '
        b'"returned": {"arrays": [], "many": 1000000000000}}\n',
        b'{"case": ["odd sizes"], "sizes": [], "imports": 3, "overwritten": 3}\n',
        b'{"case": "odd sizes", "sizes": [], "error": "two\\nlines \\ud800"}\n',
        b"[" * 100_000,
    ],
)
def test_a_forged_answer_passes_no_test(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exercise = find("prelu_backward")
    cases = exercise.cases()
    ran = runner.Ran(runner.parse(data), "done")
    tests = grader.judged(exercise, cases, ran)
    assert not any(test["passed"] for test in tests)
    assert not any("\n" in test["message"] for test in tests)
    json.dumps(tests).encode()
    "".join(test["message"] for test in tests).encode()
    monkeypatch.setattr(runner, "correctness", lambda *_: ran)
    found = grader.grade(saved(tmp_path, PRELU), against=None, factor=1, limits=LIMITS)
    assert found.verdict in ("wrong", "crashed")


def test_endless_records_are_read_in_no_time() -> None:
    answers = runner.parse(b'{"sizes": []}\n' * 1_000_000)
    assert len(answers) == runner.MOST_RECORDS


def _timing(seconds: object = None, **changes: object) -> list[runner.Answer]:
    """Return the records of a right timed call, with some keys changed; None leaves a key out."""
    exercise = find("prelu_backward")
    work = exercise.work()
    args = work.drawn()
    args[0].reshape(-1)[0] = first_number(1)
    arrays = [a.astype(np.float32) for a in judge.wanted(exercise, args, work.settings)]
    described = [{"dtype": str(a.dtype), "shape": list(a.shape)} for a in arrays]
    record: dict[str, Any] = {
        "call": 1,
        "returned": {"many": True, "arrays": described},
        **changes,
    }
    if seconds is None:
        seconds = {"ours": [1.0] * 9, "theirs": [2.0] * 9}
    called = runner.Answer({k: v for k, v in record.items() if v is not None}, arrays)
    return [called, runner.Answer({"seconds": seconds})]


def _verdict(
    answers: list[runner.Answer], monkeypatch: pytest.MonkeyPatch
) -> tuple[str, str, grader.Part]:
    """Return what becomes of a timing whose process ended by itself."""
    monkeypatch.setattr(runner, "speed", lambda *_: runner.Ran(answers, "done"))
    part = grader.Part(0)
    with pytest.raises(grader.StoppedError) as stopped:
        grader.check_speed(part, find("prelu_backward"), Path("x.py"), "naive", 1.0, LIMITS)
    return stopped.value.verdict, str(stopped.value), part


def test_a_timing_as_it_should_be_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict, _, part = _verdict(_timing(), monkeypatch)
    assert (verdict, part.found["ratio"]) == ("passed", 2.0)


NAN = float("nan")


@pytest.mark.parametrize(
    "changes",
    [
        {"call": None},
        {"call": "many"},
        {"call": NAN},
        {"call": 10**400},
        {"returned": None},
        {"returned": 5},
        {"returned": {"many": True}},
        {"seconds": 5},
        {"seconds": {}},
        {"seconds": {"ours": [1.0]}},
        {"seconds": {"ours": [], "theirs": []}},
        {"seconds": {"ours": [1.0], "theirs": [1.0, 2.0]}},
        {"seconds": {"ours": [NAN] * 9, "theirs": [1.0] * 9}},
        {"seconds": {"ours": [1.0] * 9, "theirs": [float("inf")] * 9}},
        {"seconds": {"ours": [-1.0] * 9, "theirs": [1.0] * 9}},
        {"seconds": {"ours": [0.0] * 9, "theirs": [1.0] * 9}},
        {"seconds": {"ours": ["fast"] * 9, "theirs": [1.0] * 9}},
        {"seconds": {"ours": [[1.0]] * 9, "theirs": [1.0] * 9}},
        {"seconds": {"ours": [1.0] * 10**5, "theirs": [2.0] * 10**5}},
    ],
)
def test_a_forged_timing_is_not_believed(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _verdict(_timing(**changes), monkeypatch)
    assert found[:2] == ("wrong", "the timed call: no readable answer")


def test_a_timing_that_came_twice_or_not_at_all_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for answers in (_timing() * 2, _timing()[:1], _timing()[1:], []):
        found = _verdict(answers, monkeypatch)
        assert found[:2] == ("wrong", "the timed call: no readable answer")


def test_a_timing_without_its_arrays_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = _timing()
    answers[0].arrays.pop()
    assert _verdict(answers, monkeypatch)[:2] == ("wrong", "the timed call: no readable answer")


REMEMBERING = """
import numpy as np
kept = {}

def prelu_backward(dy, x, slope):
    if id(x) not in kept or x.size < 10_000:
        positive = x > 0
        dx = np.where(positive, dy, slope * dy)
        dslope = np.where(positive, 0, x * dy).sum((0, 1, 2), dtype=np.float64)
        kept[id(x)] = dx, dslope.astype(x.dtype)
    return kept[id(x)]
"""


def test_remembering_the_timed_answer_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, REMEMBERING)
    code, found, _ = graded(path, capsys, "--against", "numpy")
    assert (code, found["verdict"]) == (1, "wrong")
    assert found["message"].startswith("the timed call, 14x14x256, batch 4: dx[0, 0, 0, 0]")


def test_timed_calls_are_sampled_all_alike(tmp_path: Path) -> None:
    ran = runner.speed(find("prelu_backward"), saved(tmp_path, PRELU), "numpy", LIMITS)
    numbers = [a.record["call"] for a in ran.answers if "call" in a.record]
    assert len(numbers) == KEPT + 1
    assert max(numbers) == numbers[-1]
    assert sum(n > KEPT for n in numbers[:-1]) > 0  # else one in millions
    assert grader._wrong_result(find("prelu_backward"), ran.answers[-6:-2]) is None


def test_one_stale_result_among_timed_calls_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    stale, last = _timing(call=2)[0], _timing()
    verdict, message, _ = _verdict([last[0], stale, *last], monkeypatch)
    assert verdict == "wrong"
    assert "dx[0, 0, 0, 0]: expected" in message
