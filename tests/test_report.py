"""`minidnn report`: every number of its page is a measured one, and nothing is loaded."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from minidnn.cli import main
from minidnn.errors import InputError
from minidnn.kernels.ladder import load_all
from minidnn.measure import int8_work, ladders, peaks, timing
from minidnn.measure.report import access, collect, markup, stored, svg, words
from minidnn.measure.report.page import page
from minidnn.measure.separable import PASSES
from minidnn.measure.trace import Span, Trace
from tests.report_sample import PEAKS, sample

VOID = {"meta", "input", "br"}


class Reader(HTMLParser):
    """Reads a page: elements with their attributes, texts, and whether all ends fit."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1][-1] += data

    def values(self, tag: str, attribute: str) -> list[str]:
        """Return an attribute of all elements of a kind."""
        return [
            str(found[attribute])
            for name, found in self.elements
            if name == tag and attribute in found
        ]


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return sample()


@pytest.fixture(scope="module")
def text(result: dict[str, Any]) -> str:
    return page(result)


@pytest.fixture(scope="module")
def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


# --- the page is whole ---------------------------------------------------------------------


def test_headings_are_in_order(read: Reader) -> None:
    levels = [int(name[1]) for name, _ in read.elements if re.fullmatch(r"h\d", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_chart_says_what_it_shows(read: Reader, text: str) -> None:
    charts = [found for name, found in read.elements if name == "svg" and "role" in found]
    assert len(charts) > 30
    for found in charts:
        label = str(found["aria-label"])
        assert found["role"] == "img"
        assert len(label) > 40
        assert re.search(r"\d", label)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert len(captions) == len(charts)
    assert all(f'aria-label="{caption}"' in text for caption in captions)


def test_every_control_has_a_label_and_every_panel_a_picker(read: Reader, text: str) -> None:
    controls = re.findall(r"<label>[^<]*(?:<[^>]*>)*?<(?:select|input)", text)
    assert len(controls) == sum(name in {"select", "input"} for name, _ in read.elements)
    pickers = read.values("div", "data-picks")
    assert len(pickers) == len(set(pickers))
    assert set(read.values("div", "data-of")) <= set(pickers)
    assert set(read.values("g", "data-marked-by")) <= set(pickers)
    keys: dict[str, list[str]] = {}
    for name, found in read.elements:
        if name == "div" and "data-of" in found:
            keys.setdefault(str(found["data-of"]), []).append(str(found["data-key"]))
    assert all(len(own) == len(set(own)) for own in keys.values())


def test_one_panel_of_each_picker_is_seen_without_a_script(read: Reader) -> None:
    seen: dict[str, int] = {}
    for name, found in read.elements:
        if name == "div" and "data-of" in found:
            seen[str(found["data-of"])] = seen.get(str(found["data-of"]), 0) + (
                "hidden" not in found
            )
    assert seen
    assert set(seen.values()) == {1}


def test_nothing_is_loaded(read: Reader, text: str) -> None:
    for name, found in read.elements:
        assert name not in {"link", "img", "iframe", "object", "embed", "base"}
        assert "src" not in found
        assert str(found.get("href", "#")).startswith("#")
    assert "default-src 'none'" in text
    for forbidden in ("url(", "@import", "http://", "https://", "fetch(", "innerHTML"):
        assert forbidden not in text


def test_ids_are_unique_and_links_lead_to_them(read: Reader) -> None:
    ids = [str(found["id"]) for _, found in read.elements if "id" in found]
    assert len(ids) == len(set(ids))
    links = read.values("a", "href")
    assert len(links) == 6
    assert {link[1:] for link in links} <= set(ids)


# --- the numbers are those of the file ----------------------------------------------------


def _row(read: Reader, *start: str) -> list[str]:
    found = [row for row in read.rows if row[: len(start)] == list(start)]
    assert len(found) == 1, found
    return found[0]


def test_peaks_are_in_their_tables(read: Reader, result: dict[str, Any]) -> None:
    found = result["peaks"]
    for isa, rate in found["by_isa"].items():
        one = found["alone"]["by_isa"][isa]
        assert _row(read, isa) == [isa, f"{one / 1e9:.4g}", f"{rate / 1e9:.4g}"]
    for level in found["levels"]:
        rows = [row for row in read.rows if row[0].startswith(f"{level['name']} ")]
        assert rows[0][-1] == f"{level['read'] / 1e9:.3g}"


def test_layers_of_every_level_and_pass_are_there(text: str, result: dict[str, Any]) -> None:
    for layer in result["separable"]["layers"]:
        for level, both in layer["levels"].items():
            for way, one in both.items():
                ratio, low, high = one["ratio"]
                said = f"{ratio:.3f} ({low:.3f} to {high:.3f}) of the full one&#x27;s time"
                key = markup.escaped(f"{layer['layer']}|{level}|{way}")
                panel = text.partition(f'data-key="{key}"')[2].partition('class="panel"')[0]
                assert said in panel
                assert f"{words.ms(one['full'])} ms" in panel
                assert f"{words.ms(one['separable'])} ms" in panel
                assert f"{layer['predicted']:.3f} is predicted" in panel
        for way in PASSES:
            assert markup.escaped(layer["why"][way]) in text


def test_bars_are_as_long_as_their_numbers(read: Reader, result: dict[str, Any]) -> None:
    one = result["separable"]["layers"][0]["levels"]["fastest"]["forward"]
    end = max(one["full"], one["separable"])
    widths = set(read.values("rect", "width"))
    assert svg.percent(one["full"] / end) in widths
    assert svg.percent(one["depthwise"] / end) in widths
    assert svg.percent((one["separable"] - one["depthwise"]) / end) in widths


def test_networks_and_activations_are_there(text: str, result: dict[str, Any]) -> None:
    for one in result["separable"]["networks"].values():
        for rate in one["rates"].values():
            assert f"{words.number(rate, 4)} images/s" in text
    for at in result["separable"]["activations"]:
        for way in PASSES:
            for seconds in at[way]["seconds"].values():
                assert f"{words.number(1e6 * seconds)} µs" in text
            assert f"{at[way]['prelu_over_leaky'][0]:.3f} (0.900 to 1.900) times" in text


def test_rungs_are_in_tables_and_cards(read: Reader, text: str, result: dict[str, Any]) -> None:
    for ladder in result["ladders"]:
        for row in ladder["rows"]:
            about = "" if row["turns"] else "~"
            time = f"{about}{words.ms(row['seconds'], 4)} ms"
            key = f"rung of {ladder['ladder']} at {ladder['label']}"
            card = text.partition(f'data-of="{key}" data-key="{row["rung"]}"')[2]
            card = card.partition('class="panel"')[0]
            assert time in card
            assert row["idea"] in card
            name = f"{row['rung']} *" if row["chosen"] else row["rung"]
            assert [name, f"{about}{1e3 * row['seconds']:,.4g}"] in [r[:2] for r in read.rows]
        first, last = ladder["rows"][0], ladder["rows"][-1]
        assert f"{words.number(first['seconds'] / last['seconds'])} times as fast" in text


def test_points_are_under_the_roof(read: Reader, result: dict[str, Any]) -> None:
    for point in result["points"]:
        row = _row(read, point["ladder"], "simd")
        assert row[5] == f"{point['bytes_per_second'] / 1e9:.3g}"
        assert row[-1] == f"{point['share']:.0%}"
    marks = [
        str(found["data-key"])
        for name, found in read.elements
        if name == "svg" and "data-key" in found
    ]
    shown = [*["depthwise.forward", "depthwise.backward"] * 2, "gemm.nn"]  # all, and one pass
    assert sorted(marks) == sorted(shown * 2)  # a mark and a name


def test_kernels_on_bytes_bring_their_own_roof(result: dict[str, Any], text: str) -> None:
    codes = {**result["points"][2], "ladder": "int8_gemm.forward"}
    drawn = page({**result, "points": [*result["points"], codes]})
    roof = f"8-bit {int8_work.peak_of('int8_gemm.forward', PEAKS.flops) / 1e9:.4g}"
    assert roof in drawn
    assert roof not in text


def test_layers_of_the_step_are_there(read: Reader, text: str, result: dict[str, Any]) -> None:
    for layer in result["step"]["layers"]:
        row = _row(read, layer["label"])
        assert row[1] == f"{1e3 * layer['forward']['seconds']:.2f}"
        assert row[2] == f"{1e3 * layer['backward']['seconds']:.2f}"
        assert f"{words.ms(layer['seconds'])} ms, {words.share(layer['share'])}" in text
    for span in result["timeline"]:
        if span["category"] != "step":
            assert f"{markup.escaped(span['name'])}: {words.ms(span['seconds'])} ms" in text


def test_a_report_reads_back_what_was_written(result: dict[str, Any]) -> None:
    found = stored.report(result)
    assert json.loads(json.dumps(found.separable.as_dict())) == result["separable"]
    assert [one.as_dict() for one in found.ladders] == result["ladders"]
    assert [one.as_dict() for one in found.points] == result["points"]
    assert json.loads(json.dumps(found.step.as_dict())).items() <= result["step"].items()
    assert found.peaks == PEAKS


# --- what comes from outside is text ---------------------------------------------------------


def test_names_cannot_become_markup(result: dict[str, Any]) -> None:
    bad = json.loads(json.dumps(result))
    evil = "</script><script>alert('x')</script>&\""
    bad["machine"]["cpu"] = evil
    bad["ladders"][0]["rows"][0]["idea"] = evil
    bad["step"]["layers"][0]["label"] = evil
    bad["timeline"][3]["name"] = evil
    found = page(bad)
    assert "<script>alert" not in found
    assert found.count("<script") == page(result).count("<script")
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in found


def test_embedded_json_cannot_end_its_element() -> None:
    from minidnn.measure.report.page import json_text

    assert "<" not in json_text({"a": "</script>"})
    assert json.loads(json_text({"a": "</script>"})) == {"a": "</script>"}


def test_escaping_is_undone_for_markup_only() -> None:
    inner = markup.tag("b", "1 < 2", title='"')
    assert markup.tag("p", inner, "<i>") == '<p><b title="&quot;">1 &lt; 2</b>&lt;i&gt;</p>'


# --- numbers and axes --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.012345, "0.0123"),
        (1.5, "1.5"),
        (99.96, "100"),
        (1499.6, "1,500"),
        (0, "0"),
        (0.0000123456, "0.0000123"),
        (123456, "123,456"),
    ],
)
def test_numbers_are_written_without_exponents(value: float, written: str) -> None:
    assert words.number(value) == written


