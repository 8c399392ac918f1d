"""Self-contained HTML reports: tables, charts, pictures, and clips to listen to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape

from .line_charts import LineChart, line_chart
from .players import Comparison, comparison_html, data_url

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em; color: #222 }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse } th, td { padding: .25em .9em .25em 0; text-align: left; vertical-align: top }
th { border-bottom: 1px solid #999; font-weight: 600 } td.number, th.number { text-align: right }
tr:nth-child(even) td { background: #f6f6f6 }
svg { display: block; margin: .5em 0 } rect { fill: #4477aa } text { font-size: 11px; fill: #555 }
audio { height: 2em; vertical-align: middle } .clip { margin: .4em 0 } .caption { margin-left: .7em }
h3 { font-size: 1em; margin: 1.4em 0 .4em } figure { margin: 0 } figcaption { font-size: .9em }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(24em, 1fr)); gap: 1.2em 2em }
.chart figcaption { font-weight: 600 } .chart svg { width: 100%; margin: .2em 0 }
.chart polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round }
.grid { stroke: #e4e4e4 } .axis { stroke: #999 }
.legend { display: flex; flex-wrap: wrap; gap: 0 1.2em; font-size: .85em; padding-left: 4.4em }
.players { display: grid; grid-template-columns: repeat(auto-fit, minmax(16em, 1fr)); gap: .8em }
.players img { display: block; width: 100%; height: 7em } .players audio { width: 100%; margin: .3em 0 0 }
.picture img { max-width: 100% } pre { background: #f6f6f6; padding: .8em; overflow: auto; font-size: .85em }
summary { cursor: pointer } @media print { audio { display: none } }
"""
# One clip is heard at a time.
SCRIPT = """
addEventListener("play", (event) => {
  for (const player of document.querySelectorAll("audio")) if (player !== event.target) player.pause()
}, true)
"""
BAR_WIDTH, BAR_GAP, CHART_HEIGHT = 26, 4, 120
LABEL_HEIGHT, TOP = 16, 14
MOST_BARS, MOST_LABELS = 64, 32
LABEL_WIDTH, LINE_WIDTH, ROW_HEIGHT, LONGEST_LABEL = 180, 560, 26, 26


