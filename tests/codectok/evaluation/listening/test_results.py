"""Results equal values computed by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from codectok.evaluation.listening.intervals import mean_rating
from codectok.evaluation.listening.results import collect_results, write_results
from codectok.evaluation.listening.results_page import mean_ratings, reference_shares, screened_out
from codectok.evaluation.listening.sessions import Sessions
from tests.helpers.listening import rate_page, write_listening_test

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
# Of each listener, the ratings of two clips, in the order of the pages.
GIVEN = {
    "ann": [
        {"reference": 100, "anchor": 10, "ours": 60, "theirs": 80},
        {"reference": 90, "anchor": 20, "ours": 50, "theirs": 70},
    ],
    "bob": [
        {"reference": 89, "anchor": 30, "ours": 40, "theirs": 90},
        {"reference": 95, "anchor": 0, "ours": 30, "theirs": 100},
    ],
}


def rated(folder: Path) -> Sessions:
    sessions = Sessions(folder, write_listening_test(folder), lambda: NOW)
    for listener, pages in GIVEN.items():
        state = sessions.open(listener)
        for values in pages:
            state = rate_page(sessions, listener, state, values)
    state = sessions.open("cid")  # who leaves on the first page
    sessions.rate("cid", state["page"]["id"], state["page"]["stimuli"][0]["id"], "mushra", 1, 0.25)
    return sessions


def test_means_equal_those_computed_by_hand(tmp_path: Path) -> None:
    sessions = rated(tmp_path / "test")
    results = collect_results(sessions.test, sessions)
    means = mean_ratings(sessions.test, results.rows)
    assert {system: mean.mean for (_, system), mean in means.items()} == {
        "reference": (100 + 90 + 89 + 95) / 4,
        "anchor": (10 + 20 + 30 + 0) / 4,
        "ours": (60 + 50 + 40 + 30) / 4,
        "theirs": (80 + 70 + 90 + 100) / 4,
    }
    assert {mean.ratings for mean in means.values()} == {4}
    for mean in means.values():
        assert mean.low is not None
        assert mean.high is not None
        assert mean.low <= mean.mean <= mean.high
    assert reference_shares(results.rows) == {"ann": (0, 2), "bob": (1, 2)}
    assert screened_out(results.rows) == {"bob"}
    for text in ("93.50", "45.00", "50% (1 of 2)", "excluded", "without 1 listener", "cid"):
        assert text in results.page
    assert results.listeners == 3


def test_parquet_holds_one_row_a_rating(tmp_path: Path) -> None:
    folder = tmp_path / "test"
    sessions = rated(folder)
    write_results(folder, collect_results(sessions.test, sessions))
    rows = pq.read_table(folder / "results.parquet").to_pylist()
    assert len(rows) == 2 * 2 * 4 + 1
    assert [row["listener"] for row in rows] == ["ann"] * 8 + ["bob"] * 8 + ["cid"]
    assert sorted(row["value"] for row in rows if row["listener"] == "bob") == sorted(
        value for page in GIVEN["bob"] for value in page.values()
    )
    first = rows[0]
    assert (first["system"], first["scale"], first["complete"]) == ("reference", "mushra", True)
    assert (first["clip"], first["source"], first["trial"]) == ("clip-0", "0.wav", "0-mushra")
    assert first["seconds_listened"] == 1.5
    assert first["time"] == "2026-01-02T03:04:05.000+00:00"
    assert not rows[-1]["complete"]
    before = (folder / "results.parquet").read_bytes()
    again = Sessions(folder, sessions.test)
    write_results(folder, collect_results(again.test, again))
    assert (folder / "results.parquet").read_bytes() == before


def test_page_escapes_names(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path / "test", write_listening_test(tmp_path / "test"))
    state = sessions.open("<script>alert(1)</script>")
    rate_page(sessions, "<script>alert(1)</script>", state, GIVEN["ann"][0])
    assert "<script" not in collect_results(sessions.test, sessions).page


def test_interval_covers_both_listeners_and_clips() -> None:
    # Listeners agree, clips differ: resampling ratings alone would find a narrow interval.
    values = [(f"l{n}", f"c{clip}", 100.0 * clip) for n in range(20) for clip in range(2)]
    mean = mean_rating(values, 0)
    assert (mean.mean, mean.low, mean.high) == (50.0, 0.0, 100.0)


def test_interval_of_normal_ratings_equals_theory() -> None:
    import numpy as np

    generator = np.random.default_rng(0)
    values = [(f"l{n}", "c", float(generator.normal(50, 10))) for n in range(400)]
    mean = mean_rating(values, 0)
    assert mean.low is not None
    assert mean.high is not None
    assert (mean.high - mean.low) / 2 == pytest.approx(1.96 * 10 / 20, rel=0.1)


def test_single_rating_has_no_interval() -> None:
    mean = mean_rating([("l", "c", 3.0)], 0)
    assert (mean.mean, mean.low, mean.high, mean.ratings) == (3.0, None, None, 1)
