"""The report's page in a real browser: picked, stepped, on a phone, on paper, without a script."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidnn.measure.report import access, words
from minidnn.measure.report.page import page as draw
from tests.report_sample import sample

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

Open = Callable[..., Any]
PHONE = {"width": 360, "height": 800}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM)
        yield running
        running.close()


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return sample()


@pytest.fixture
def show(browser: Any, result: dict[str, Any], tmp_path: Path) -> Iterator[Open]:
    """Open the page without a network; at the end no error and no request has been seen."""
    file = tmp_path / "report.html"
    file.write_text(draw(result), encoding="utf-8")
    seen: list[str] = []
    contexts = []

    def opened(**settings: Any) -> Any:
        context = browser.new_context(**settings)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: seen.append(request.url))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert seen == [file.as_uri()] * len(contexts)


def _picker(page: Any, name: str) -> Any:
    return page.locator(f'[data-picks="{name}"]')


def _panel(page: Any, name: str) -> str:
    """Return the text of the one panel of a name that is seen."""
    seen = page.locator(f'[data-of="{name}"]:visible')
    assert seen.count() == 1
    text: str = seen.inner_text()
    return text


def test_a_layer_a_level_and_a_pass_are_picked(show: Open, result: dict[str, Any]) -> None:
    page = show()
    picker = _picker(page, "layer")
    texts = set()
    for layer in result["separable"]["layers"]:
        picker.get_by_label("layer").select_option(layer["layer"])
        for level, both in layer["levels"].items():
            picker.get_by_label(level, exact=True).check()
            for way, one in both.items():
                picker.get_by_label(way, exact=True).check()
                text = _panel(page, "layer")
                texts.add(text)
                assert f"{one['ratio'][0]:.3f} (" in text
                assert f"{words.ms(one['separable'])} ms" in text
                assert f"{words.ms(one['full'])} ms" in text
                assert (layer["why"][way] in text) == (level == "fastest")
    assert len(texts) == 2 * 3 * 2


def test_a_ladder_and_a_rung_are_picked(show: Open, result: dict[str, Any]) -> None:
    page = show()
    for ladder in result["ladders"]:
        key = f"{ladder['ladder']} at {ladder['label']}"
        _picker(page, "ladder").get_by_label("ladder").select_option(key)
        name = f"rung of {key}"
        for row in ladder["rows"]:
            _picker(page, name).get_by_label("rung").select_option(row["rung"])
            text = _panel(page, name)
            assert row["idea"] in text
            assert f"{words.ms(row['seconds'], 4)} ms" in text
            marked = page.locator("g.picked:visible")
            assert row["rung"] in [one.get_attribute("data-key") for one in marked.all()]


def test_a_bar_picks_its_rung(show: Open, result: dict[str, Any]) -> None:
    page = show()
    name = f"rung of {result['ladders'][0]['ladder']} at {result['ladders'][0]['label']}"
    page.locator(f'g[data-marked-by="{name}"][data-key="naive"]').click()
    assert result["ladders"][0]["rows"][2]["idea"] in _panel(page, name)
    assert _picker(page, name).get_by_label("rung").input_value() == "naive"


def test_kernels_are_filtered_by_pass_and_picked(show: Open, result: dict[str, Any]) -> None:
    page = show()
    for way, count in (("all", 5), ("forward", 2), ("backward", 2)):
        _picker(page, "way").get_by_label(way, exact=True).check()
        kernels = _picker(page, f"kernel {way}").get_by_label("kernel")
        names = kernels.locator("option").all_inner_texts()
        assert len(names) == count
        for point in result["points"]:
            if point["ladder"] in names:
                kernels.select_option(point["ladder"])
                text = _panel(page, f"kernel {way}")
                assert f"{words.number(point['bytes_per_second'] / 1e9)} GB/s" in text
                assert words.share(point["share"]) in text


def test_pointing_at_a_kernel_shows_its_numbers(show: Open) -> None:
    page = show()
    page.locator('svg[data-marked-by="kernel all"][data-key="gemm.nn"] .mark').hover()
    assert "gemm.nn" in _panel(page, "kernel all")


def test_a_steps_layers_are_picked_forward_and_backward(show: Open, result: dict[str, Any]) -> None:
    page = show()
    for way in ("forward", "backward"):
        _picker(page, "step").get_by_label(way, exact=True).check()
        for number, layer in enumerate(result["step"]["layers"]):
            _picker(page, f"row {way}").get_by_label("layer").select_option(str(number))
            assert f"{words.ms(layer[way]['seconds'])} ms" in _panel(page, f"row {way}")
            assert f"{words.ms(layer[way]['seconds'])} ms" in _panel(page, "step")


# --- loop nests -------------------------------------------------------------------------


def _pane(page: Any, name: str) -> str:
    text: str = page.locator(f'[data-nest="{name}"]').inner_text()
    return text


def test_loop_nests_are_stepped_with_the_keyboard(show: Open) -> None:
    page = show()
    slider = page.get_by_role("slider")
    slider.focus()
    for step in range(12):
        for nest in access.NESTS:
            one = access.order(nest, 3)
            at = access.index(one, step, 3)
            text = _pane(page, nest.name)
            for loop in nest.loops:
                assert f"for {loop}: {at[loop]}" in text
            assert f"x: place {one.x[step]}, line {one.x[step] // 16}." in text
            assert ("stays in a register" in text) != bool(one.stored[step])
            cells = page.locator(f'[data-nest="{nest.name}"] .memory .cell')
            assert "here" in cells.nth(one.x[step]).get_attribute("class")
        page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") == "300 of 300"
    for nest in access.NESTS:
        assert f"x {access.jumps(access.order(nest, 3).x)}," in _pane(page, nest.name)
    page.keyboard.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "299 of 300"


def test_loop_nests_step_by_button_and_with_more_channels(show: Open) -> None:
    page = show()
    nest = page.locator("#nest")
    nest.get_by_label("16", exact=True).check()
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Back").click()
    naive, last = (access.order(one, 16).x[1] for one in access.NESTS)
    assert f"place {naive}, line {naive // 16}" in _pane(page, "naive")
    assert f"place {last}, line {last // 16}" in _pane(page, "channels_last")


def test_loop_nests_play_and_pause(show: Open) -> None:
    page = show()
    page.get_by_role("button", name="Play").press("Enter")
    slider = page.get_by_role("slider")
    playwright.expect(slider).to_have_attribute("aria-valuetext", re.compile("^[3-9] of 300$"))
    page.get_by_role("button", name="Pause").press("Enter")
    assert page.get_by_role("button", name="Play").is_visible()


# --- phone, paper, no script ------------------------------------------------------------


@pytest.mark.parametrize("width", [320, 360, 1280])
def test_the_page_never_scrolls_sideways(show: Open, width: int) -> None:
    page = show(viewport={"width": width, "height": 800})
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.locator("#nest").get_by_label("16", exact=True).check()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tables = page.locator(".scroll")
    wide = [one.evaluate("box => box.scrollWidth > box.clientWidth") for one in tables.all()]
    assert any(wide)


def test_letters_on_a_phone_are_large_enough(show: Open) -> None:
    page = show(viewport=PHONE, device_scale_factor=3, is_mobile=True, has_touch=True)
    heights = page.locator("svg text:visible").evaluate_all(
        "texts => texts.map(text => text.getBoundingClientRect().height)"
    )
    assert min(heights) >= 11
    controls = page.locator("select:visible, button:visible").evaluate_all(
        "controls => controls.map(control => control.getBoundingClientRect().height)"
    )
    assert min(controls) >= 36


def test_texts_of_charts_fit_a_phone_and_do_not_overlap(show: Open) -> None:
    page = show(viewport=PHONE)
    overlaps = page.locator("svg[role=img]:visible").evaluate_all(
        """charts => charts.flatMap(chart => {
            const texts = [...chart.querySelectorAll("text:not(.name)")];
            const boxes = texts.map(text => [text.textContent, text.getBoundingClientRect()]);
            return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([, q]) =>
                p.left < q.right - 1 && q.left < p.right - 1 &&
                p.top < q.bottom - 3 && q.top < p.bottom - 3).map(([b]) => `${a} | ${b}`));
        })"""
    )
    cut = page.locator("svg[role=img]:visible text:not(.name)").evaluate_all(
        """texts => texts.filter(text => {
            const [own, chart] = [text, text.closest("[role=img]")].map(
                one => one.getBoundingClientRect());
            return own.left < chart.left - 1 || own.right > chart.right + 1;
        }).map(text => text.textContent)"""
    )
    assert cut == []
    assert overlaps == []  # but for the name of the picked kernel, which has a rim


def test_paper_has_open_tables_and_no_controls(show: Open) -> None:
    page = show()
    tables = page.locator("table")
    assert not tables.first.is_visible()
    page.emulate_media(media="print")
    for table in tables.all():
        box = table.bounding_box()
        assert box is not None
        assert box["height"] > 20
    assert page.locator(".picker:visible, #nest:visible").count() == 0
    colour = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(colour) == "rgb(255, 255, 255)"


def test_paper_is_white_also_where_the_screen_is_dark(show: Open) -> None:
    page = show(color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(colour) == "rgb(20, 24, 29)"
    page.emulate_media(media="print")
    assert page.evaluate(colour) == "rgb(255, 255, 255)"


def test_without_a_script_texts_charts_and_tables_are_there(
    show: Open, result: dict[str, Any]
) -> None:
    page = show(java_script_enabled=False)
    assert page.locator(".picker:visible, #nest:visible").count() == 0
    for where in ("machine", "separable", "ladders", "roofline", "step", "loops"):
        assert page.locator(f"#{where} :is(p, figcaption):visible").count()
        assert page.locator(f"#{where} details:visible").count()
        if where != "loops":
            assert page.locator(f"#{where} svg[role=img]:visible").count()
    summary = page.locator("summary", has_text="Table: forward: ms per image")
    summary.click()
    table = summary.locator("xpath=..").locator("table")
    assert table.is_visible()
    one = result["separable"]["layers"][0]["levels"]["fastest"]["forward"]
    assert f"{1e3 * one['separable']:.3g}" in table.inner_text()
    data = json.loads(page.locator("#orders").text_content())
    assert data == json.loads(json.dumps(access.as_dict()))
