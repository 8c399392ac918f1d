"""Tars whose samples another file describes: lhotse's Shar, and NeMo."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from codectok.pipelines.verify.output import verify_output
from codectok.sources.clip import Clip
from codectok.sources.clips import clips_of
from codectok.sources.kinds import AUDIO_KINDS
from codectok.sources.listing.arguments import parse_arguments
from codectok.sources.listing.ordering import ordered_sources
from codectok.sources.listing.sources import Listing, list_sources
from codectok.sources.rejects import Reject
from codectok.storage import open_storage
from tests.helpers.audio import tone
from tests.helpers.jobs import rejects, run, shard_job
from tests.helpers.tars import all_samples, write_tar

RATE = 16_000
OPTIONS = {"sample_rate": RATE, "min_seconds": 0.1, "max_seconds": 30.0}


def audio(seconds: float = 3.0, frequency: float = 200.0) -> bytes:
    data = io.BytesIO()
    soundfile.write(data, tone(seconds, RATE, frequency), RATE, format="FLAC")
    return data.getvalue()


def cut_of(name: str, text: str, **fields: Any) -> dict[str, Any]:
    source = {"type": "shar", "channels": [0], "source": ""}
    recording = {"id": name, "sources": [source], "sampling_rate": RATE, "num_samples": 48_000, "duration": 3.0}
    spoken = {
        "id": "s",
        "recording_id": name,
        "start": 0,
        "duration": 3.0,
        "channel": 0,
        "text": text,
        "speaker": "ann",
    }
    cut = {"id": name, "start": 0, "duration": 3.0, "channel": 0, "type": "MonoCut"}
    return cut | {"supervisions": [spoken], "recording": recording} | fields


def write_shar(folder: Path, part: str, cuts: list[dict[str, Any]], names: list[str], suffix: str = ".jsonl") -> None:
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps(cut) + "\n" for cut in cuts).encode()
    data = gzip.compress(lines) if suffix.endswith("gz") else lines
    (folder / f"cuts{part}{suffix}").write_bytes(data)
    members = [
        member
        for n, name in enumerate(names)
        for member in ((f"{name}.flac", audio(3, 200 + 50 * n)), (f"{name}.json", b"{}"))
    ]
    write_tar(folder / f"recording{part}.tar", members)


def listed(place: Path) -> Listing:
    return list_sources(*parse_arguments([str(place)]), AUDIO_KINDS)


def clips_in(place: Path) -> tuple[list[Clip], list[Reject]]:
    found = [clip for source in ordered_sources(listed(place)) for clip in clips_of(source)]
    return [one for one in found if isinstance(one, Clip)], [one for one in found if isinstance(one, Reject)]


def texts_in(place: Path) -> dict[str, str | None]:
    return {clip.source: clip.span.text for clip in clips_in(place)[0]}


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize("part", [".000000", ""])
@pytest.mark.parametrize("named", [True, False])
def test_shar_is_read_with_its_words(suffix: str, part: str, named: bool, tmp_path: Path) -> None:
    names = ["a-1", "a-1_sp1.1", "deep/a.b"]
    write_shar(tmp_path / "shar", part, [cut_of(name, f"words {name}") for name in names], names, suffix)
    place = tmp_path / "shar" / f"cuts{part}{suffix}" if named else tmp_path / "shar"
    run(shard_job(**OPTIONS), place, tmp_path / "out")
    found = {sample.id: (sample.text, sample.speaker, sample.duration) for sample, _ in all_samples(tmp_path / "out")}
    assert found == {name: (f"words {name}", "ann", 3.0) for name in names}
    assert rejects(tmp_path / "out") == []
    verify_output(open_storage(tmp_path / "out"))


@pytest.mark.parametrize("named", ["recording.000000.tar", "recording.*.tar", "*"])
def test_tars_of_shar_keep_their_words_if_they_are_named(named: str, tmp_path: Path) -> None:
    write_shar(tmp_path / "shar", ".000000", [cut_of("a", "one")], ["a"])
    assert texts_in(tmp_path / "shar" / named) == {"recording.000000.tar/a.flac": "one"}


@pytest.mark.parametrize("named", ["audio_1.tar", "audio_*.tar"])
def test_tars_of_nemo_keep_their_words_if_they_are_named(named: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [
        {"audio_filepath": "a.flac", "duration": 3.9, "text": f"words {shard}", "shard_id": shard} for shard in (0, 1)
    ]
    folder = write_nemo(tmp_path / "nemo", rows, {0: ["a.flac"], 1: ["a.flac"]})
    found = texts_in(folder / named)
    assert found["audio_1.tar/a.flac"] == "words 1"
    assert found.get("audio_0.tar/a.flac", "words 0") == "words 0"


def test_other_fields_of_shar_are_named_as_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "shar"
    write_shar(folder, ".000000", [cut_of("a", "one")], ["a"])
    write_tar(folder / "target_recording.000000.tar", [("a.flac", audio()), ("a.json", b"{}")])
    (folder / "emotion.000000.jsonl.gz").write_bytes(gzip.compress(b'{"cut_id": "a"}\n'))
    assert texts_in(folder) == {"recording.000000.tar/a.flac": "one"}
    (unused,) = listed(folder).unused.values()
    assert set(unused["columns"]) == {"Shar field: target_recording", "Shar field: emotion"}


def test_shar_parts_without_partner_are_rejected(tmp_path: Path) -> None:
    folder = tmp_path / "shar"
    cuts = [cut_of("a", "one"), cut_of("b", "no sample"), cut_of("d", "reversed", start=-1), cut_of("e", "none")]
    write_shar(folder, ".000000", cuts, ["a", "c", "d"])
    (folder / "cuts.000001.jsonl").write_text(json.dumps(cut_of("x", "no tar")) + "\n")
    write_tar(folder / "recording.000002.tar", [("y.flac", audio())])
    kept, rejected = clips_in(folder)
    assert [clip.span.text for clip in kept] == ["one"]
    assert {(one.source, one.reason) for one in rejected} == {
        ("recording.000000.tar/b", "unreadable"),
        ("recording.000000.tar/c.flac", "invalid_row"),
        ("recording.000000.tar/d.flac", "invalid_row"),
        ("recording.000000.tar/e", "unreadable"),
        ("cuts.000001.jsonl", "invalid_row"),
        ("recording.000002.tar", "invalid_row"),
    }


def test_shar_is_read_in_ranges(tmp_path: Path) -> None:
    names = [f"n{n:02}" for n in range(30)]
    cuts = [cut_of(name, f"words {name}") for name in [*names, "missing"]]
    write_shar(tmp_path / "shar", ".000000", cuts, names)
    report = run(shard_job(**OPTIONS, shard_seconds=8.0), tmp_path / "shar", tmp_path / "out")
    assert report.summary.units > 3
    found = sorted(sample.text or "" for sample, _ in all_samples(tmp_path / "out"))
    assert found == [f"words {name}" for name in names]
    assert [row["source"] for row in rejects(tmp_path / "out")] == ["recording.000000.tar/missing"]


def test_changed_cuts_are_rejected(tmp_path: Path) -> None:
    write_shar(tmp_path / "shar", ".000000", [cut_of("a", "one")], ["a"])
    (source,) = ordered_sources(listed(tmp_path / "shar"))
    (tmp_path / "shar" / "cuts.000000.jsonl").write_text("")
    (found,) = clips_of(source)
    assert isinstance(found, Reject)
    assert "has changed" in found.message


def test_shar_of_lhotse_equals_its_reader(tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    soundfile.write(tmp_path / "a.wav", np.stack([tone(8, RATE, 200), tone(8, RATE, 700)], 1), RATE)
    recording = lhotse.Recording.from_file(tmp_path / "a.wav")
    cuts = []
    for n in range(6):
        spoken = lhotse.SupervisionSegment(
            f"s{n}", "a", 0.0, 1.5, channel=n % 2, text=f"words {n}", speaker=f"p{n % 2}"
        )
        cut = lhotse.MonoCut(f"c{n}.{n}", 0.7 * n, 1.9, n % 2, [spoken], recording=recording, custom={"emotion": "sad"})
        cuts.append(cut)
    (tmp_path / "shar").mkdir()
    lhotse.CutSet.from_cuts(cuts).to_shar(tmp_path / "shar", fields={"recording": "flac"}, shard_size=4)
    run(shard_job(**OPTIONS), tmp_path / "shar", tmp_path / "out")
    found = {sample.id: (sample, samples) for sample, samples in all_samples(tmp_path / "out")}
    assert len(found) == 6
    for cut in lhotse.CutSet.from_shar(in_dir=tmp_path / "shar"):
        sample, samples = found[cut.id]
        np.testing.assert_allclose(samples, cut.load_audio()[0], atol=1.01 / 32_768)
        assert (sample.text, sample.speaker) == (cut.supervisions[0].text, cut.supervisions[0].speaker)
        assert sample.extra == {"emotion": "sad"}


def write_nemo(folder: Path, rows: list[dict[str, Any] | str], shards: dict[int, list[str]]) -> Path:
    folder.mkdir(exist_ok=True)
    for shard, names in shards.items():
        write_tar(folder / f"audio_{shard}.tar", [(name, audio(4, 200 + 30 * shard)) for name in names])
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "tarred_audio_manifest.json").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("named", ["", "tarred_audio_manifest.json"])
def test_nemo_tars_are_read_with_their_words(named: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [
        {"audio_filepath": f"{name}.flac", "duration": 3.9, "text": f"words {name}", "shard_id": shard}
        for shard, name in [(0, "a"), (0, "b.c"), (1, "a"), (12, "x"), (1, "gone")]
    ]
    spans: list[dict[str, Any] | str] = [
        {"audio_filepath": "two.flac", "offset": start, "duration": 1.5, "text": f"at {start}", "shard_id": 12}
        for start in (0.5, 2.0)
    ]
    broken: list[dict[str, Any] | str] = ["{", {"audio_filepath": "a.flac", "duration": 3.9, "text": "no shard"}]
    shards = {0: ["a.flac", "b.c.flac", "filtered.flac"], 1: ["a.flac"], 12: ["x.flac", "two.flac"], 13: ["lost.flac"]}
    folder = write_nemo(tmp_path / "nemo", [*rows, *broken, *spans], shards)
    kept, rejected = clips_in(folder / named)
    assert sorted((clip.source, clip.span.text, clip.span.start, clip.span.end) for clip in kept) == [
        ("audio_0.tar/a.flac", "words a", 0.0, 3.9),
        ("audio_0.tar/b.c.flac", "words b.c", 0.0, 3.9),
        ("audio_1.tar/a.flac", "words a", 0.0, 3.9),
        ("audio_12.tar/two.flac", "at 0.5", 0.5, 2.0),
        ("audio_12.tar/two.flac", "at 2.0", 2.0, 3.5),
        ("audio_12.tar/x.flac", "words x", 0.0, 3.9),
    ]
    assert len({clip.id for clip in kept}) == len(kept)
    expected = {("audio_0.tar/filtered.flac", "filtered"), ("audio_1.tar/gone", "unreadable")}
    expected |= {("tarred_audio_manifest.json#6", "invalid_row"), ("tarred_audio_manifest.json#7", "invalid_row")}
    if not named:
        expected.add(("audio_13.tar", "invalid_row"))
    assert {(one.source, one.reason) for one in rejected} == expected


def test_several_manifests_of_nemo_tars_are_not_read(tmp_path: Path) -> None:
    row: dict[str, Any] = {"audio_filepath": "a.flac", "duration": 3.9, "text": "words", "shard_id": 0}
    folder = write_nemo(tmp_path / "nemo", [row], {0: ["a.flac"]})
    (folder / "filtered.json").write_text(json.dumps(row) + "\n")
    assert texts_in(folder) == {"audio_0.tar/a.flac": None}
    (unused,) = listed(folder).unused.values()
    assert set(unused["sidecars"]) == {"NeMo tarred: filtered.json", "NeMo tarred: tarred_audio_manifest.json"}
    assert texts_in(folder / "filtered.json") == {"audio_0.tar/a.flac": "words"}
