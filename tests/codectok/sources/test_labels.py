"""Names of text and labels: the same in manifests, tars, Parquet and texts."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from codectok.audio.spans import Span
from codectok.errors import AudioError
from codectok.sources.clip import Clip
from codectok.sources.clips import clips_of
from codectok.sources.kinds import Kind
from codectok.sources.labels import NAMES, TEXT_FIELDS, described_by, squeezed
from codectok.sources.manifests.read import read_manifest
from codectok.sources.manifests.row import ManifestRow
from codectok.sources.source import Source
from codectok.sources.texts import text_rows
from tests.helpers.audio import tone
from tests.helpers.ranges import source_of
from tests.helpers.tars import write_tar


def span_in(values: dict[str, Any]) -> Span:
    return described_by(values)[0]


def wav() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(1, 8_000), 8_000, format="WAV")
    return buffer.getvalue()


def csv_row(folder: Path, values: Mapping[str, str]) -> ManifestRow:
    (folder / "x.csv").write_text(",".join(values) + "\n" + ",".join(values.values()) + "\n")
    (row,) = read_manifest(str(folder), "x.csv")
    return row


def json_row(folder: Path, values: Mapping[str, Any]) -> ManifestRow:
    (folder / "x.jsonl").write_text(json.dumps(values) + "\n")
    (row,) = read_manifest(str(folder), "x.jsonl")
    return row


def span_in_tar(folder: Path, values: Mapping[str, Any]) -> Span:
    return _only_span(write_tar(folder / "a.tar", [("k.wav", wav()), ("k.json", json.dumps(values).encode())]), "tar")


def span_in_parquet(folder: Path, values: Mapping[str, Any]) -> Span:
    columns = {name: [value] for name, value in values.items()}
    pq.write_table(pa.table({"audio": [{"bytes": wav(), "path": "a.wav"}], **columns}), folder / "a.parquet")
    return _only_span(folder / "a.parquet", "parquet")


def _only_span(path: Path, kind: Kind) -> Span:
    (clip,) = clips_of(Source("d", str(path.parent), path.name, kind, path.stat().st_size))
    assert isinstance(clip, Clip)
    return clip.span


# Headers as the tools write them.
HEADERS: list[tuple[str, dict[str, str], dict[str, str]]] = [
    (
        "Common Voice",
        {"client_id": "v1", "path": "a.mp3", "sentence_id": "77", "sentence": "Words.", "locale": "de"},
        {"speaker": "v1", "text": "Words.", "language": "de"},
    ),
    ("DeepSpeech", {"wav_filename": "a.wav", "wav_filesize": "9", "transcript": "words"}, {"text": "words"}),
    ("AudioFolder", {"file_name": "a.wav", "transcription": "words"}, {"text": "words"}),
    (
        "Emilia",
        {"id": "EN_0", "wav": "a.mp3", "text": "words", "speaker": "s", "language": "en", "dnsmos": "3.3"},
        {"id": "EN_0", "text": "words", "speaker": "s", "language": "en"},
    ),
    (
        "spelled otherwise",
        {"File Name": "a.wav", " Transcript ": "words", "Speaker-ID": "ann", "LANGUAGE": "en", "Utt_ID": "u"},
        {"text": "words", "speaker": "ann", "language": "en", "id": "u"},
    ),
    ("camel case", {"audioFilePath": "a.wav", "speakerName": "ann", "normalizedText": "w"}, {"text": "w"}),
]


@pytest.mark.parametrize(("values", "expected"), [case[1:] for case in HEADERS], ids=[case[0] for case in HEADERS])
def test_names_of_tools_are_the_same_in_all_sources(
    values: dict[str, str], expected: dict[str, str], tmp_path: Path
) -> None:
    for row in (csv_row(tmp_path, values), json_row(tmp_path, values)):
        assert row.path.startswith("a.")
        assert {name: getattr(row, name) for name in expected} == expected
    others = {name: value for name, value in values.items() if not value.startswith("a.")}
    for span in (span_in_tar(tmp_path, others), span_in_parquet(tmp_path, others)):
        found = {"id": span.id, "text": span.text, **vars(span.labels)}
        assert {name: found[name] for name in expected} == expected


def test_docs_list_all_names() -> None:
    page = (Path(__file__).parents[3] / "docs" / "sharding.md").read_text(encoding="utf-8")
    table = {
        cells[1].strip(): re.findall(r"`(\S+?)`", cells[2])
        for line in page.splitlines()
        if len(cells := line.split("|")) == 4
    }
    for field in ("path", *TEXT_FIELDS, "start", "end", "duration"):
        assert table[field] == [*NAMES[field], *NAMES.get(f"{field}_ms", ())]


def test_no_name_belongs_to_two_fields() -> None:
    names = [squeezed(name) for several in NAMES.values() for name in several]
    assert len(set(names)) == len(names)
    assert all(names[0] == field for field, names in NAMES.items())


@pytest.mark.parametrize("field", TEXT_FIELDS)
def test_first_name_wins_and_others_are_kept(field: str, tmp_path: Path) -> None:
    values = {name: f"of {name}" for name in reversed(NAMES[field])}
    for found in (span_in(values), json_row(tmp_path, {"path": "a.wav", **values})):
        value = getattr(found.labels if isinstance(found, Span) and field in vars(found.labels) else found, field)
        assert value == f"of {field}"
        kept = json.loads(found.extra or "{}")
        assert kept == {name: f"of {name}" for name in NAMES[field][1:]}


@pytest.mark.parametrize("empty", ["", "  ", None, float("nan")], ids=repr)
def test_empty_values_leave_the_field_to_the_next_name(empty: object) -> None:
    span = span_in({"text": empty, "sentence": "words", "speaker": empty, "note": empty})
    assert (span.text, span.labels.speaker, span.extra) == ("words", None, None)


def test_values_that_cannot_be_meant_are_further_labels() -> None:
    values = {"sentence": 12, "normalized": True, "lang_id": 3, "label": 5, "speaker_id": 7}
    span = span_in(values)
    assert (span.text, span.labels.language, span.labels.category, span.labels.speaker) == (None, None, None, "7")
    assert json.loads(span.extra or "") == {"sentence": 12, "normalized": True, "lang_id": 3, "label": 5}
    assert span_in({"text": ["words"]}).text == "words"
    assert span_in({"text": ["a", "b"], "sentence": "words"}).text == "words"


@pytest.mark.parametrize("value", [["a", "b"], [], {"a": 1}, True, "half \ud800", "nul \0"], ids=repr)
def test_text_that_is_not_one_text_is_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="its text"):
        span_in({"text": value})
    row = (tmp_path / "x.jsonl").write_text(
        json.dumps({"path": "a.wav", "text": "w"}) + "\n" + json.dumps({"path": "b.wav", "text": value})
    )
    assert row
    _, bad = read_manifest(str(tmp_path), "x.jsonl")
    assert bad.problem is not None
    assert "Line 2" in bad.problem


def test_paths_are_strings(tmp_path: Path) -> None:
    values = {"file": {"size": 3}, "clip": ["x.wav"], "audio": {"path": "a.wav", "sampling_rate": 16_000}}
    row = json_row(tmp_path, values)
    assert row.path == "a.wav"
    assert json.loads(row.extra or "") == {"file": {"size": 3}, "clip": ["x.wav"]}


@pytest.mark.parametrize(
    ("values", "start", "end"),
    [
        ({"start_ms": 1500, "end_ms": "2750"}, 1.5, 2.75),
        ({"duration[ms]": "4104"}, None, 4.104),
        ({"begin_time": "0:01.5", "end_time": "1:00:02"}, 1.5, 3602.0),
        ({"Offset": 2, "Duration (s)": 3.5}, 2.0, 5.5),
    ],
)
def test_times_of_other_tools_are_read(values: dict[str, Any], start: float, end: float, tmp_path: Path) -> None:
    row = json_row(tmp_path, {"path": "a.wav", **values})
    assert (row.start, row.end, row.extra) == (start, end, None)


def test_texts_have_the_same_names(tmp_path: Path) -> None:
    rows = [{"utt_id": "u", "Transcript": "words", "lang": "en", "spk": "ann"}, {"text": "", "sentence": "more"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = text_rows(source_of(tmp_path / "t.jsonl"))
    assert (first.id, first.text, first.fields) == ("u", "words", {"language": "en", "speaker": "ann"})
    assert second.text == "more"
    pq.write_table(pa.table({"sentence": ["words"], "locale": ["de"], "mood": ["sad"]}), tmp_path / "t.parquet")
    (row,) = text_rows(source_of(tmp_path / "t.parquet"), ["mood"])
    assert (row.text, row.fields) == ("words", {"language": "de", "extra.mood": "sad"})
