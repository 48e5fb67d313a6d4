"""The HTML report in a browser: silent, without requests, readable on a phone, in the dark and on paper."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components import lacking

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from figures_samples import steady_state
from html_pages import empty_run, hostile_study, interrupted_run, large_study
from study_samples import a_study, sample, stored_run

from pytest_openenv_scale.reporting import write_reports
from pytest_openenv_scale.reporting.html import report_html

pytestmark = pytest.mark.real

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PHONE, LAPTOP = {"width": 360, "height": 780}, {"width": 1440, "height": 900}

CONTRASTS = """() => {
    const parts = text => {
        const numbers = text.match(/-?[\\d.]+/g).map(Number);
        const scale = text.startsWith("color(") ? 255 : 1;
        return [...numbers.slice(0, 3).map(part => part * scale), numbers[3] ?? 1];
    };
    const over = (top, below) => [0, 1, 2].map(at => top[at] * top[3] + below[at] * (1 - top[3])).concat(1);
    const ground = element => {
        const layers = [];
        for (let at = element; at; at = at.parentElement) layers.push(parts(getComputedStyle(at).backgroundColor));
        return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
    };
    const luminance = colour => {
        const [red, green, blue] = colour.slice(0, 3).map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const found = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || element.closest("svg")) continue;
        const below = ground(element);
        const [one, other] = [over(parts(getComputedStyle(element).color), below), below].map(luminance);
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        found.push([ratio, texts.currentNode.data.trim().slice(0, 40)]);
    }
    return found;
}"""
"""The contrast ratio of every text with what lies behind it, after WCAG 2."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # Not at the top: the fast tests are collected beside these.
    sync_api = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        lacking("there is no Chromium here (apt install chromium)")
    with sync_api.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study of every kind of infrastructure, with its figures."""
    return write_reports(a_study(), formats=("html",), directory=tmp_path_factory.mktemp("everything"))[0]


@pytest.fixture(scope="module")
def reports(everything: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    (measured,) = (
        path
        for path in write_reports(
            stored_run(folder, sample(batches={1: (1.0, 0.01), 8: (0.5, 0.2)})), formats=("html",)
        )
        if path.suffix == ".html"
    )
    paths = {"everything": everything, "measured": measured}
    pages = {
        "steady": steady_state(),
        "hostile": hostile_study(),
        "large": large_study(),
        "interrupted": interrupted_run(),
        "empty": empty_run(),
    }
    for name, study in pages.items():
        path = folder / f"{name}.html"
        # Figures of what is hostile are drawn: their text must not become markup either.
        path.write_text(report_html(study, figures=None if name == "hostile" else {}), encoding="utf-8")
        paths[name] = path
    return paths


class Opened:
    """A page together with all it said and asked for."""

    def __init__(self, browser: Any, path: Path, viewport: dict[str, int], scheme: str = "light") -> None:
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.goto(path.as_uri())

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *exc: object) -> None:
        self.context.close()


NAMES = ("everything", "measured", "hostile", "large", "interrupted", "empty")


@pytest.mark.parametrize("name", NAMES)
def test_a_report_is_silent_asks_for_nothing_and_fits_a_phone(browser, reports, name) -> None:
    for viewport in (PHONE, LAPTOP):
        with Opened(browser, reports[name], viewport) as opened:
            assert opened.said == []
            assert [url for url in opened.requests if not url.startswith("data:")] == [reports[name].as_uri()]
            assert opened.page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
            assert opened.page.title() != "taken"


CUT = """() => [...document.querySelectorAll('.scroll, pre, figure')]
    .filter(element => element.getClientRects().length && element.scrollWidth > element.clientWidth)
    .map(element => element.getAttribute('aria-label') || element.tagName)"""
"""What on a page is wider than its place."""


@pytest.mark.parametrize("width", [390, 1280, 1920])
@pytest.mark.parametrize("name", ["everything", "steady", "measured"])
def test_nothing_is_cut_and_what_is_left_out_is_named(browser, reports, name, width) -> None:
    with Opened(browser, reports[name], {"width": width, "height": 900}) as opened:
        opened.page.evaluate("document.querySelectorAll('details').forEach(found => { found.open = true; })")
        assert opened.page.evaluate(CUT) == []
        named = opened.page.locator(".left-out:visible")
        assert named.count() > 0 or width == 1920
        if width == 390:
            table = opened.page.locator(".fit").filter(has=named).first
            hidden = (
                "table => [...table.querySelectorAll('thead th')].filter(head => !head.getClientRects().length).length"
            )
            assert table.locator(".names").inner_text().count(",") == table.evaluate(hidden) - 1
            table.locator("input").check()
            assert table.evaluate(hidden) == 0
            assert not table.locator(".names").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_every_text_stands_out_from_its_ground(browser, reports, name, scheme) -> None:
    with Opened(browser, reports[name], LAPTOP, scheme) as opened:
        opened.page.evaluate("document.querySelectorAll('details').forEach(found => { found.open = true; })")
        contrasts = opened.page.evaluate(CONTRASTS)
    assert contrasts
    assert [pair for pair in contrasts if pair[0] < 4.5] == []


def test_dark_is_dark_and_light_is_light(browser, reports) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        with Opened(browser, reports["measured"], LAPTOP, scheme) as opened:
            grounds[scheme] = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert grounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(17, 21, 26)"}


def test_figures_stand_in_the_page_with_what_they_show_in_words(browser, everything) -> None:
    with Opened(browser, everything, LAPTOP) as opened:
        figures = opened.page.locator("figure svg[role=img]")
        assert figures.count() >= 5
        names = opened.page.evaluate(
            "[...document.querySelectorAll('figure svg')].map(svg => svg.querySelector('title')?.textContent.length)"
        )
        ids = opened.page.evaluate("[...document.querySelectorAll('[id]')].map(found => found.id)")
    assert min(names) > 20
    assert len(ids) == len(set(ids))


def test_the_answer_is_on_the_first_screen_of_a_phone(browser, everything) -> None:
    with Opened(browser, everything, PHONE) as opened:
        box = opened.page.locator("h1").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < PHONE["height"] / 2


def test_the_keyboard_reaches_tables_and_contents(browser, reports) -> None:
    with Opened(browser, reports["measured"], LAPTOP) as opened:
        opened.page.keyboard.press("Tab")
        assert opened.page.evaluate("document.activeElement.textContent") == "Skip to the verdicts"
        opened.page.keyboard.press("Enter")
        assert opened.page.evaluate("location.hash") == "#verdicts"
        assert opened.page.locator(".scroll:not([tabindex='0'])").count() == 0


def test_on_paper_details_are_open_and_the_contents_are_gone(browser, reports, tmp_path) -> None:
    with Opened(browser, reports["measured"], LAPTOP, "dark") as opened:
        pdf = opened.page.pdf(path=str(tmp_path / "report.pdf"), format="A4")
        opened.page.emulate_media(media="print")
        assert opened.page.locator("nav").is_visible() is False
        assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert opened.page.locator("details .command").first.bounding_box()["height"] > 10
    assert pdf.startswith(b"%PDF")
