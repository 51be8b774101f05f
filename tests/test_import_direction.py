"""Imports run one way only, and the check of it can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.imports import FOLDERS, imports, problems
from tests.processes import ROOT


def test_imports_run_one_way() -> None:
    assert not problems(ROOT), "\n".join(["", *problems(ROOT)])


def test_the_check_reads_the_whole_tree() -> None:
    assert {found.path.split("/")[0] for found in imports(ROOT)} == set(FOLDERS)
    assert any(found.name == "minidnn.kernels.ladder.Ladder" for found in imports(ROOT))


@pytest.mark.parametrize(
    ("path", "line", "broken"),
    [
        ("kernels/a.py", "from minidnn.tensor import Tensor", "may not import minidnn"),
        ("kernels/a.py", "from .. import tensor", "may not import minidnn"),
        ("kernels/a.py", "import scipy", "a kernel imports"),
        ("kernels/a.py", "import llvmlite.ir", "a kernel imports"),
        ("minidnn/a.py", "from minidnn.models.mlp import MLP", "may not import minidnn.models"),
        ("minidnn/a.py", "from minidnn import models", "may not import minidnn.models"),
        ("minidnn/layers/a.py", "def f():\n  from .. import cli", "may not import minidnn.cli"),
        ("minidnn/a.py", "import models.mlp", "imported as minidnn.models only"),
        ("minidnn/a.py", "from numba import njit", "live in kernels"),
        ("minidnn/a.py", "import importlib\nimportlib.import_module('torch')", "oracles of tests"),
        ("minidnn/measure/a.py", "import minidnn.cli.train", "may not import minidnn.cli"),
        ("minidnn/cli/a.py", "from tests.cases import Case", "may not import tests, bench"),
        ("models/a.py", "from minidnn.measure import summary", "may not import minidnn.measure"),
        ("models/a.py", "import torch.nn as nn", "oracles of tests"),
        ("tests/a.py", "from kernels import prelu", "imported as minidnn.kernels only"),
    ],
)
def test_the_check_finds(path: str, line: str, broken: str, tmp_path: Path) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(line, encoding="utf-8")
    (found,) = problems(tmp_path)
    assert found.startswith(path)
    assert broken in found


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("kernels/a.py", "import math\nimport numpy as np\nfrom .jit import kernel"),
        ("minidnn/a.py", "from minidnn.kernels import prelu\nfrom . import tensor"),
        ("models/a.py", "from minidnn.layers.conv import Conv2d\nfrom .mlp import MLP"),
        ("minidnn/measure/a.py", "from minidnn.models import build"),
        ("minidnn/cli/a.py", "def f():\n  from minidnn.measure.summary import summarize"),
        ("tests/a.py", "import torch\nfrom minidnn import cli"),
    ],
)
def test_the_check_lets_pass(path: str, line: str, tmp_path: Path) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(line, encoding="utf-8")
    assert problems(tmp_path) == []