def test_shares_keep_a_digit_that_counts() -> None:
    assert [words.share(x) for x in (0.123, 0.0123, 0.0001)] == ["12%", "1.2%", "<0.1%"]


def test_scales_put_values_where_they_belong() -> None:
    assert svg.linear(4.0)(1.0) == 0.25
    assert svg.logarithmic(0.01, 100.0)(1.0) == pytest.approx(0.5)
    assert svg.decades([0.02, 30.0]) == (0.01, 100.0)
    assert svg.round_step(0.0123) == pytest.approx(0.02)
    assert svg.ticks(1.0, 1000.0) == [1, 10, 100, 1000]


def test_the_page_holds_these_orders(text: str) -> None:
    found = json.loads(text.partition('id="orders">')[2].partition("</script>")[0])
    assert found == json.loads(json.dumps(access.as_dict()))


# --- measuring --------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up peaks and times, and few ladders; the calls are real."""

    def take_turns(actions: dict[str, Any], **_: Any) -> dict[str, list[float]]:
        for action in actions.values():
            action()
        return {name: [0.002 + 0.001 * i] * 3 for i, name in enumerate(actions)}

    monkeypatch.setattr(timing, "take_turns", take_turns)
    monkeypatch.setattr(ladders, "estimate", lambda *_: 0.001)
    monkeypatch.setattr(collect, "known_peaks", lambda: PEAKS)
    few = ("depthwise.forward", "prelu.backward")
    monkeypatch.setattr(collect, "LADDERS", few)
    monkeypatch.setattr(collect, "load_all", lambda: {name: load_all()[name] for name in few})


