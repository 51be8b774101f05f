"""The public names: all there, typed, and imported only when they are used."""

from __future__ import annotations

import ast
import json
import pkgutil
import sys
from pathlib import Path

import pytest

import minidnn
from tests.imports import sources
from tests.processes import ROOT, attempt, python

LOADED = "import sys, json; print(json.dumps(sorted(sys.modules)))"


def _loaded_after(code: str) -> set[str]:
    return set(json.loads(python(f"{code}\n{LOADED}").splitlines()[-1]))


@pytest.mark.parametrize("name", minidnn.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(minidnn, name).__doc__
    assert name in dir(minidnn)


def test_the_three_lists_of_public_names_agree() -> None:
    tree = ast.parse((ROOT / "minidnn" / "__init__.py").read_text(encoding="utf-8"))
    typed = {
        alias.asname or alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == {name: f"minidnn.{home}" for name, home in minidnn._HOME.items()}
    assert sorted(minidnn.__all__) == sorted(typed)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Conv3d'"):
        getattr(minidnn, "Conv3d")  # noqa: B009  (the name does not exist: mypy would object)


def test_importing_the_package_imports_neither_numba_nor_numpy() -> None:
    loaded = _loaded_after("import minidnn")
    assert {name for name in loaded if name.startswith("minidnn")} == {"minidnn"}
    assert not loaded & {"numba", "numpy", "rich", "safetensors"}


def test_importing_a_kernel_does_not_import_the_engine() -> None:
    loaded = {m for m in _loaded_after("import minidnn.kernels.prelu") if m.startswith("minidnn")}
    assert all(m == "minidnn" or m.startswith("minidnn.kernels") for m in loaded), loaded


def test_help_imports_the_standard_library_only() -> None:
    loaded = _loaded_after(
        "from minidnn.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as done:\n    assert not done.code"
    )
    tops = {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    assert not loaded & {"numba", "numpy"}
    # What the interpreter's own start brings in (.pth files) is not our doing.
    assert tops - {name.split(".")[0] for name in _loaded_after("pass")} == {"minidnn"}


def test_importing_everything_changes_no_global_setting() -> None:
    before_and_after = python("""
import importlib, json, logging, os, random, signal, sys, warnings
import numba, numpy as np

def state():
    return {
        "numba": {k: repr(v) for k, v in vars(numba.config).items() if k.isupper()},
        "threads": numba.get_num_threads(),
        "environment": dict(os.environ),
        "numpy errors": np.geterr(),
        "numpy random": repr(np.random.get_state()),
        "random": repr(random.getstate()),
        "warnings": repr(warnings.filters),
        "signals": [repr(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "logging": repr(logging.getLogger().handlers),
        "path": sys.path,
    }

before = json.loads(json.dumps(state()))
import minidnn
from minidnn.kernels.ladder import load_all
for name in minidnn.__all__:
    getattr(minidnn, name)
load_all()
after = json.loads(json.dumps(state()))
print(json.dumps({k: [before[k], after[k]] for k in before if before[k] != after[k]}))
""")
    assert json.loads(before_and_after) == {}


def _bound_in(package: Path) -> set[str]:
    """Return the names a package's __init__.py defines or imports from elsewhere."""
    own = package.relative_to(ROOT).as_posix().replace("/", ".")
    bound: set[str] = set()
    for node in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.ImportFrom) and node.module not in (None, own):
            bound |= {alias.asname or alias.name for alias in node.names}
    return bound


def test_no_submodule_shares_the_name_of_something_public() -> None:
    packages = {path.parent for path in sources(ROOT) if path.name == "__init__.py"}
    for package in sorted(packages):
        modules = {module.name for module in pkgutil.iter_modules([str(package)])}
        public = _bound_in(package)
        if package == ROOT / "minidnn":
            public |= set(minidnn.__all__)
        assert not modules & public, package


USER = """\
import numpy as np

from minidnn import PReLU, Sequential, Tensor, no_grad

net = Sequential(PReLU(3))
x = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
loss: Tensor = net(x).sum()
loss.backward()
value: float = loss.item()
with no_grad():
    shape: tuple[int, ...] = (x * 2.0).shape
"""
WRONG = """\
from minidnn import PReLU, Tensor

PReLU("three")
shape: str = Tensor([1.0]).shape
Tensor([1.0]).no_such_method()
"""


def test_a_strictly_typed_user_file_passes_and_its_mistakes_are_seen(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="the dev extra is not installed")
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    options = ["--strict", "--config-file=", "--follow-imports=silent", "--no-error-summary"]
    done = attempt(
        sys.executable,
        "-m",
        "mypy",
        *options,
        "user.py",
        "wrong.py",
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT)},
    )
    lines = done.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines if ": error:" in line] == [
        "wrong.py:3",
        "wrong.py:4",
        "wrong.py:5",
    ], done.stdout + done.stderr
