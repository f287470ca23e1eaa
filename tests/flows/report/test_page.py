"""The report's page: what it says, and how it looks in a real browser."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from flows.report.page import render_page
from flows.report.sentences import share_of, span_of
from shunt.report.reading import read_report
from shunt.report.report import Curve, RunReport
from tests.end_to_end.browser import ARGUMENTS, CHROMIUM
from tests.shunt.report.story import END_S, RUN, at, story_store

SECTIONS = ("lanes", "speed", "rows", "interruptions", "money", "scores", "startups", "errors",
            "facts")  # fmt: skip


@pytest.fixture(scope="module")
def told() -> RunReport:
    return read_report(story_store(), RUN, now=at(END_S + 60))


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [tag] if tag in ("script", "link", "iframe", "img") else []
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_asks_for_nothing(told: RunReport) -> None:
    page, references = render_page(told), _References()
    references.feed(page)
    assert [r for r in references.found if not r.startswith(("#", "data:", "link"))] == []
    assert not re.search(r"url\((?!#)", page)


def test_the_page_says_what_happened_in_its_first_sentences(told: RunReport) -> None:
    page = render_page(told)
    assert "All 400 rows have ended, 397 with an answer and 3 without." in page
    assert "12 workers were lost on the way" in page
    assert "at most 0.5 % had to be generated again" in page
    assert page == render_page(told), "equal facts make equal pages"


def test_text_of_the_run_cannot_become_markup(told: RunReport) -> None:
    evil = "<script>alert(1)</script>"
    lane = told.lanes[0]
    life = lane.lives[0].model_copy(update={"node_id": evil, "reason": evil})
    lanes = (lane.model_copy(update={"slot": evil, "lives": (life,)}), *told.lanes[1:])
    page = render_page(told.model_copy(update={"lanes": lanes, "model": evil, "results": evil}))
    assert "<script" not in page


def test_a_run_of_very_many_nodes_has_every_bar_and_mark_and_a_small_page(told: RunReport) -> None:
    """Each mark has a word of its own only where they are few."""
    few, times = render_page(told), 60
    assert few.count("<title>") >= len(told.interruptions)
    lanes = tuple(
        lane.model_copy(update={"slot": f"{lane.slot}-{number}"})
        for number in range(times)
        for lane in told.lanes
    )
    many = told.model_copy(
        update={"lanes": lanes, "interruptions": told.interruptions * times, "resumptions": ()}
    )
    page = render_page(many)
    picture = re.search(r'<section id="lanes">.*?</section>', page, re.DOTALL)
    assert picture is not None
    marks = re.search(r'<g id="lanes-LineCollection_1">(.*?)</g>', picture[0], re.DOTALL)
    assert marks is not None
    assert marks[1].count("<path") == len(told.interruptions) * times == 720
    assert "720 workers were lost on the way" in page
    assert len(page) < 1_500_000


def test_an_empty_run_has_a_page_too(told: RunReport) -> None:
    nothing = {"lanes": (), "interruptions": (), "startups": (), "scores": (), "money": None,
               "errors": {}, "bad_rows": (), "tail": None, "rows": (), "duration_s": 0.0,
               "speed": Curve(step_s=1.0, tokens_per_s=(0.0,))}  # fmt: skip
    assert "No worker was lost" not in render_page(told)
    assert "No worker was lost" in render_page(told.model_copy(update=nothing))


@pytest.mark.parametrize(("seconds", "said"), [(0.43, "0.4 s"), (59.4, "59 s"),
    (185, "3 min 05 s"), (7_620, "2 h 07 min"), (273_600, "3 d 4 h")])  # fmt: skip
def test_durations_are_said_in_the_unit_that_fits(seconds: float, said: str) -> None:
    assert span_of(seconds) == said


@pytest.mark.parametrize(("part", "said"), [(0, "0 %"), (0.0001, "under 0.1 %"), (0.021, "2.1 %"),
                                        (0.456, "46 %")])  # fmt: skip
def test_shares_have_the_digits_that_they_deserve(part: float, said: str) -> None:
    assert share_of(part, 1) == said


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium (apt-get install chromium)")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_it_without_complaint(told: RunReport, tmp_path: Path, scheme: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(render_page(told), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context(
            viewport={"width": 1180, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        page = context.new_page()
        spoken: list[str] = []
        page.on("console", lambda message: spoken.append(message.text))
        page.on("pageerror", lambda error: spoken.append(str(error)))
        page.on("request", lambda request: spoken.append(request.url))
        page.goto(file.as_uri())
        assert spoken == [file.as_uri()], "one file, and not a word"
        for name in SECTIONS:
            assert page.locator(f"#{name}").is_visible(), name
        assert_readable(page)
        page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
        page.set_viewport_size({"width": 400, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, "no sideways scroll"
        browser.close()


def assert_readable(page: Page) -> None:
    """Every drawn text has a colour that stands out from the page's, and a size to be read."""
    seen = page.evaluate(
        """() => [...document.querySelectorAll('svg text')].map(text => {
            const style = getComputedStyle(text);
            return [style.fill, text.getBoundingClientRect().height];
        })"""
    )
    background = _light_of(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(seen) > 40
    for fill, height_px in seen:
        lighter, darker = sorted((_light_of(fill), background), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) > 4.5, fill
        assert height_px > 9


def _light_of(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
