"""Fields of plain manifests that change the audio: obeyed or refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from codectok.sources.manifests.read import read_manifest
from codectok.sources.manifests.row import ManifestRow


def row_of(tmp_path: Path, **fields: Any) -> ManifestRow:
    lines = [{"path": "a.wav", **fields}, {"path": "good.wav"}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return next(read_manifest(str(tmp_path), "x.jsonl"))


@pytest.mark.parametrize(
    ("fields", "channel"),
    [
        ({"channel": 0}, 0),
        ({"channel": "1"}, 1),
        ({"channel": 1.0}, 1),
        ({"Channel": 2}, 2),
        ({"channel": [1]}, 1),
        ({"channel_selector": 1}, 1),
        ({"channel": "left"}, 0),
        ({"channel_selector": "average"}, None),
        ({"channel": None}, None),
        ({"channel": ""}, None),
        ({"channels": 2}, None),
        ({"num_channels": 2}, None),
        ({"channel": "a broadcaster"}, None),
    ],
)
def test_channel_is_read(fields: dict[str, Any], channel: int | None, tmp_path: Path) -> None:
    row = row_of(tmp_path, **fields)
    assert (row.problem, row.channel) == (None, channel)


@pytest.mark.parametrize(
    "fields",
    [
        {"channel": -1},
        {"channel": 0.5},
        {"channel": True},
        {"channel": [0, 1]},
        {"channels": [0, 1]},
        {"channel": 0, "channel_selector": 1},
        {"gain": 0.5},
        {"gain_db": -6},
        {"volume": 2},
        {"volume": "0.5"},
        {"speed": 1.1},
        {"tempo": 0.9},
        {"pitch": 2},
        {"transforms": [{"name": "Speed"}]},
        {"effects": [["gain", "-n"]]},
        {"frame_offset": 1000},
        {"start": 1.0, "end_sample": 32_000},
        {"start_sample": 16_000, "end": 2.0},
        {"start_sample": 16_000, "duration": 2.0},
        {"start": " ", "start_sample": 16_000, "end": 2.0},
        {"start": -0.5, "end": 2},
        {"offset": -1},
    ],
)
def test_fields_that_change_the_audio_are_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    row = row_of(tmp_path, **fields)
    assert row.problem is not None
    assert row.path == "a.wav"


@pytest.mark.parametrize(
    "fields",
    [
        {"gain": None},
        {"volume": 1.0},
        {"speed": "1.0"},
        {"transforms": []},
        {"sampling_rate": 8000},
        {"frame_offset": 0},
    ],
)
def test_fields_that_leave_the_audio_as_it_is_are_accepted(fields: dict[str, Any], tmp_path: Path) -> None:
    assert row_of(tmp_path, **fields).problem is None


@pytest.mark.parametrize(
    "fields",
    [
        {"start": 1.0, "end": 2.0, "start_sample": 16_000, "end_sample": 32_000},
        {"start_time": 1.0, "end_time": 2.0, "start_frame": 16_000, "end_frame": 32_000},
        {"offset_ms": 1000, "duration_ms": 1000, "frame_offset": 16_000, "end_sample": 32_000},
        {"start": 1.0, "end": 2.0, "start_sample": math.nan, "end_frame": "nan"},
    ],
)
def test_times_in_samples_beside_seconds_are_accepted(fields: dict[str, Any], tmp_path: Path) -> None:
    row = row_of(tmp_path, **fields)
    assert (row.problem, row.start, row.end) == (None, 1.0, 2.0)


@pytest.mark.parametrize("missing", [None, "", " ", math.nan, "nan", " NaN"])
def test_missing_times_are_left_out(missing: object, tmp_path: Path) -> None:
    row = row_of(tmp_path, start=missing, offset=1.0, end=missing, end_ms=missing, duration=2.0)
    assert (row.problem, row.start, row.end, row.extra) == (None, 1.0, 3.0, None)
    supervisions = [{"start": 0.5, "end": missing, "duration": 1.0, "text": "one"}]
    assert row_of(tmp_path, start=missing, supervisions=supervisions).problem is None


def test_supervisions_beyond_the_span_keep_their_text(tmp_path: Path) -> None:
    times = [(-1.0, 2.0, "one"), (1.5, 1.0, "two"), (2.5, 9.0, "three")]
    supervisions = [{"start": a, "duration": b, "text": text} for a, b, text in times]
    row = row_of(tmp_path, start=5.0, end=9.0, supervisions=supervisions)
    assert row.text == "one two three"
    assert row.supervisions is not None
    assert [(one["start"], one["end"]) for one in json.loads(row.supervisions)] == [(5.0, 6.0), (6.5, 7.5), (7.5, 9.0)]


@pytest.mark.parametrize("start", [-3.0, 4.0, 7.0])
def test_supervisions_outside_of_the_span_are_refused(start: float, tmp_path: Path) -> None:
    supervisions = [{"start": 0.0, "duration": 1.0, "text": "in"}, {"start": start, "duration": 1.0, "text": "out"}]
    row = row_of(tmp_path, start=5.0, end=9.0, supervisions=supervisions)
    assert row.problem is not None
    assert "outside" in row.problem


def test_times_within_an_audio_object_are_refused_and_other_fields_of_it_kept(tmp_path: Path) -> None:
    for fields in ({"start": 1.5}, {"offset": 0.5, "duration": 1.0}, {"end": 2.0}, {"channel": 1}):
        problem = row_of(tmp_path, path=None, audio={"path": "a.wav", **fields}).problem
        assert problem is not None
        assert f"its audio has {next(iter(fields))} beside the path" in problem
    row = row_of(tmp_path, path=None, audio={"path": "a.wav", "bytes": None, "sampling_rate": 8000})
    assert (row.path, row.extra, row.problem) == ("a.wav", None, None)
    row = row_of(tmp_path, path=None, audio={"path": "a.wav", "station": "x", "start": None})
    assert (row.path, row.extra) == ("a.wav", '{"audio": {"path": "a.wav", "start": null, "station": "x"}}')


@pytest.mark.parametrize(
    ("given", "seconds"), [("0:01,5", 1.5), ("00:01:02,500", 62.5), ("1:02.5", 62.5), (" 3 ", 3.0), ("1e1", 10.0)]
)
def test_times_are_read_as_they_are_written(given: str, seconds: float, tmp_path: Path) -> None:
    assert row_of(tmp_path, start=given).start == seconds


@pytest.mark.parametrize("given", ["1,5", "1_0", "1 2", "0:90", "1.5s", "inf", True])
def test_other_times_are_refused(given: object, tmp_path: Path) -> None:
    assert "its start is not a number of seconds" in (row_of(tmp_path, start=given).problem or "")
