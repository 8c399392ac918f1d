"""Fields without a name of their own travel as JSON into shards and tables."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from codectok.audio.spans import Span, cut_between_supervisions, join_short
from codectok.extras import MAX_EXTRA_BYTES, extra_of, merged_extra
from codectok.sources.listing.arguments import parse_arguments
from codectok.sources.listing.sources import list_sources
from codectok.tokens.table import read_rows
from tests.helpers.audio import tone
from tests.helpers.jobs import run, shard_job, tokenize_job
from tests.helpers.tars import all_samples, write_tar

from .test_containers import flac


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_fields_travel_into_shards_and_tables(tmp_path: Path, codec_folder: Path) -> None:
    corpus = tmp_path / "in"
    corpus.mkdir()
    soundfile.write(corpus / "a.wav", tone(4, 16_000), 16_000)
    write_tar(corpus / "t.tar", [("k.flac", flac(3)), ("k.json", b'{"text": "w", "mood": "sad", "n": 1.5}')])
    clip = {"bytes": flac(3, 1), "path": "p.flac"}
    when = datetime.date(2024, 2, 29)
    pq.write_table(pa.table({"audio": [clip], "gender": ["f"], "when": [when], "tags": [["a"]]}), corpus / "p.parquet")
    jsonl(corpus / "m.jsonl", {"path": "a.wav", "text": "w", "mood": "sad", "custom": {"age": 30, "mood": "x"}})
    expected = {
        "a.wav": {"mood": "sad", "age": 30, "custom": {"mood": "x"}},
        "t.tar/k.flac": {"mood": "sad", "n": 1.5},
        "p.parquet/0.flac": {"gender": "f", "when": "2024-02-29", "tags": ["a"]},
    }
    for name in ("m.jsonl", "t.tar", "p.parquet"):
        run(shard_job(), corpus / name, tmp_path / f"shards-{name}")
        run(tokenize_job(codec_folder), corpus / name, tmp_path / f"tokens-{name}")
        run(tokenize_job(codec_folder), tmp_path / f"shards-{name}", tmp_path / f"both-{name}")
        samples = {sample.source: sample.extra for sample, _ in all_samples(tmp_path / f"shards-{name}")}
        tables = [
            {row.source: json.loads(row.extra or "") for row in read_rows(str(tmp_path / f"{kind}-{name}"))}
            for kind in ("tokens", "both")
        ]
        wanted = {source: extra for source, extra in expected.items() if source in samples}
        assert samples == tables[0] == tables[1] == wanted
        assert len(wanted) == 1


def test_extra_is_sorted_json_within_a_limit() -> None:
    assert extra_of({"b": 1, "a": "ü", "c": None, "d": "", "e": [1, {"y": 2, "x": 1}]}) == (
        '{"a": "ü", "b": 1, "e": [1, {"x": 1, "y": 2}]}',
        (),
    )
    long = "x" * MAX_EXTRA_BYTES
    values = {
        "a": long,
        "b": b"bytes",
        "c": 1,
        "d": float("inf"),
        "e": "half \ud800",
        "f": [float("nan")],
        "g": object(),
    }
    assert extra_of(values) == ('{"c": 1}', ("a", "b", "d", "e", "f", "g"))
    halves = {"a": "x" * (MAX_EXTRA_BYTES // 2), "b": "y" * (MAX_EXTRA_BYTES // 2), "c": 1}
    extra, left_out = extra_of(halves)
    assert left_out == ("b",)
    assert len((extra or "").encode()) <= MAX_EXTRA_BYTES
    assert extra_of({"a": None}) == (None, ())


def test_fields_that_are_left_out_are_named(tmp_path: Path) -> None:
    jsonl(tmp_path / "m.jsonl", *[{"path": f"{n}.wav", "huge": "x" * MAX_EXTRA_BYTES, "mood": "sad"} for n in range(2)])
    listing = list_sources(*parse_arguments([str(tmp_path / "m.jsonl")]), ("audio",))
    (unused,) = listing.unused.values()
    assert {name: entry.count for name, entry in unused["columns"].items()} == {"huge": 2}
    assert listing.source(0).extra == '{"mood": "sad"}'


def test_rows_that_differ_in_a_field_are_different(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(4, 16_000), 16_000)
    jsonl(tmp_path / "m.jsonl", *[{"path": "a.wav", "text": "w", "mood": mood} for mood in ("sad", "glad", "sad")])
    run(shard_job(), tmp_path / "m.jsonl", tmp_path / "out")
    assert sorted(str((sample.extra or {})["mood"]) for sample, _ in all_samples(tmp_path / "out")) == ["glad", "sad"]


@pytest.mark.parametrize(
    ("extras", "merged"),
    [
        ([None, None], None),
        (['{"a": 1}', '{"a": 1}'], {"a": 1}),
        (['{"a": 1, "b": 2}', '{"a": 1, "b": 3}', '{"a": 1, "b": 2}'], {"a": 1, "b": [2, 3]}),
        (['{"a": 1}', None], {"a": [1, None]}),
    ],
)
def test_labels_of_joined_spans_are_merged(extras: list[str | None], merged: dict[str, Any] | None) -> None:
    found = merged_extra(extras)
    assert (None if found is None else json.loads(found)) == merged
    spans = [Span(n, n + 1.0, text="w", extra=extra) for n, extra in enumerate(extras)]
    (joined,) = join_short(spans, 2.0, 10.0)
    assert joined.extra == found


def test_pieces_have_the_labels_of_their_supervisions(tmp_path: Path) -> None:
    spoken = [
        {"start": 0, "duration": 4, "text": "one", "gender": "f", "custom": {"mood": "sad"}},
        {"start": 5, "duration": 4, "text": "two", "gender": "f", "alignment": {"word": []}},
        {"start": 10, "duration": 4, "text": "three", "gender": "m"},
    ]
    jsonl(tmp_path / "m.jsonl", {"path": "a.wav", "end": 15, "supervisions": spoken, "room": "hall"})
    span = list_sources(*parse_arguments([str(tmp_path / "m.jsonl")]), ("audio",)).source(0).span
    assert json.loads(span.extra or "") == {"room": "hall", "gender": ["f", "m"], "mood": ["sad", None]}
    pieces = cut_between_supervisions([span], 5.0)
    assert [json.loads(piece.extra or "") for piece in pieces] == [
        {"room": "hall", "gender": "f", "mood": "sad"},
        {"room": "hall", "gender": "f"},
        {"room": "hall", "gender": "m"},
    ]
