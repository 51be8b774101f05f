"""Every way of getting minidnn to run, each also where links became text files.

Slow, and they need pip's build tools, so they run only where the environment holds
``MINIDNN_PACKAGING=1``; ``.ci/run`` sets it.
"""

from __future__ import annotations

import configparser
import json
import os
import shutil
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from minidnn import cli
from tests.exercise_answers import ANSWERS
from tests.processes import ROOT, run

needs_pip = pytest.mark.skipif(
    os.environ.get("MINIDNN_PACKAGING") != "1",
    reason="makes virtual environments: set MINIDNN_PACKAGING=1 to run it",
)
LINKS = ("kernels", "models")

# Says where everything was imported from, and runs a model without the compiler.
PROBE = """
import json
from importlib.util import find_spec
import minidnn, minidnn.kernels.prelu, minidnn.models.mlp
import numpy as np
from minidnn.kernels.ladder import using
from minidnn.models import build
model = build("mlp", num_classes=10, input_shape=(32, 32, 3), rng=np.random.default_rng(0))
with using("numpy"), minidnn.no_grad():
    shape = model.eval()(minidnn.Tensor(np.ones((2, 32, 32, 3), np.float32))).shape
print(json.dumps({
    "minidnn": minidnn.__file__,
    "kernels": minidnn.kernels.__file__,
    "models": minidnn.models.__file__,
    "shape": shape,
    "top level": [n for n in ("kernels", "models", "tests", "bench") if find_spec(n)],
}))
"""


def _setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def _packages() -> dict[str, Path]:
    """Return package name -> folder for everything setup.cfg installs."""
    options = _setup()["options"]
    lines = options["package_dir"].split()
    mapped = {lines[i]: lines[i + 2] for i in range(0, len(lines), 3)}  # name = folder
    found = {}
    for name in options["packages"].split():
        above = next((top for top in mapped if f"{name}.".startswith(f"{top}.")), "")
        inner = name.removeprefix(above).strip(".").replace(".", "/")
        found[name] = ROOT / mapped.get(above, "") / inner
    return found


def test_setup_names_every_package_and_no_other() -> None:
    folders = {
        path.parent
        for top in ("minidnn", *LINKS)
        for path in (ROOT / top).rglob("*.py")
        if path.relative_to(ROOT).parts[:2] not in {("minidnn", link) for link in LINKS}
    }
    assert set(_packages().values()) == folders
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_links_point_at_the_folders() -> None:
    for link in LINKS:
        path = ROOT / "minidnn" / link
        # In a checkout without links git leaves a text file that holds the target.
        target = path.readlink().as_posix() if path.is_symlink() else path.read_text().strip()
        assert target == f"../{link}"


# --- ways of running --------------------------------------------------------------------


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with this environment's installed packages, minidnn left out."""
    folder = tmp_path_factory.mktemp("dependencies")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "minidnn" not in entry.name.lower() and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return folder


def _copy(folder: Path, *, links: bool) -> Path:
    """Copy what an install needs, with the links or with the text files that Windows makes."""
    folder.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("minidnn", *LINKS):
        ignored = shutil.ignore_patterns("__pycache__", *(LINKS if name == "minidnn" else ()))
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for link in LINKS:
        path = folder / "minidnn" / link
        if links:
            path.symlink_to(f"../{link}")
        else:
            path.write_text(f"../{link}", encoding="utf-8")
    return folder


@pytest.fixture(params=["links", "text files"])
def checkout(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy of this checkout, in a path with a space."""
    return _copy(tmp_path / "my checkout", links=request.param == "links")


@pytest.fixture
def venv(tmp_path: Path, dependencies: Path) -> Path:
    """Return the folder of programs of a new virtual environment that sees the dependencies."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{dependencies}\n", encoding="utf-8")
    return tmp_path / "venv" / "bin"


