"""The tree itself: sizes, layout, and documents that say what is true."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidnn import cli
from tests.imports import FOLDERS, sources
from tests.processes import ROOT, run

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LAYOUT = {
    ".ci",
    ".gitignore",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "bench",
    "docs",
    "kernels",
    "minidnn",
    "models",
    "pyproject.toml",
    "setup.cfg",
    "tests",
}
TWO_COMMANDS = [
    "python -m pip install . && minidnn train",
    "python -m pip install '.[test]' && python -m pytest",
]
MAX_LINES = 400


def _tracked() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"not a git checkout: {done.stderr.strip()}")
    return [name for name in done.stdout.split("\0") if name]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- the tree -----------------------------------------------------------------------------


def _lines_of_code(source: str) -> int:
    """Count lines that are neither empty, nor comment, nor docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            skipped.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in skipped
        for number, line in enumerate(source.splitlines(), start=1)
    )


def test_no_file_holds_a_merge_that_nobody_finished() -> None:
    marks = re.compile(rb"^(<{7}|>{7}) ", re.MULTILINE)
    assert marks.search(b"text\n" + b"<" * 7 + b" HEAD\n")
    files = [name for name in _tracked() if (ROOT / name).is_file()]
    assert [name for name in files if marks.search((ROOT / name).read_bytes())] == []


def test_counting_leaves_out_comments_docstrings_and_empty_lines() -> None:
    source = '"""Two\nlines."""\n\n# comment\ndef f():\n    """Doc."""\n    return """a\nb"""\n'
    assert _lines_of_code(source) == 3


@pytest.mark.parametrize("path", list(sources(ROOT)), ids=_name)
def test_file_fits_one_sitting(path: Path) -> None:
    assert _lines_of_code(path.read_text(encoding="utf-8")) <= MAX_LINES


def test_top_level_is_as_laid_out() -> None:
    assert {name.split("/")[0] for name in _tracked()} == LAYOUT


def test_no_file_names_a_machines_own_paths() -> None:
    machine = re.compile(r"(?<![\w.~$}])/(work|root|home|Users|mnt)/\w|[A-Z]:\\Users|\.\./shared")
    found = []
    for name in _tracked():
        path = ROOT / name
        if path.is_file() and name != _name(Path(__file__)):
            text = path.read_text(encoding="utf-8", errors="ignore")
            found += [f"{name}: {line}" for line in text.splitlines() if machine.search(line)]
    assert not found, "\n".join(found)


# --- documents ----------------------------------------------------------------------------


def _blocks(document: Path, *languages: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of the fenced blocks in one of the languages."""
    text = document.read_text(encoding="utf-8")
    for block in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if block[1] in languages:
            yield text.count("\n", 0, block.start()) + 1, block[2]


def _commands(document: Path) -> Iterator[str]:
    """Yield the shell commands of a document: a comment cut off, joined lines joined."""
    for _, block in _blocks(document, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.split("&&"):
                if words := shlex.split(command, comments=True):
                    yield shlex.join(words)


def _all_commands() -> list[str]:
    return list(dict.fromkeys(c for document in DOCUMENTS for c in _commands(document)))


def test_readme_opens_with_the_two_commands() -> None:
    line, first = next(_blocks(ROOT / "README.md", "sh"))
    assert first.splitlines() == TWO_COMMANDS
    assert line < 15, "they belong on the first screen"


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_paths_in_documents_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    for link in links:
        assert link.startswith("https://") or (document.parent / link).exists(), link
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    tops = "|".join(map(re.escape, sorted(LAYOUT)))
    for path in re.findall(rf"`((?:{tops})/[\w./-]*)`", prose):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize(
    "command", [c for c in _all_commands() if c.startswith("minidnn ")], ids=str
)
def test_every_minidnn_command_in_the_documents_parses(command: str) -> None:
    parser, _ = cli.build_parser()
    parser.parse_args(shlex.split(command)[1:])  # exits on a wrong option


@pytest.mark.parametrize(
    "command", [c for c in _all_commands() if c.startswith("python -m ")], ids=str
)
def test_every_module_run_in_the_documents_exists(command: str) -> None:
    module = shlex.split(command)[2]
    if module.split(".")[0] in FOLDERS:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    else:
        assert module in {"pip", "pytest", "venv", "build", "mypy"}


@pytest.mark.parametrize(
    ("document", "line", "snippet"),
    [(d, line, text) for d in DOCUMENTS for line, text in _blocks(d, "python")],
    ids=lambda value: _name(value) if isinstance(value, Path) else None,
)
def test_every_python_snippet_runs(document: Path, line: int, snippet: str, tmp_path: Path) -> None:
    del document, line  # for the test's name and the message of a failure
    run(sys.executable, "-c", snippet, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})


def test_every_environment_variable_is_documented() -> None:
    used = {
        name
        for path in sources(ROOT)
        for name in re.findall(r"""["'](MINIDNN_[A-Z0-9_]+)["']""", path.read_text("utf-8"))
    }
    named = {
        name for d in DOCUMENTS for name in re.findall(r"MINIDNN_[A-Z0-9_]+", d.read_text("utf-8"))
    }
    assert used >= {"MINIDNN_CACHE_DIR", "MINIDNN_SIMD"}
    assert named == used


def test_readmes_loop_is_short() -> None:
    loops = [text for _, text in _blocks(ROOT / "README.md", "python") if ".backward()" in text]
    assert loops, "README shows a training loop"
    assert min(_lines_of_code(loop) for loop in loops) <= 15