@pytest.mark.usefixtures("fake")
def test_the_command_measures_writes_and_draws(tmp_path: Path, capsys: Any) -> None:
    out, kept, again = (tmp_path / name for name in ("report.html", "report.json", "again.html"))
    arguments = ("report", "--quick", "--size", "classroom", "--batch", "2")
    assert main([*arguments, "-o", str(out), "--save", str(kept)]) == 0
    printed = capsys.readouterr()
    assert "measuring ladder depthwise.forward at 6x6x5" in printed.err
    assert str(out) in printed.out
    found = json.loads(kept.read_text())
    assert (found["minidnn"], found["version"]) == ("report", 1)
    assert out.stat().st_mode == kept.stat().st_mode
    (tmp_path / "other").touch()
    assert out.stat().st_mode == (tmp_path / "other").stat().st_mode, "others may read it too"
    (tmp_path / "other").unlink()
    assert found["settings"] == {"size": "classroom", "batch": 2, "few": 2, "quick": True}
    assert [(one["ladder"], one["batch"]) for one in found["ladders"]] == [
        ("depthwise.forward", 2),
        ("prelu.backward", 2),
    ]
    assert {point["ladder"] for point in found["points"]} == {"depthwise.forward", "prelu.backward"}
    assert set(found) == set(sample())
    assert main(["report", "--from", str(kept), "-o", str(again)]) == 0
    assert again.read_text(encoding="utf-8") == out.read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.html",
        "report.html",
        "report.json",
    ]


