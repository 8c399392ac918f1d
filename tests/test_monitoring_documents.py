"""The dashboard and the page about monitoring name the events and metrics that exist."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from codectok.monitoring import events
from codectok.monitoring.events import Event
from codectok.monitoring.series import ALL_SERIES, JOB_SERIES, RUN_TAGS, TRAIN_SERIES, Series

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "running" / "monitoring.md").read_text(encoding="utf-8")
BOARD = json.loads((ROOT / "deploy" / "grafana" / "codectok.json").read_bytes())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
SERIES = {series.full_name: series for series in ALL_SERIES}
# Samples of a histogram, beside its own name.
SAMPLES = {
    **{name: series for name, series in SERIES.items() if series.kind != "histogram"},
    **{
        f"{name}_{suffix}": series
        for name, series in SERIES.items()
        if series.kind == "histogram"
        for suffix in ("bucket", "sum", "count")
    },
}
FUNCTIONS = {"sum", "max", "by", "rate", "increase", "time", "histogram_quantile", "and", "label_values"}
METRIC = re.compile(r"(?<![\w$])(\w*codectok_\w+)")
MATCHERS = re.compile(r"\{([^}]*)\}")
MATCHER = re.compile(r'\s*(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*')
GROUPED = re.compile(r"\bby\s*\(([^)]*)\)")
VARIABLES = re.compile(r"\$\{?(\w+)\}?")


def rows_of(first: str) -> list[list[str]]:
    """Cells of the table whose first heading is `first`."""
    lines = PAGE[PAGE.index(f"| {first} |") :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_page_lists_all_events_and_fields() -> None:
    kinds: list[type[Event]] = [
        kind for kind in vars(events).values() if isinstance(kind, type) and Event in kind.__bases__
    ]
    found = {name.strip("`"): re.findall(r"`(\w+)`", listed) for name, listed, _ in rows_of("event")}
    assert found == {kind.name: [each.name for each in fields(kind)] for kind in kinds}


def test_page_lists_all_metrics() -> None:
    found = [
        (name.strip("`"), kind, tuple(re.findall(r"`(\w+)`", tags)), meaning)
        for name, kind, tags, meaning in rows_of("metric")
    ]
    assert found == [(series.full_name, series.kind, series.tags, series.help) for series in ALL_SERIES]


def problems(expression: str) -> list[str]:
    """Faults of an expression of the dashboard: unknown variables, metrics, tags or functions, and open brackets."""
    known = {variable["name"] for variable in BOARD["templating"]["list"]}
    found = [f"variable {name}" for name in VARIABLES.findall(expression) if name not in known]
    plain = VARIABLES.sub(lambda match: "codectok" if match[1] == "prefix" else "x", expression)
    used: list[tuple[str, Series]] = []
    for match in METRIC.finditer(MATCHERS.sub(lambda one: "{" + " " * (len(one[0]) - 2) + "}", plain)):
        series = SAMPLES.get(match[1])
        if series is None:
            found.append(f"metric {match[1]}")
            continue
        used.append((match[1], series))
        matchers = MATCHERS.match(plain, match.end())
        for part in matchers[1].split(",") if matchers else ():
            one = MATCHER.fullmatch(part)
            if one is None or one[1] not in series.tag_keys:
                found.append(f"tag {part} of {match[1]}")
    for grouped in GROUPED.findall(plain):
        for tag in (tag.strip() for tag in grouped.split(",")):
            for name, series in used:
                if tag not in series.tag_keys and not (tag == "le" and name.endswith("_bucket")):
                    found.append(f"tag {tag} of {name}")
    rest = GROUPED.sub("by ()", METRIC.sub("", MATCHERS.sub("", re.sub(r'"[^"]*"|\[\d+m\]', "", plain))))
    found += [f"word {word}" for word in re.findall(r"[A-Za-z_]\w*", rest) if word not in FUNCTIONS]
    if any(rest.count(a) != rest.count(b) for a, b in ("()", "{}", "[]")):
        found.append("brackets")
    if not used:
        found.append("no metric")
    return found


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel_names_existing_metrics_and_tags(panel: dict[str, Any]) -> None:
    assert {"id", "type", "title", "description", "datasource", "gridPos", "fieldConfig", "targets"} <= panel.keys()
    assert panel["type"] in {"stat", "timeseries"}
    references = [target["refId"] for target in panel["targets"]]
    assert references
    assert len(set(references)) == len(references)
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert problems(target["expr"]) == []
        tags = {tag for series in SERIES.values() if series.full_name[9:] in target["expr"] for tag in series.tag_keys}
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= tags


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ('sum(${prefix}_units_lefft{verb=~"$verb"})', "metric codectok_units_lefft"),
        ('sum(${prefix}_rows{verb=~"$verb"})', "metric codectok_rows"),
        ('sum(${prefix}_unit_seconds{verb=~"$verb"})', "metric codectok_unit_seconds"),
        ('sum(${prefix}_units_left{noode="a"})', 'tag noode="a" of codectok_units_left'),
        ("sum by (reason) (${prefix}_rows_total)", "tag reason of codectok_rows_total"),
        ("sum by (le) (${prefix}_rows_total)", "tag le of codectok_rows_total"),
        ("summ(${prefix}_rows_total)", "word summ"),
        ("sum(${prefix}_rows_total", "brackets"),
        ("sum(${prefix}_rows_total{output=~'$output'})", "tag output=~'x' of codectok_rows_total"),
        ("sum(${prefx}_rows_total)", "variable prefx"),
        ("sum(up)", "no metric"),
    ],
)
def test_faults_of_expressions_are_found(expression: str, fault: str) -> None:
    assert fault in problems(expression)


def test_dashboard_shows_all_metrics_and_has_the_fields_that_grafana_needs() -> None:
    expressions = [target["expr"] for panel in PANELS for target in panel["targets"]]
    shown = " ".join(VARIABLES.sub("codectok", expression) for expression in expressions)
    assert {name for name in SERIES if not re.search(rf"\b{name}(_bucket)?\b", shown)} == set()
    for series in (*JOB_SERIES, *TRAIN_SERIES):  # Ray serves no metrics of training
        assert (f"${{prefix}}_{series.full_name[9:]}" in " ".join(expressions)) == (series not in TRAIN_SERIES)
    needed = {
        "id",
        "uid",
        "title",
        "schemaVersion",
        "version",
        "panels",
        "templating",
        "time",
        "refresh",
        "annotations",
    }
    assert needed <= BOARD.keys()
    assert BOARD["id"] is None
    assert 36 <= BOARD["schemaVersion"] <= 41
    assert BOARD["time"].keys() == {"from", "to"}
    for variable in BOARD["templating"]["list"]:
        assert {"name", "type", "query", "current", "options"} <= variable.keys()
        if variable["type"] == "query":
            query = variable["query"]["query"]
            assert query == variable["definition"] == f"label_values(${{prefix}}_run_active, {variable['name']})"
            assert variable["name"] in RUN_TAGS


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    assert all(place.keys() == {"x", "y", "w", "h"} and place["x"] + place["w"] <= 24 for place in places)
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
