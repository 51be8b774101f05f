"""Exercises: who lets a library do the work, or forges results, does not pass."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from minidnn.measure.exercises import grader, rules, runner
from minidnn.measure.exercises.catalogue import find
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
    ],
)
def test_a_forged_answer_passes_no_test(data: bytes) -> None:
    exercise = find("prelu_backward")
    cases = exercise.cases()
    tests = grader.judged(exercise, cases, runner.Ran(runner.parse(data), "done"))
    assert not any(test["passed"] for test in tests)


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