def test_a_slow_look_at_a_ladder_is_repeated_with_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    def measure(case: Any, peaks: Any, *, batch: int, limit: float = ladders.LIMIT) -> Any:
        limits.append(limit)
        if limit < ladders.LIMIT:
            raise InputError("too slow")
        return stored.report(sample()).ladders[0]

    monkeypatch.setattr(ladders, "measure", measure)
    monkeypatch.setattr(collect, "LADDERS", ("prelu.forward",))
    found = collect._ladders(PEAKS, "classroom", 2, True, lambda what: None)
    assert limits == [collect.QUICK_RUNG_LIMIT, ladders.LIMIT]
    assert found == sample()["ladders"][:1]


def test_ladders_are_measured_at_their_largest_and_smallest_maps() -> None:
    labels = [one.label for one in collect.ladder_cases("depthwise.forward", "stages", False)]
    assert labels == ["28x28x128", "3x3x1024"]
    assert len(collect.ladder_cases("depthwise.forward", "full", False)) == 8
    for name in collect.LADDERS:
        assert len(collect.ladder_cases(name, "stages", True)) == 1
        assert len(collect.ladder_cases(name, "classroom", True)) == 1


def test_of_several_steps_the_middle_one_is_kept() -> None:
    trace = Trace("three steps")
    for start, seconds in ((1.0, 0.3), (2.0, 0.2), (3.0, 0.1)):
        trace.add(
            [
                Span("step", "step", start, seconds, {}),
                Span(f"layer {seconds}", "forward", start + 0.05, 0.02, {}),
            ]
        )
    assert collect.middle_step(trace) == [
        {"name": "step", "category": "step", "start": 0.0, "seconds": pytest.approx(0.2)},
        {
            "name": "layer 0.2",
            "category": "forward",
            "start": pytest.approx(0.05),
            "seconds": pytest.approx(0.02),
        },
    ]


# --- bad input --------------------------------------------------------------------------


def _refused(capsys: Any, *arguments: str) -> str:
    assert main(["report", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    line: str = printed.err
    return line


def _without(name: str) -> dict[str, Any]:
    found = sample()
    del found[name]
    return found


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no JSON", "expected JSON"),
        (json.dumps([]), "expected a result"),
        (json.dumps({"minidnn": "ladder", "version": 1}), "got 'ladder'"),
        (json.dumps({**sample(), "version": 99}), "got 99; measure again"),
        (json.dumps(_without("points")), "KeyError: 'points'"),
        (json.dumps({**sample(), "ladders": []}), "an empty part"),
        (json.dumps({**sample(), "timeline": [{"no": 1}]}), "TypeError"),
        (json.dumps({**sample(), "peaks": 7}), "TypeError"),
    ],
)
def test_other_files_are_refused(content: str, said: str, tmp_path: Path, capsys: Any) -> None:
    source = tmp_path / "source.json"
    source.write_text(content)
    line = _refused(capsys, "--from", str(source), "-o", str(tmp_path / "out.html"))
    assert said in line
    assert str(source) in line
    assert [path.name for path in tmp_path.iterdir()] == ["source.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "a.json", "--quick"), "--quick: measures"),
        (("--from", "a.json", "--size", "full"), "--size: measures"),
        (("--from", "a.json", "--save", "b.json"), "--save: measures"),
        (("--from", "a.json"), "No such file"),
        (("-o", "nowhere/a.html"), "--output: expected a file in a folder that exists"),
        (("-o", "a.html", "--save", "nowhere/a.json"), "--save: expected a file in a folder"),
        (("-o", "a.html", "--save", "a.html"), "expected another file"),
        (("--size", "classrom"), "did you mean 'classroom'"),
        (("--batch", "0"), "batch: expected at least 1"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_measured(
    arguments: tuple[str, ...],
    said: str,
    tmp_path: Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(peaks, "measure_peaks", lambda: pytest.fail("measured"))
    assert said in _refused(capsys, *arguments)
    assert not list(tmp_path.iterdir())