def _install(venv: Path, *what: str | Path, cwd: Path) -> None:
    pip = ("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    run(venv / "python", *pip, *what, cwd=cwd)


def _probe(python: Path, cwd: Path, env: dict[str, str] | None = None) -> dict[str, Path]:
    """Run the probe somewhere; return where minidnn, kernels and models came from."""
    found = json.loads(run(python, "-c", PROBE, cwd=cwd, env=env).stdout)
    assert found.pop("shape") == [2, 10]
    top_level = found.pop("top level")
    # Python itself puts the folder it is started in, and PYTHONPATH, on the path.
    assert env or (cwd / "kernels").is_dir() or top_level == []
    return {name: Path(file).resolve().parent for name, file in found.items()}


def _in(checkout: Path) -> dict[str, Path]:
    return {name: checkout.resolve() / name for name in ("minidnn", *LINKS)}


def _installed(venv: Path) -> dict[str, Path]:
    (site,) = venv.resolve().parent.glob("lib/python*/site-packages")
    package = site / "minidnn"
    return {"minidnn": package, "kernels": package / "kernels", "models": package / "models"}


def _commands_work(venv: Path, cwd: Path) -> None:
    for program in ([venv / "minidnn"], [venv / "python", "-m", "minidnn"]):
        assert "usage: minidnn" in run(*program, "--help", cwd=cwd).stdout
        summary = json.loads(run(*program, "summary", "mlp", "--json", cwd=cwd).stdout)
        assert summary
    assert "prelu.forward" in run(venv / "python", "-m", "minidnn.kernels", cwd=cwd).stdout


@needs_pip
def test_checkout_runs_without_an_install(checkout: Path, venv: Path, tmp_path: Path) -> None:
    python = venv / "python"
    assert _probe(python, checkout) == _in(checkout)
    assert _probe(python, tmp_path, {"PYTHONPATH": str(checkout)}) == _in(checkout)
    assert "usage: minidnn" in run(python, "-m", "minidnn", "--help", cwd=checkout).stdout


@needs_pip
def test_editable_install_runs_the_checkout(checkout: Path, venv: Path, tmp_path: Path) -> None:
    _install(venv, "-e", ".", cwd=checkout)
    assert _probe(venv / "python", tmp_path) == _in(checkout)
    assert _probe(venv / "python", checkout) == _in(checkout)
    _commands_work(venv, tmp_path)


@needs_pip
def test_install_from_elsewhere_runs_the_copy(checkout: Path, venv: Path, tmp_path: Path) -> None:
    _install(venv, checkout, cwd=tmp_path)
    shutil.rmtree(checkout)
    assert _probe(venv / "python", tmp_path) == _installed(venv)
    _commands_work(venv, tmp_path)


@needs_pip
def test_install_from_its_own_root_runs_there_and_elsewhere(
    checkout: Path, venv: Path, tmp_path: Path
) -> None:
    _install(venv, ".", cwd=checkout)
    assert _probe(venv / "python", tmp_path) == _installed(venv)
    # Python started in the checkout takes the checkout, the installed command its own copy.
    assert _probe(venv / "python", checkout) == _in(checkout)
    _commands_work(venv, checkout)


# --- what is inside ---------------------------------------------------------------------


def _build(what: str, into: Path, checkout: Path) -> None:
    build = ("-m", "build", "--no-isolation", "--skip-dependency-check")
    run(sys.executable, *build, what, "--outdir", into, cwd=checkout)


def _contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@needs_pip
def test_wheel_and_sdist_hold_the_packages_and_nothing_else(checkout: Path, tmp_path: Path) -> None:
    _build("--wheel", tmp_path / "direct", checkout)
    _build("--sdist", tmp_path / "sdist", checkout)
    (sdist,) = (tmp_path / "sdist").glob("minidnn-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # not in Python 3.11.3
        archive.extractall(tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    _build("--wheel", tmp_path / "again", unpacked)

    (wheel,) = (tmp_path / "direct").glob("*.whl")
    (again,) = (tmp_path / "again").glob("*.whl")
    contents = _contents(wheel)
    assert contents == _contents(again)

    code = {name for name in contents if ".dist-info/" not in name}
    expected = {
        f"{package.replace('.', '/')}/{path.name}"
        for package, folder in _packages().items()
        for path in folder.glob("*.py")
    }
    page = {f"minidnn/measure/report/page.{kind}" for kind in ("html", "css", "js")}
    assert code == expected | page | {"minidnn/py.typed"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in contents)


@needs_pip
def test_metadata_names_the_declared_dependencies_only(checkout: Path, venv: Path) -> None:
    _install(venv, ".", cwd=checkout)
    code = "from importlib.metadata import requires; print(*requires('minidnn'), sep='\\n')"
    needed = run(venv / "python", "-c", code, cwd=venv).stdout.splitlines()
    core = {line.split(">=")[0] for line in needed if "extra ==" not in line}
    assert core == {
        "numpy", "numba", "threadpoolctl", "safetensors", "rich", "platformdirs", "tomli"
    }  # fmt: skip


# --- every command, as a user has it ------------------------------------------------------


@needs_pip
def test_every_command_runs_from_an_installed_wheel(tmp_path: Path, venv: Path) -> None:
    copy = _copy(tmp_path / "copy", links=True)
    _build("--wheel", tmp_path / "wheels", copy)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    _install(venv, wheel, cwd=tmp_path)
    shutil.rmtree(copy)
    minidnn = venv / "minidnn"
    help_text = run(minidnn, "--help", cwd=tmp_path).stdout

    (tmp_path / "mine.py").write_text(ANSWERS["prelu_backward"], encoding="utf-8")
    mlp = ("mlp", "--set", "model.hidden=[8]")
    short = ("--limit", "64", "--epochs", "1", "--progress", "none", "--out", "run")
    quick = ("--size", "classroom", "--rounds", "7")
    commands: dict[str, list[tuple[str, ...]]] = {
        "train": [("train", *mlp, *short)],
        "evaluate": [("evaluate", "run")],
        "predict": [("predict", "run", "picture.png"), ("predict", "m.minidnn", "picture.png")],
        "compile": [("compile", "run", "-o", "m.minidnn", "--explain")],
        "quantize": [("quantize", "run", "--calibrate", "20", "-o", "q.minidnn", "--layers")],
        "fps": [("fps", "m.minidnn", "--seconds", "0.1"), ("fps", "run", "--seconds", "0.1")],
        "summary": [("summary", "quicknet"), ("summary", "mlp", "--json")],
        "profile": [("profile", "train", "mlp", "--batch", "4", "--steps", "2", "--json")],
        "ladder": [("ladder", "relu", "--size", "classroom", "--json")],
        "profile-separable": [
            ("profile-separable", "--size", "classroom", "--quick", "-o", "separable.json"),
            ("profile-separable", "--from", "separable.json"),
        ],
        "roofline": [("roofline", "--op", "relu", "--rung", "numpy", "--size", "classroom")],
        "inspect": [("inspect", "relu.forward:naive", "--size", "classroom")],
        "report": [("report", "--size", "classroom", "--quick")],
        "data": [("data", "show", "shapes", "--out", "picture.png", "--columns", "2")],
        "bench": [
            ("bench", "run", "relu.forward", *quick, "-o", "bench.json"),
            ("bench", "compare", "bench.json", "bench.json"),
            ("bench", "compare", "relu.forward:naive", "relu.forward:numpy", *quick),
        ],
        "warmup": [("warmup", "mlp")],
        "doctor": [("doctor",)],
        "exercise": [
            ("exercise", "list"),
            ("exercise", "new", "gemm"),
            ("exercise", "grade", "mine.py", "--against", "numpy", "--factor", "0.01"),
        ],
    }
    for name in cli.COMMANDS:
        assert name in help_text
    assert set(commands) == set(cli.COMMANDS)
    first = (
        "doctor",
        "summary",
        "inspect",
        "warmup",
        "train",
        "evaluate",
        "compile",
        "quantize",
        "data",
    )
    for name in (*first, *(set(cli.COMMANDS) - set(first))):
        for command in commands[name]:
            assert run(minidnn, *command, cwd=tmp_path).stdout.strip(), command
