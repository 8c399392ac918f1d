"""Manifests: their rows, and the segments that become of them."""

from __future__ import annotations

import gzip
import json
import re
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectok import InputError
from codectok.audio.files import read_audio
from codectok.errors import VerificationError
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.verify.output import verify_output
from codectok.shards import Sample, read_index
from codectok.shards import read_manifest as read_shard_manifest
from codectok.sources.clips import clip_of
from codectok.sources.listing.arguments import parse_arguments
from codectok.sources.listing.ordering import ordered_sources
from codectok.sources.listing.sources import list_sources
from codectok.sources.manifests.read import read_manifest
from codectok.storage import open_storage
from tests.helpers.audio import tone
from tests.helpers.jobs import LOCAL, rejects, run, shard_job
from tests.helpers.tars import all_samples

RATE = 24_000


def write_manifest(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A recording of one minute."""
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "book.flac", tone(60, 16_000), 16_000)
    return tmp_path / "audio" / "book.flac"


def samples_of(
    tmp_path: Path, rows: Sequence[Mapping[str, object]], **options: object
) -> list[tuple[Sample, np.ndarray]]:
    run(shard_job(**options), write_manifest(tmp_path / "list.jsonl", rows), tmp_path / "out")
    return all_samples(tmp_path / "out")


def test_spans_become_segments_with_text_and_labels(book: Path, tmp_path: Path) -> None:
    known = {"language": "en", "speaker": "ann", "category": "speech"}
    rows = [
        {"path": "audio/book.flac", "start": 3.0, "end": 8.0, "id": "one", "text": "first words", **known},
        {"path": "audio/book.flac", "start": 6.0, "end": 12.5, "id": "two", "text": "they overlap"},
        {"path": str(book), "start": 20.0, "end": 29.0},
    ]
    found = samples_of(tmp_path, rows)
    whole = read_audio(book, RATE)
    by_start = {sample.start: (sample, audio) for sample, audio in found}
    assert sorted(by_start) == [3.0, 6.0, 20.0]
    first = by_start[3.0][0]
    assert (first.id, first.text, first.language, first.speaker, first.category) == (
        "one",
        "first words",
        "en",
        "ann",
        "speech",
    )
    for start, (sample, audio) in by_start.items():
        expected = whole[round(start * RATE) :][: sample.n_samples]
        np.testing.assert_allclose(audio, expected, atol=1 / 32_000)
    assert [by_start[start][0].duration for start in (3.0, 6.0, 20.0)] == [5.0, 6.5, 9.0]


def test_categories_are_indexed_and_counted(book: Path, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"path": "audio/book.flac", "start": 10.0 * n, "end": 10.0 * n + 5, **({"category": name} if name else {})}
        for n, name in enumerate(["speech", "music", None, "speech"])
    ]
    found = samples_of(tmp_path, rows)
    storage = open_storage(tmp_path / "out")
    (entry,) = read_shard_manifest(storage).shards
    assert entry.categories == {"music": 1, "speech": 2}
    index = read_index(storage, entry.name).to_pylist()
    assert [row["category"] for row in index] == [sample.category for sample, _ in found]
    verify_output(storage)
    manifest = tmp_path / "out" / "shards.json"
    manifest.write_text(manifest.read_text().replace('"music": 1', '"music": 2'))
    with pytest.raises(VerificationError, match=r"shards\.json"):
        verify_output(storage)


def test_text_is_not_cut_and_short_neighbours_are_joined(book: Path, tmp_path: Path) -> None:
    rows = [
        {"path": "audio/book.flac", "start": 0.0, "end": 1.0, "text": "one", "id": "a"},
        {"path": "audio/book.flac", "start": 1.5, "end": 2.3, "text": "two", "id": "b"},
        {"path": "audio/book.flac", "start": 2.5, "end": 3.0, "text": "three", "speaker": "bob"},
        {"path": "audio/book.flac", "start": 20.0, "end": 32.0, "text": "too long for one segment"},
        {"path": "audio/book.flac", "start": 40.0, "end": 52.0},
    ]  # fmt: skip
    found = samples_of(tmp_path, rows)
    joined = found[0][0]
    assert (joined.start, joined.duration, joined.text, joined.id) == (0.0, 2.3, "one two", "a b")
    assert sum(sample.duration for sample, _ in found[1:]) == pytest.approx(12.0)
    reasons = {(row["start"], row["reason"], row["duration"]) for row in rejects(tmp_path / "out")}
    assert reasons == {(2.5, "too_short", 0.5), (20.0, "too_long", 12.0)}


def test_every_second_is_row_or_reject(book: Path, corpus: Path, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"path": "audio/book.flac", "start": 10.0, "end": 31.0},
        {"path": "audio/book.flac", "start": 55.0, "end": 70.0},
        {"path": str(corpus / "a.wav")},
        {"path": str(corpus / "short.wav"), "text": "hm"},
        {"path": "nowhere.wav", "start": 0, "end": 4},
    ]
    report = run(shard_job(), write_manifest(tmp_path / "list.jsonl", rows), tmp_path / "out")
    total = report.summary.total
    assert total.inputs == 5
    assert total.input_seconds == pytest.approx(21 + 5 + 3 + 0.4)
    assert total.seconds + sum(total.reject_seconds.values()) == pytest.approx(total.input_seconds)
    assert total.rejects == {"too_short": 1, "unreadable": 2}
    assert total.seconds == pytest.approx(21 + 5 + 3)  # the span beyond the end keeps what there is


@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.csv.gz", "list.jsonl.gz"])
def test_manifest_formats_are_equivalent(name: str, tmp_path: Path) -> None:
    rows = [
        ["path", "start", "end", "text"],
        ["a b.wav", "1.5", "", 'with "quotes", commas\nand lines'],
        ["c.wav", "", "", ""],
    ]
    separator = "\t" if ".tsv" in name else ","
    table = "\r\n".join(separator.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows) + "\r\n"
    lines = "\n".join(json.dumps(dict(zip(rows[0], row, strict=True))) for row in rows[1:])
    data = ("\ufeff" + (lines if ".jsonl" in name else table)).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    first, second = read_manifest(str(tmp_path), name)
    assert (first.path, first.start, first.end, first.text) == ("a b.wav", 1.5, None, rows[1][3])
    assert (second.path, second.start, second.text) == ("c.wav", None, None)


def test_manifest_column_names_of_other_tools(tmp_path: Path) -> None:
    write_manifest(
        tmp_path / "x.jsonl", [{"audio_filepath": "a.wav", "offset": 2, "duration": 3.5, "text": "t", "lang": "de"}]
    )
    (row,) = read_manifest(str(tmp_path), "x.jsonl")
    assert (row.path, row.start, row.end, row.language) == ("a.wav", 2.0, 5.5, "de")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "Line 2 .* JSON"),
        ("[1]", "Line 2 .* JSON object"),
        ('{"text": "no path"}', "Line 2 of .* it has no path"),
        ('{"path": "a.wav", "start": 3, "end": 2}', r"Line 2 .* its end \(2 s\) is not after its start"),
        ('{"path": "a.wav", "start": -1}', "Line 2 .* start"),
        ('{"path": "a.wav", "start": "x"}', "Line 2 .* start"),
        ('{"path": "a.wav", "end": 0}', "Line 2 .* end"),
        ('{"path": "a.wav", "start": true}', "Line 2 .* start"),
        ('{"path": "a.wav", "start": 1' + 400 * "0" + "}", "Line 2 .* start"),
        ('{"path": "a.wav", "duration": [1]}', "Line 2 .* duration"),
        ('{"path": "a.wav", "duration": -1}', "Line 2 .* duration"),
        ('{"path": ["a.wav"]}', "Line 2 .* path"),
        ('{"path": "a\\u0000.wav"}', "Line 2 .* path"),
        ('{"path": "a.wav", "text": {"a": 1}}', "Line 2 .* text"),
        ('{"path": "a.wav", "text": "\\ud800"}', "Line 2 .* text"),
        ('{"path": "a.wav", "supervisions": "x"}', "Line 2 .* supervisions"),
        ('{"path": "a.wav", "supervisions": ["x"]}', "Line 2 .* supervisions"),
        ('{"path": "a.wav", "supervisions": [{"text": "a"}]}', "Line 2 .* supervisions .* duration"),
        ('{"path": "a.wav", "supervisions": [{"start": "x", "duration": 1}]}', "Line 2 .* start"),
        ('{"path": "a.wav", "supervisions": [{"duration": 1, "text": ["a"]}]}', "Line 2 .* text"),
        ('{"recording": {"sources": ["a"]}}', "Line 2 .* recording"),
        ('{"recording": {"sources": {"type": "file"}}}', "Line 2 .* recording"),
        ('{"recording": {"sources": [{"type": "file"}]}}', "Line 2 .* it has no path"),
        ('{"recording": {"sources": [{"type": "file", "source": 7}]}, "duration": {}}', "Line 2 .* duration"),
        (100_000 * "[", "Line 2 .* JSON"),
    ],
)
def test_bad_manifest_line_is_named(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"path": "a.wav"}\n' + line + "\n")
    good, bad = read_manifest(str(tmp_path), "x.jsonl")
    assert good.problem is None
    assert bad.problem is not None
    assert re.search(words, bad.problem)
    assert "x.jsonl" in bad.problem
    assert "\n" not in bad.problem
    with pytest.raises(InputError, match=words):
        list_sources(*parse_arguments([str(tmp_path / "x.jsonl")]), ("audio",), strict=True)


def test_duration_without_start_counts_from_zero(book: Path, tmp_path: Path) -> None:
    rows = [{"path": "audio/book.flac", "duration": 4.5, "text": "words"}]
    (sample,) = [sample for sample, _ in samples_of(tmp_path, rows)]
    assert (sample.start, sample.duration) == (0.0, 4.5)


def test_manifest_converts_numbers_and_text(tmp_path: Path) -> None:
    write_manifest(
        tmp_path / "x.jsonl", [{"path": 7, "start": "1.5", "end": "2", "id": 12, "speaker": 3.5, "text": ""}]
    )
    (row,) = read_manifest(str(tmp_path), "x.jsonl")
    assert (row.path, row.start, row.end, row.id, row.speaker, row.text) == ("7", 1.5, 2.0, "12", "3.5", None)


def test_manifest_rows_stay_with_their_source(corpus: Path, tmp_path: Path) -> None:
    """Other files are listed before, between and after them."""
    for name in ("one", "two"):
        rows = [{"path": f"{name}-{n}.wav", "start": n, "end": n + 2.5, "text": f"{name} {n}"} for n in range(3)]
        write_manifest(tmp_path / f"{name}.jsonl", rows[::-1])
    arguments = [f"a={tmp_path}/one.jsonl", f"b={corpus}", f"c={tmp_path}/two.jsonl", f"d={corpus}/a.wav"]
    found = list(ordered_sources(list_sources(*parse_arguments(arguments), ("audio",))))
    described = [(s.dataset, s.path, s.start, s.end, s.text) for s in found if s.text is not None]
    assert described == [
        (dataset, f"{name}-{n}.wav", n, n + 2.5, f"{name} {n}")
        for dataset, name in (("a", "one"), ("c", "two"))
        for n in range(3)
    ]
    assert {s.dataset for s in found if s.start is None} == {"b", "d"}


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"\x1f\x8bbroken", gzip.compress(b"{}")[:10] + b"\xff" * 20])
def test_unreadable_manifests_are_refused(data: bytes, tmp_path: Path) -> None:
    for name in ("x.jsonl", "x.jsonl.gz", "x.csv", "x.csv.gz"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match="cannot be"):
            list(read_manifest(str(tmp_path), name))


def test_long_texts_are_cut_between_supervisions(book: Path, tmp_path: Path) -> None:
    times = [(0.5, 4.0, "one"), (4.5, 7.5, "two"), (7.0, 9.0, "three"), (11.0, 14.0, "four"), (14.5, 26.0, "too long")]
    supervisions = [{"start": a, "duration": b - a, "text": text, "speaker": "ann"} for a, b, text in times]
    row = {"path": "audio/book.flac", "start": 10.0, "end": 38.0, "supervisions": supervisions}
    found = sorted(samples_of(tmp_path, [row]), key=lambda one: one[0].start)
    assert [(s.start, s.duration, s.text, s.speaker) for s, _ in found] == [
        (10.0, 10.0, "one two three", "ann"),
        (20.0, 4.25, "four", "ann"),
    ]
    (lost,) = rejects(tmp_path / "out")
    assert (lost["start"], lost["duration"], lost["reason"]) == (24.25, 13.75, "too_long")


def test_lhotse_cuts_are_read(book: Path, tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    recording = lhotse.Recording.from_file(book)
    supervision = lhotse.SupervisionSegment("s", recording.id, 12.0, 5.0, text="hello", language="en", speaker="bob")
    cut = lhotse.MonoCut("cut-1", 11.5, 6.0, 0, [supervision.with_offset(-11.5)], recording=recording)
    lhotse.CutSet.from_cuts([cut]).to_jsonl(tmp_path / "cuts.jsonl.gz")
    run(shard_job(), tmp_path / "cuts.jsonl.gz", tmp_path / "out")
    ((sample, _),) = all_samples(tmp_path / "out")
    assert (sample.start, sample.duration, sample.text) == (11.5, 6.0, "hello")
    assert (sample.id, sample.language, sample.speaker) == ("cut-1", "en", "bob")


def test_lhotse_cuts_are_read_without_lhotse(book: Path, tmp_path: Path) -> None:
    source = {"type": "file", "channels": [0], "source": str(book)}
    cut = {
        "id": "a", "start": 2.0, "duration": 3.0, "channel": 0, "type": "MonoCut",
        "supervisions": [{"id": "s", "recording_id": "r", "start": 0.0, "duration": 3.0, "text": "t", "speaker": "x"}],
        "recording": {"id": "r", "sources": [source], "sampling_rate": 16000, "num_samples": 960000, "duration": 60.0},
    }  # fmt: skip
    ((sample, _),) = samples_of(tmp_path, [cut])
    assert (sample.start, sample.duration, sample.text, sample.speaker, sample.id) == (2.0, 3.0, "t", "x", "a")
    write_manifest(tmp_path / "x.jsonl", [cut | {"type": "MixedCut"}])
    with pytest.raises(InputError, match="mixes or pads"):
        list(read_manifest(str(tmp_path), "x.jsonl"))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A file of four seconds."""
    soundfile.write(tmp_path / "clip.wav", tone(4, 16_000), 16_000)
    return tmp_path / "clip.wav"


def test_wrong_end_rejects_one_span_only(book: Path, tmp_path: Path) -> None:
    times = [(0, 100), (10, 15), (20, 25), (30, 35), (59, 70), (65, 70), (80, None)]
    rows = [{"path": "audio/book.flac", "start": a, "end": b, "id": str(a)} for a, b in times]
    report = run(shard_job(), write_manifest(tmp_path / "list.jsonl", rows), tmp_path / "out")
    kept = [sample for sample, _ in all_samples(tmp_path / "out")]
    assert [(s.id, s.start, s.duration) for s in kept if s.id != "0"] == [
        ("10", 10.0, 5.0),
        ("20", 20.0, 5.0),
        ("30", 30.0, 5.0),
    ]
    assert sum(sample.duration for sample in kept) == pytest.approx(60 + 3 * 5)
    found = {(row["start"], row["reason"], row["duration"]) for row in rejects(tmp_path / "out")}
    assert found == {
        (60.0, "unreadable", 0.0),
        (59.0, "too_short", 1.0),
        (65.0, "unreadable", 0.0),
        (80.0, "unreadable", 0.0),
    }
    assert report.summary.total.inputs == len(rows)
    assert report.summary.total.input_seconds == pytest.approx(60 + 3 * 5 + 1)


def test_span_with_text_beyond_the_end_is_rejected(clip: Path, tmp_path: Path) -> None:
    rows = [
        {"path": "clip.wav", "start": 0.0, "end": 8.0, "text": "words for eight seconds"},
        {"path": "clip.wav", "start": 1.0, "end": 4.05, "text": "an end that was rounded up"},
        {"path": "clip.wav", "start": 5.0, "end": 8.0, "text": "nothing at all"},
    ]
    report = run(shard_job(), write_manifest(tmp_path / "list.jsonl", rows), tmp_path / "out")
    ((sample, _),) = all_samples(tmp_path / "out")
    assert (sample.text, sample.duration) == ("an end that was rounded up", 3.0)
    found = [(row["start"], row["reason"], row["duration"]) for row in rejects(tmp_path / "out")]
    assert found == [(0.0, "unreadable", 4.0), (5.0, "unreadable", 0.0)]
    assert report.summary.total.input_seconds == pytest.approx(4.0 + 3.0)


def test_wrong_end_keeps_spans_joined_to_it(clip: Path, tmp_path: Path) -> None:
    times = {"one": (0.0, 1.5), "two": (1.5, 2.8), "three": (3.0, 4.3)}
    rows = [{"path": "clip.wav", "start": a, "end": b, "text": text, "id": text} for text, (a, b) in times.items()]
    ((sample, _),) = samples_of(tmp_path, rows)
    assert (sample.text, sample.id, sample.start, sample.duration) == ("one two", "one two", 0.0, 2.8)
    found = [(row["start"], row["reason"], row["duration"]) for row in rejects(tmp_path / "out")]
    assert found == [(2.8, "unreadable", pytest.approx(1.2))]


def test_seconds_beyond_the_end_are_not_counted(clip: Path, tmp_path: Path) -> None:
    rows = [{"path": "clip.wav", "start": 0, "end": 8}, {"path": "missing.wav", "start": 0, "end": 100}]
    total = run(shard_job(), write_manifest(tmp_path / "list.jsonl", rows), tmp_path / "out").summary.total
    assert total.inputs == 2
    assert (total.input_seconds, total.seconds) == pytest.approx((4.0, 4.0))
    assert [row["duration"] for row in rejects(tmp_path / "out")] == [0.0, None]


def test_supervisions_before_a_wrong_end_are_kept(clip: Path, tmp_path: Path) -> None:
    times = [(0.0, 2.5, "one"), (3.0, 6.0, "two"), (7.0, 12.0, "three"), (13.0, 18.0, "four")]
    supervisions = [{"start": a, "duration": b - a, "text": text} for a, b, text in times]
    rows = [{"path": "clip.wav", "start": 0.0, "end": 20.0, "supervisions": supervisions}]
    total = run(shard_job(max_seconds=4.0), write_manifest(tmp_path / "x.jsonl", rows), tmp_path / "out").summary.total
    assert [(sample.text, sample.duration) for sample, _ in all_samples(tmp_path / "out")] == [("one", 2.75)]
    found = [(row["start"], row["reason"], row["duration"]) for row in rejects(tmp_path / "out")]
    assert found == [(2.75, "unreadable", 1.25)]
    assert total.inputs == 1
    assert total.input_seconds == pytest.approx(4.0)


CAPTIONS: list[dict[str, object]] = [
    {"id": "1", "text": "a dog"},
    {"id": "2", "text": "barking"},
    {"id": "2", "text": "barking", "start": 1.0},
    {"text": "a hound. And more"},
    {"text": "wow"},
    {"text": "wow", "speaker": "rex"},
    {"text": "wow", "start": 0.0, "end": 4.0},
    {"text": "wow", "start": 0.0, "end": 3.0},
]


@pytest.fixture
def captions(clip: Path, tmp_path: Path) -> Path:
    """Several rows for one file, one of them twice."""
    rows = [{"path": clip.name, **row} for row in [*CAPTIONS, CAPTIONS[3]]]
    return write_manifest(tmp_path / "list.jsonl", rows)


def test_rows_of_one_file_have_different_keys(captions: Path, tmp_path: Path) -> None:
    report = run(shard_job(), captions, tmp_path / "out")
    # Read by webdataset, which would merge samples with the same key.
    found = [(sample.id, sample.text, sample.start, sample.speaker) for sample, _ in all_samples(tmp_path / "out")]
    expected = [(row.get("id"), row["text"], row.get("start", 0.0), row.get("speaker")) for row in CAPTIONS]
    assert Counter(found) == Counter(expected)
    assert report.summary.total.rows == report.summary.total.inputs == len(CAPTIONS)
    verify_output(open_storage(tmp_path / "out"))
    sources = ordered_sources(list_sources(*parse_arguments([str(captions)]), kinds=("audio",)))
    assert len({clip_of(source).id for source in sources}) == len(CAPTIONS)  # rows of a token table


def test_extension_adds_rows_with_other_texts_only(captions: Path, clip: Path, tmp_path: Path) -> None:
    run(shard_job(), captions, tmp_path / "out")
    row = {"path": clip.name, "text": "one more"}
    captions.write_text(captions.read_text() + json.dumps(row) + "\n")
    new = {"path": clip.name, "text": "another manifest"}
    other = write_manifest(tmp_path / "other.jsonl", [new])
    options = replace(LOCAL, extend=True)
    report = run_job(shard_job(), [str(captions), str(other)], tmp_path / "out", options)
    assert report.summary.total.rows == len(CAPTIONS) + 2
    verify_output(open_storage(tmp_path / "out"))


def test_tar_named_twice_is_read_once(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(4, 16_000), 16_000)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "a.wav", "a.wav")
    rows: list[dict[str, object]] = [{"path": "x.tar", "text": "one"}, {"path": "x.tar", "text": "two", "start": 1.0}]
    assert len(samples_of(tmp_path, rows)) == 1
    run(shard_job(), tmp_path / "list.jsonl", tmp_path / "out", replace(LOCAL, extend=True))
    assert len(all_samples(tmp_path / "out")) == 1