class HtmlReport:
    """A page that is built from top to bottom; `render` returns its text."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._sections: list[str] = []

    def table(self, title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Add a table; columns whose cells are numbers, begin with one or are empty are right-aligned."""
        rows = [list(row) for row in rows]
        numeric = [
            bool(rows) and all(row[column].lstrip("-")[:1].isdigit() or not row[column] for row in rows) and column > 0
            for column in range(len(header))
        ]

        def line(tag: str, cells: Sequence[str]) -> str:
            marked = (
                f"<{tag}{' class=number' if number else ''}>{escape(cell)}</{tag}>"
                for cell, number in zip(cells, numeric, strict=True)
            )
            return f"<tr>{''.join(marked)}</tr>"

        head = line("th", header) if any(header) else ""
        body = "\n".join(line("td", row) for row in rows)
        self._sections.append(f"<h2>{escape(title)}</h2>\n<table>{head}\n{body}\n</table>")

    def histogram(self, title: str, counts: Mapping[int, int], unit: float = 1.0) -> None:
        """Add a bar chart of `counts` by integer step of `unit`; neighbouring steps share a bar if there are many."""
        if not any(counts.values()):
            return
        step_size = math.ceil((max(counts) + 1 - min(counts)) / MOST_BARS)
        if step_size > 1:
            wider: Counter[int] = Counter()
            for step, count in counts.items():
                wider[step // step_size * step_size] += count
            counts = wider
        steps = range(min(counts), max(counts) + 1, step_size)
        labelled = math.ceil(len(steps) / MOST_LABELS)
        most = max(counts.values())
        bars = []
        for place, step in enumerate(steps):
            height = CHART_HEIGHT * counts.get(step, 0) / most
            x, y = place * (BAR_WIDTH + BAR_GAP), TOP + CHART_HEIGHT - height
            middle = x + BAR_WIDTH / 2
            bars.append(
                f'<rect x="{x}" y="{y:.1f}" width="{BAR_WIDTH}" height="{height:.1f}">'
                f"<title>{step * unit:.6g}: {counts.get(step, 0):,}</title></rect>"
            )
            if place % labelled == 0:
                y = TOP + CHART_HEIGHT + LABEL_HEIGHT - 4
                bars.append(f'<text x="{middle}" y="{y}" text-anchor="middle">{step * unit:.6g}</text>')
        width, height = len(steps) * (BAR_WIDTH + BAR_GAP), TOP + CHART_HEIGHT + LABEL_HEIGHT
        chart = f'<svg viewBox="0 0 {width} {height}" width="{width}" style="max-width: 100%">{"".join(bars)}</svg>'
        self._sections.append(f"<h2>{escape(title)}</h2>\n{chart}")

    def clips(self, title: str, clips: Iterable[tuple[str, str, bytes]]) -> None:
        """Add audio players for `clips`: caption, MIME type, and bytes of the file."""
        lines = [
            f'<div class="clip"><audio controls preload="none" aria-label="{escape(caption)}"'
            f' src="{data_url(mime, data)}"></audio><span class="caption">{escape(caption)}</span></div>'
            for caption, mime, data in clips
        ]
        if lines:
            self._sections.append(f"<h2>{escape(title)}</h2>\n" + "\n".join(lines))

    def line_charts(self, title: str, charts: Iterable[LineChart]) -> None:
        """Add line charts side by side; charts without a finite value are left out."""
        figures = [figure for figure in map(line_chart, charts) if figure]
        if figures:
            self._sections.append(f'<h2>{escape(title)}</h2>\n<div class="charts">{"".join(figures)}</div>')

    def comparisons(self, title: str, comparisons: Iterable[Comparison]) -> None:
        """Add rows of players: versions of a clip side by side, with their pictures."""
        rows = [comparison_html(comparison) for comparison in comparisons]
        if rows:
            self._sections.append(f"<h2>{escape(title)}</h2>\n" + "\n".join(rows))

    def picture(self, title: str, png: bytes, description: str) -> None:
        """Add a PNG picture; the description stands for it where it is not seen."""
        image = f'<img alt="{escape(description)}" src="{data_url("image/png", png)}">'
        self._sections.append(f'<h2>{escape(title)}</h2>\n<figure class="picture">{image}</figure>')

    def heading(self, title: str) -> None:
        """Begin a section."""
        self._sections.append(f"<h2>{escape(title)}</h2>")

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self._sections.append(f"<p>{escape(text)}</p>")

    @contextmanager
    def folded(self, title: str) -> Iterator[None]:
        """Fold all that is added in the context; it opens on a click."""
        start = len(self._sections)
        yield
        if len(self._sections) > start:
            inside = "\n".join(self._sections[start:])
            self._sections[start:] = [f"<details><summary>{escape(title)}</summary>\n{inside}\n</details>"]

    def folded_text(self, title: str, text: str) -> None:
        """Add a long text of fixed width that opens on a click."""
        self._sections.append(f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>")

    def intervals(self, title: str, ticks: Sequence[float], rows: Sequence[tuple[str, float, float, float]]) -> None:
        """Add a chart of means with intervals on a scale with `ticks`; rows are label, low end, mean, high end."""
        start, end = ticks[0], ticks[-1]
        height = len(rows) * ROW_HEIGHT + LABEL_HEIGHT

        def x(value: float) -> float:
            return LABEL_WIDTH + LINE_WIDTH * (min(max(value, start), end) - start) / (end - start)

        parts = []
        for value in ticks:
            parts.append(
                f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="0" y2="{height - LABEL_HEIGHT}" stroke="#ddd"/>'
                f'<text x="{x(value):.1f}" y="{height - 3}" text-anchor="middle">{value:g}</text>'
            )
        for place, (label, low, mean, high) in enumerate(rows):
            y = (place + 0.5) * ROW_HEIGHT
            shown = label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}\u2026"
            parts.append(
                f'<text x="{LABEL_WIDTH - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(shown)}</text>'
                f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#4477aa"'
                ' stroke-width="3"/>'
                f'<circle cx="{x(mean):.1f}" cy="{y:.1f}" r="5" fill="#4477aa">'
                f"<title>{escape(label)}: {mean:.2f} ({low:.2f} to {high:.2f})</title></circle>"
            )
        width = LABEL_WIDTH + LINE_WIDTH + BAR_WIDTH
        chart = f'<svg viewBox="0 0 {width} {height}" width="{width}" style="max-width: 100%">{"".join(parts)}</svg>'
        self._sections.append(f"<h2>{escape(title)}</h2>\n{chart}")

    def render(self) -> str:
        """Return the page as HTML."""
        title = escape(self._title)
        view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
        body = "\n".join(self._sections)
        # A page without players needs no script, and may forbid all.
        script = f"<script>{SCRIPT}</script>" if "<audio " in body else ""
        head = f'<meta charset="utf-8">{view}<title>{title}</title><style>{STYLE}</style>{script}'
        return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><h1>{title}</h1>\n{body}\n</body></html>\n'
