"""Pages of reports: charts, players, and HTML that holds all that it needs."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from codectok.evaluation.pages.line_charts import HEIGHT, WIDTH, LineChart, line_chart, shown, thinned
from codectok.evaluation.pages.players import Comparison, Player
from codectok.evaluation.pages.report import HtmlReport

HOSTILE = "<script>alert(\"1\")</script> & 'quoted'"


class Page(HTMLParser):
    """Collects the elements of a page, and checks that they are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def _report() -> HtmlReport:
    report = HtmlReport(HOSTILE)
    report.paragraph(HOSTILE)
    report.table("Facts", ("", ""), [(HOSTILE, "1")])
    report.line_charts("Losses", [LineChart(HOSTILE, {HOSTILE: [(1, 2.0), (2, 3.0)]}), LineChart("none", {"x": []})])
    player = Player(HOSTILE, b"RIFF", "audio/wav", b"PNG", HOSTILE)
    report.comparisons("Clips", [Comparison(HOSTILE, [player, Player("plain", b"RIFF", "audio/wav")])])
    report.clips("More", [(HOSTILE, "audio/flac", b"fLaC")])
    report.picture("Picture", b"PNG", HOSTILE)
    report.folded_text("Configuration", HOSTILE)
    return report


def test_page_is_well_formed_and_escapes_names() -> None:
    page = Page(_report().render())
    assert len(page.all("script")) == 1
    assert page.texts.count(HOSTILE) >= 8
    assert len(page.all("audio")) == 3
    assert len(page.all("figure")) == 4


def test_page_loads_nothing() -> None:
    page = Page(_report().render())
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert len(addresses) == 5
    assert all(value is not None and value.startswith("data:") for value in addresses)


def test_pictures_charts_and_players_have_names() -> None:
    page = Page(_report().render())
    assert all(image["alt"] for image in page.all("img"))
    assert all(player["aria-label"] for player in page.all("audio"))
    assert all(chart.get("aria-label") for chart in page.all("svg"))


def test_empty_sections_are_left_out() -> None:
    report = HtmlReport("Nothing")
    report.line_charts("Losses", [LineChart("none", {"x": [(1, math.nan)]})])
    report.comparisons("Clips", [])
    report.clips("More", [])
    assert "<h2>" not in report.render()


def test_lines_stay_inside_and_break_at_gaps() -> None:
    values = [3.0, 5.0, math.nan, math.inf, 4.0, math.nan, 1.0, 2.0]
    figure = line_chart(LineChart("mel", {"a": list(enumerate(values)), "b": [(0, -2.0), (9, 1e3)]}))
    lines = re.findall(r'points="([^"]*)"', figure)
    points = [[tuple(map(float, point.split(","))) for point in line.split()] for line in lines]
    assert [len(line) for line in points] == [2, 2, 2]
    assert figure.count("<circle") == 1
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for line in points for x, y in line)
    assert points[0][0][0] < points[0][1][0]
    assert points[0][0][1] > points[0][1][1]  # larger values are higher
    assert "a: 3.00 at step 0, 2.00 at step 7" in figure


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [([7.0], False), ([0.0, 0.0], False), ([5.0, 5.0], False), ([-3.0, -3.0], False), ([1e-9, 1e-7], False),
     ([1.0, 1e4], True), ([1e-12, 1e9], True), ([0.0, 1e4], False), ([1e300, 2e300], False),
     ([1e6, 1e6 + 1e-3], False)],
)  # fmt: skip
def test_axes_fit_any_values(values: list[float], logarithmic: bool) -> None:
    figure = line_chart(LineChart("x", {"x": list(enumerate(values))}))
    assert ("(logarithmic)" in figure) == logarithmic
    n_ticks = figure.count('class="grid"')
    assert 1 <= n_ticks <= 12
    assert "nan" not in figure


def test_thinned_lines_keep_their_extremes() -> None:
    values = np.random.default_rng(0).normal(size=100_003)
    values[[40_000, 70_000]] = [50, -50]
    values[55_000] = math.nan
    points = list(enumerate(values.tolist()))
    kept = thinned(points, 400)
    assert len(kept) <= 500
    assert kept == sorted(kept)
    assert [kept[0], kept[-1]] == [points[0], points[-1]]
    assert {(40_000, 50.0), (70_000, -50.0)} <= set(kept)
    assert any(math.isnan(value) for _, value in kept)
    assert str(kept) == str(thinned(points, 400))
    assert thinned(points[:400], 400) == points[:400]


def test_numbers_are_short() -> None:
    values = [0, 1234567, 123456, 999.96, 12.345, 1.0, 0.0123456, 1e-5, -2.5, math.nan]
    assert [shown(value) for value in values] == [
        "0", "1.23e+06", "123,456", "1,000", "12.3", "1.00", "0.0123", "1e-05", "-2.50", "nan",
    ]  # fmt: skip


def test_folded_sections_stand_in_one_element() -> None:
    report = HtmlReport("page")
    report.heading("before")
    with report.folded("more"):
        report.heading("first")
        report.heading("second")
    with report.folded("nothing"):
        pass
    page = report.render()
    assert "nothing" not in page
    inside = page[page.index("<details>") : page.index("</details>")]
    assert all(word in inside for word in ("more", "first", "second")) and "before" not in inside
