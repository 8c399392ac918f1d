"""Manifests of lhotse, compared with `Cut.load_audio`."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from codectok import InputError
from codectok.sources.listing.arguments import parse_arguments
from codectok.sources.listing.sources import list_sources
from codectok.sources.manifests.read import read_manifest
from codectok.sources.manifests.row import ManifestRow
from tests.helpers.audio import tone
from tests.helpers.jobs import rejects, run, shard_job
from tests.helpers.tars import all_samples

lhotse = pytest.importorskip("lhotse")

RATE = 16_000
PCM = 1.01 / 32_768
OPTIONS = {"min_seconds": 0.1, "max_seconds": 60.0, "sample_rate": RATE}


def recording_of(folder: Path, name: str, n_channels: int = 1, seconds: float = 9.0) -> Any:
    channels = [tone(seconds, RATE, 200 + 170 * channel, seed=channel) / (1 + channel) for channel in range(n_channels)]
    soundfile.write(folder / name, np.stack(channels, 1), RATE)
    return lhotse.Recording.from_file(folder / name)


def random_cuts(recording: Any, rng: random.Random, count: int) -> list[Any]:
    """Cuts at random times, with overlapping supervisions that may reach beyond them."""
    cuts = []
    for number in range(count):
        name = f"{recording.id}-{number}"
        start = rng.choice([0.0, round(rng.uniform(0, 5), 4), rng.uniform(0, 5)])
        duration = min(
            rng.choice([1.0, round(rng.uniform(0.3, 4), 3), rng.uniform(0.3, 4)]), recording.duration - start
        )
        n_channels = recording.num_channels
        channel = rng.choice(recording.channel_ids)
        supervisions = [
            lhotse.SupervisionSegment(
                f"{name}-{k}",
                recording.id,
                rng.uniform(-1.0, duration * 0.9),
                rng.uniform(1.1, 3.0),
                channel=channel,
                text=f"words {number} {k}",
                speaker=f"speaker {rng.randrange(3)}",
            )
            for k in range(rng.randrange(3))
        ]
        if n_channels == 2 and rng.random() < 0.3:  # more channels are mixed by their layout
            cuts.append(
                lhotse.MultiCut(name, start, duration, recording.channel_ids, supervisions, recording=recording)
            )
        else:
            cuts.append(lhotse.MonoCut(name, start, duration, channel, supervisions, recording=recording))
    return cuts


def assert_equal_to_lhotse(cuts: list[Any], output: Path, first: int = 0) -> None:
    """Assert that the segments in `output` are those of `cuts`, from sample `first` of each on."""
    found = {sample.id: (sample, audio) for sample, audio in all_samples(output)}
    assert set(found) == {cut.id for cut in cuts}
    for cut in cuts:
        sample, audio = found[cut.id]
        expected = cut.load_audio().mean(0)
        assert len(audio) == len(expected), cut.id
        np.testing.assert_allclose(audio[first:], expected[first:], atol=PCM, err_msg=cut.id)
        spoken = sorted(cut.supervisions, key=lambda one: one.start)
        assert sample.text == (" ".join(one.text for one in spoken) or None)
        speakers = {one.speaker for one in spoken}
        assert sample.speaker == (speakers.pop() if len(speakers) == 1 else None)


@pytest.mark.parametrize("name", ["mono.wav", "mono.flac", "stereo.wav", "stereo.flac", "three.wav"])
def test_cuts_equal_lhotse(name: str, tmp_path: Path) -> None:
    n_channels = {"mono": 1, "stereo": 2, "three": 3}[name.partition(".")[0]]
    cuts = random_cuts(recording_of(tmp_path, name, n_channels), random.Random(name), 20)
    lhotse.CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl.gz")
    run(shard_job(**OPTIONS), tmp_path / "cuts.jsonl.gz", tmp_path / "out")
    assert rejects(tmp_path / "out") == []
    assert_equal_to_lhotse(cuts, tmp_path / "out")


def test_truncated_cuts_equal_lhotse(tmp_path: Path) -> None:
    whole = recording_of(tmp_path, "a.mp3").to_cut()
    spoken = [
        lhotse.SupervisionSegment(f"s{n}", whole.recording_id, n * 1.3, 1.5, text=f"word {n}", speaker="ann")
        for n in range(6)
    ]
    whole.supervisions = spoken
    cuts = [whole.truncate(offset=n * 0.7, duration=2.2, preserve_id=False).with_id(f"c{n}") for n in range(8)]
    lhotse.CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl")
    run(shard_job(**OPTIONS), tmp_path / "cuts.jsonl", tmp_path / "out")
    # lhotse seeks in the file, and decodes the first frames of MP3 without the ones before.
    assert_equal_to_lhotse(cuts, tmp_path / "out", first=1600)


def test_channels_in_files_of_their_own_equal_lhotse(tmp_path: Path) -> None:
    parts = [recording_of(tmp_path, f"{n}.wav") for n in range(2)]
    soundfile.write(tmp_path / "1.wav", 0.5 * tone(9.0, RATE, 500, seed=7), RATE)
    sources = [lhotse.AudioSource("file", [n], str(tmp_path / f"{n}.wav")) for n in range(2)]
    first = parts[0]
    recording = lhotse.Recording("call", sources, RATE, first.num_samples, first.duration, channel_ids=[0, 1])
    cuts = [lhotse.MonoCut(f"c{n}", 1.0, 3.0, n, recording=recording) for n in range(2)]
    lhotse.CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl")
    run(shard_job(**OPTIONS), tmp_path / "cuts.jsonl", tmp_path / "out")
    assert_equal_to_lhotse(cuts, tmp_path / "out")


def rows_of(tmp_path: Path, *lines: dict[str, Any]) -> list[ManifestRow]:
    """Rows of a manifest of `lines`, after a good one."""
    good = {"path": "good.wav"}
    (tmp_path / "cuts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (good, *lines)))
    return list(read_manifest(str(tmp_path), "cuts.jsonl"))[1:]


@pytest.fixture
def stereo(tmp_path: Path) -> Any:
    return recording_of(tmp_path, "stereo.wav", 2)


def test_channels_of_cuts_are_read(stereo: Any, tmp_path: Path) -> None:
    cuts = [
        lhotse.MonoCut("0", 0, 2, 0, recording=stereo),
        lhotse.MonoCut("1", 0, 2, 1, recording=stereo),
        lhotse.MultiCut("2", 0, 2, [0, 1], recording=stereo),
        lhotse.MultiCut("3", 0, 2, [1], recording=stereo),
    ]
    assert [row.channel for row in rows_of(tmp_path, *(cut.to_dict() for cut in cuts))] == [0, 1, None, 1]
    numbered = lhotse.MonoCut("0", 0, 2, 1, recording=stereo).to_dict()
    numbered["recording"]["sources"][0]["channels"] = numbered["recording"]["channel_ids"] = [4, 1]
    mono = lhotse.MonoCut("0", 0, 2, 0, recording=recording_of(tmp_path, "mono.wav")).to_dict()
    assert [row.channel for row in rows_of(tmp_path, numbered, mono)] == [1, None]


def test_cuts_that_change_the_audio_are_refused(stereo: Any, tmp_path: Path) -> None:
    cut = lhotse.MonoCut("0", 0.5, 2, 0, recording=stereo)
    three = recording_of(tmp_path, "three.wav", 3)
    changed = [
        cut.perturb_speed(1.1),
        cut.perturb_tempo(0.9),
        cut.perturb_volume(0.5),
        cut.narrowband("mulaw"),
        cut.reverb_rir(),
        cut.normalize_loudness(-20),
        cut.pad(5),
        cut.append(cut),
        cut.mix(cut.with_id("1"), snr=10),
        lhotse.MultiCut("2", 0, 2, [0, 2], recording=three),
    ]
    for row, one in zip(rows_of(tmp_path, *(one.to_dict() for one in changed)), changed, strict=True):
        assert row.problem is not None, one
    padding = {"id": "p", "duration": 3, "sampling_rate": RATE, "feat_value": -23.0, "type": "PaddingCut"}
    no_recording = {"id": "f", "start": 0, "duration": 3, "channel": 0, "type": "MonoCut"}
    early = cut.to_dict() | {"start": -0.5}
    late = cut.to_dict() | {"start": 9.5}
    unknown = cut.to_dict() | {"channel": 2}
    found = rows_of(tmp_path, padding, no_recording, early, late, unknown)
    assert all(row.problem is not None for row in found)


def test_resampled_cuts_are_read(stereo: Any, tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, lhotse.MonoCut("0", 0.5, 2, 0, recording=stereo).resample(8000).to_dict())
    assert (row.problem, row.start, row.end, row.channel) == (None, 0.5, 2.5, 0)


@pytest.mark.parametrize("kind", ["command", "memory", "shar", "carrier pigeon"])
def test_other_sources_are_refused_and_never_executed(kind: str, stereo: Any, tmp_path: Path) -> None:
    cut = lhotse.MonoCut("0", 0.5, 2, 0, recording=stereo).to_dict()
    cut["recording"]["sources"][0] |= {"type": kind, "source": f"touch {tmp_path}/executed"}
    (row,) = rows_of(tmp_path, cut)
    assert row.problem is not None
    assert row.path == "cuts.jsonl#2"
    assert not (tmp_path / "executed").exists()


def test_custom_fields_become_extra_labels(stereo: Any, tmp_path: Path) -> None:
    spoken = [
        lhotse.SupervisionSegment("a", stereo.id, 0, 1, text="x", gender="F", custom={"emotion": "sad", "n": 1}),
        lhotse.SupervisionSegment("b", stereo.id, 1, 1, text="y", gender="F", custom={"emotion": "sad", "n": 2}),
    ]
    cut = lhotse.MonoCut("0", 0, 2, 0, spoken, recording=stereo, custom={"snr": 3.5, "target": stereo})
    (row,) = rows_of(tmp_path, cut.to_dict())
    assert json.loads(row.extra or "") == {"snr": 3.5, "gender": "F", "emotion": "sad", "n": [1, 2]}
    listing = list_sources(*parse_arguments([str(tmp_path / "cuts.jsonl")]), ("audio",))
    (unused,) = listing.unused.values()
    assert set(unused["columns"]) == {"custom: target"}


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_recordings_are_joined_with_their_supervisions(suffix: str, tmp_path: Path) -> None:
    recordings = lhotse.RecordingSet.from_recordings(recording_of(tmp_path, f"{n}.wav") for n in range(3))
    spoken = [
        lhotse.SupervisionSegment(f"s{n}-{k}", str(n), 4.0 * k, 3.0, text=f"text {n} {k}", speaker=f"ann {n}")
        for n in range(2)
        for k in range(2)
    ]
    recordings.to_file(tmp_path / f"x_recordings_dev{suffix}")
    lhotse.SupervisionSet.from_segments(spoken).to_file(tmp_path / f"x_supervisions_dev{suffix}")
    run(shard_job(sample_rate=RATE, max_seconds=20.0), tmp_path / f"x_recordings_dev{suffix}", tmp_path / "out")
    found = {sample.id: (sample.text, sample.speaker, sample.duration) for sample, _ in all_samples(tmp_path / "out")}
    assert found == {
        "0": ("text 0 0 text 0 1", "ann 0", 9.0),
        "1": ("text 1 0 text 1 1", "ann 1", 9.0),
        "2": (None, None, 9.0),
    }
    with pytest.raises(InputError, match="supervision without its recording"):
        list_sources(*parse_arguments([str(tmp_path / f"x_supervisions_dev{suffix}")]), ("audio",))


def test_recordings_alone_are_read(tmp_path: Path) -> None:
    recording = recording_of(tmp_path, "a.wav")
    (tmp_path / "recordings.jsonl.gz").write_bytes(gzip.compress(json.dumps(recording.to_dict()).encode()))
    (row,) = read_manifest(str(tmp_path), "recordings.jsonl.gz")
    assert (row.path, row.id, row.start, row.end, row.problem) == (str(tmp_path / "a.wav"), "a", None, None, None)


def test_words_of_another_channel_are_refused(tmp_path: Path) -> None:
    cut = lhotse.MonoCut("c", 0, 2, 0, recording=recording_of(tmp_path, "a.wav", 2))
    lines = []
    for channel, text in ((1, "other"), (0, "own"), ([0, 1], "both"), (1, None)):
        spoken = {"id": "s", "recording_id": "a", "start": 0, "duration": 1, "channel": channel, "text": text}
        lines.append(cut.to_dict() | {"supervisions": [spoken]})
    (tmp_path / "cuts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = list(read_manifest(str(tmp_path), "cuts.jsonl"))
    assert [row.text for row in rows] == [None, "own", "both", None]
    assert "one of its supervisions is of channel 1, which the cut does not take" in (rows[0].problem or "")
    assert [row.problem for row in rows[1:]] == [None, None, None]
