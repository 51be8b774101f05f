"""The reading order: the same seven stops in README and docs/reading.md, and all that they name."""

from __future__ import annotations

import ast
import re
import shlex

import pytest

from minidnn import cli
from minidnn.measure import separable_report
from minidnn.measure.shapes import QUICKNET
from tests.processes import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
# What each stop is about: a word of its title, and a file that both documents name.
STOPS = [
    ("tape", "minidnn/tensor.py"),
    ("layer", "minidnn/layers/activation.py"),
    ("kernel", "kernels/prelu.py"),
    ("depthwise", "kernels/depthwise/"),
    ("matrix product", "kernels/gemm/"),
    ("quicknet", "models/quicknet.py"),
    ("profile", "minidnn/measure/separable.py"),
]


def _sections() -> list[tuple[str, str]]:
    """Return (title, text) of the page's numbered sections."""
    parts = re.split(r"^## (\d)\. (.*)$", PAGE, flags=re.MULTILINE)
    assert parts[1::3] == [str(number) for number in range(1, len(STOPS) + 1)]
    texts = [text.split("\n## ")[0] for text in parts[3::3]]
    return list(zip(parts[2::3], texts, strict=True))


def _readme() -> list[str]:
    """Return the points of README's reading order."""
    (section,) = re.findall(r"^## Reading order\n(.*?)^## ", README, re.DOTALL | re.MULTILINE)
    points: list[str] = re.split(r"^\d\. ", section, flags=re.MULTILINE)[1:]
    return points


def test_both_documents_have_the_same_order() -> None:
    sections, points = _sections(), _readme()
    assert len(sections) == len(points) == len(STOPS)
    for (word, path), (title, text), point in zip(STOPS, sections, points, strict=True):
        assert word in title.lower()
        assert word in point.lower()
        assert f"`{path}" in text
        assert f"`{path}" in point


def _defined(source: str) -> set[str]:
    """Return the functions and classes of a file, and methods as Class.method."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            inner = [n for n in node.body if isinstance(n, ast.FunctionDef)]
            found |= {f"{node.name}.{n.name}" for n in inner}
    return found


@pytest.mark.parametrize(("title", "text"), _sections(), ids=lambda value: value[:20])
def test_what_is_to_be_read_exists(title: str, text: str) -> None:
    (told,) = re.findall(r"^- \*\*Read\*\* (.*?)^- \*\*Run", text, re.DOTALL | re.MULTILINE)
    names: set[str] = set()
    known: set[str] = set()
    for word in re.findall(r"`([^`]+)`", told):
        if "/" in word:
            known = _defined((ROOT / word).read_text(encoding="utf-8"))
        else:
            assert word in known, f"{title}: {word}"
            names.add(word)
    assert names


@pytest.mark.parametrize(("title", "text"), _sections(), ids=lambda value: value[:20])
def test_every_stop_has_one_command_and_a_question(title: str, text: str) -> None:
    (block,) = re.findall(r"^  ```sh\n(.*?)^  ```$", text, re.DOTALL | re.MULTILINE)
    (command,) = block.strip().splitlines()
    parser, _ = cli.build_parser()
    parser.parse_args(shlex.split(command)[1:])
    (asked,) = re.findall(r"^- \*\*Ask\*\* (.*?)(?:^$|\Z)", text, re.DOTALL | re.MULTILINE)
    assert "?" in asked, title


def test_commands_in_the_text_parse() -> None:
    parser, _ = cli.build_parser()
    commands = re.findall(r"`(minidnn [^`]+)`", " ".join(PAGE.split()))
    assert len(commands) >= 3
    for command in commands:
        parser.parse_args(shlex.split(command)[1:])


def test_links_inside_the_documents_lead_to_headings() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = document.read_text(encoding="utf-8")
        for name, anchor in re.findall(r"\]\(([\w/.-]*)#([^)]+)\)", text):
            other = document.parent / name if name else document
            titles = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {_anchor(title) for title in titles}, f"{document.name}: #{anchor}"


def _anchor(title: str) -> str:
    """Return what GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


# --- the main picture ------------------------------------------------------------------------

SAVED = ROOT / "docs" / "separable.json"


def test_the_committed_run_is_a_whole_one_and_says_where_it_was_taken() -> None:
    found, result = separable_report.read(SAVED)
    assert not found.quick
    assert [layer[:4] for layer in found.layers] == [tuple(p) for p in QUICKNET.pointwise]
    assert result["machine"]["cpu"]
    assert re.match(r"20\d\d-\d\d-\d\dT", result["machine"]["date"])


def test_the_command_shows_the_committed_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile-separable", "--from", str(SAVED)]) == 0
    assert "28x28x64->128" in capsys.readouterr().out


def test_the_picture_is_that_of_the_committed_run() -> None:
    _, result = separable_report.read(SAVED)
    picture = SAVED.with_suffix(".png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert separable_report.place(result["machine"]).encode() in picture
    assert len(picture) < 500_000


@pytest.mark.parametrize("document", [README, PAGE], ids=["README", "page"])
def test_captions_hold_the_committed_runs_numbers(document: str) -> None:
    found, result = separable_report.read(SAVED)
    assert re.search(r"!\[[^]]*\]\((docs/)?separable\.png\)", document)
    assert separable_report.caption(found, result["machine"]) in " ".join(document.split())
