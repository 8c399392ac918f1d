"""Jobs read channels and scales as their options and manifests say, and account for all sound."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from codectok import Codec, SoundOptions, read_audio
from codectok.pipelines import decoded_clips
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.shard.cutter import RecordingCutter
from codectok.pipelines.shard.options import ShardOptions
from codectok.pipelines.shard.recordings import recordings_of
from codectok.pipelines.tokenize.job import TokenizeJob
from codectok.pipelines.tokenize.options import TokenizeOptions
from codectok.pipelines.tokenize.reencode import reencode
from codectok.pipelines.verify.output import verify_output
from codectok.shards import ShardWriter
from codectok.sources.clips import UnusedSound
from codectok.sources.source import Source
from tests.helpers.audio import tone
from tests.helpers.evaluation import evaluated
from tests.helpers.jobs import rejects, run, shard_job
from tests.helpers.tars import all_samples, read_samples

RATE = 24_000
EACH, REJECT = SoundOptions("each"), SoundOptions(cancelled="reject")


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """A stereo call, a mono file, and a stereo file whose channels are opposite."""
    folder = tmp_path / "in"
    folder.mkdir()
    call = np.stack([tone(3, RATE, 200), 0.2 * tone(3, RATE, 700, seed=1)], axis=1)
    soundfile.write(folder / "call.wav", call, RATE, "PCM_16")
    soundfile.write(folder / "mono.wav", tone(3, RATE, 400, seed=2), RATE, "PCM_16")
    voice = 0.3 * np.sin(np.arange(3 * RATE) / 20).astype(np.float32)
    soundfile.write(folder / "opposite.wav", np.stack([voice, -voice], axis=1), RATE, "PCM_16")
    return folder


def parts_of(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


def test_each_channel_becomes_segments_and_mono_keeps_its_keys(calls: Path, tmp_path: Path) -> None:
    report = run(shard_job(sound=EACH, max_seconds=4.0), calls, tmp_path / "each")
    run(shard_job(max_seconds=4.0), calls, tmp_path / "mix")
    samples = all_samples(tmp_path / "each")
    found = {(s.source, (s.extra or {}).get("channel")): audio for s, audio in samples}
    assert len(samples) == len(found) == 5
    for channel in (0, 1):
        np.testing.assert_array_equal(found["call.wav", channel], parts_of(calls / "call.wav")[:, channel])
    np.testing.assert_array_equal(found["mono.wav", None], parts_of(calls / "mono.wav")[:, 0])
    assert report.summary.total.inputs == 5
    verify_output(tmp_path / "each")
    keys = {folder: {key for key in keys_of(tmp_path / folder) if "mono" in key} for folder in ("each", "mix")}
    assert keys["each"] == keys["mix"]
    assert len(keys_of(tmp_path / "each")) == 5


def keys_of(folder: Path) -> set[str]:
    names: set[str] = set()
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            names |= {name.partition(".")[0] for name in tar.getnames()}
    return names


def test_cancelled_channels_are_replaced_and_reported_or_rejected(calls: Path, tmp_path: Path) -> None:
    report = run(shard_job(max_seconds=4.0), calls, tmp_path / "first")
    found = {s.source: audio for s, audio in all_samples(tmp_path / "first")}
    np.testing.assert_array_equal(found["opposite.wav"], parts_of(calls / "opposite.wav")[:, 0])
    unused = report.summary.total.unused
    assert unused["cancelled"]["2 channels"].example == "opposite.wav"
    assert unused["mixed_channels"]["2 channels"].count == 2

    report = run(shard_job(max_seconds=4.0, sound=REJECT), calls, tmp_path / "reject")
    (row,) = rejects(tmp_path / "reject")
    assert (row["source"], row["start"], row["duration"], row["reason"]) == ("opposite.wav", 0.0, 3.0, "cancelled")
    total = report.summary.total
    assert total.seconds + sum(total.reject_seconds.values()) == pytest.approx(total.input_seconds) == 9.0


def test_only_cancelled_segments_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    left = 0.3 * np.sin(np.arange(12 * RATE) / 20).astype(np.float32)
    right = left.copy()
    right[5 * RATE : 7 * RATE] *= -1
    soundfile.write(tmp_path / "in" / "a.wav", np.stack([left, right], axis=1), RATE)
    run(shard_job(segmenter="fixed", max_seconds=4.0, sound=REJECT), tmp_path / "in", tmp_path / "out")
    assert [(row["start"], row["duration"]) for row in rejects(tmp_path / "out")] == [(4.0, 4.0)]
    assert [s.start for s, _ in all_samples(tmp_path / "out")] == [0.0, 8.0]


def test_channel_of_a_manifest_goes_before_the_option(calls: Path, tmp_path: Path) -> None:
    rows = [(0.0, 2.5, 1, "one"), (0.0, 2.5, 0, "zero"), (0.5, 3.0, 1, "later")]
    sources = [
        Source("in", str(calls), "call.wav", "audio", start=start, end=end, channel=channel, text=text)
        for start, end, channel, text in rows
    ]
    unit = Unit(0, tuple(sources))
    output = UnitOutput(unit, tmp_path)
    settings = ShardOptions(sound=EACH)
    with ShardWriter(tmp_path / "a.tar", "flac") as writer:
        for recording in recordings_of(unit, output, settings.sound):
            RecordingCutter(settings, recording, writer, output, UnusedSound(output, settings.sound)).run()
    both = parts_of(calls / "call.wav")
    found = {sample.text: (sample, audio) for sample, audio in read_samples(tmp_path / "a.tar")}
    for start, end, channel, text in rows:
        sample, audio = found[text]
        assert sample.extra == {"channel": channel}
        np.testing.assert_array_equal(audio, both[round(start * RATE) : round(end * RATE), channel])
    clips = {clip.span.text: samples for clip, samples in decoded_clips(unit, UnitOutput(unit, tmp_path), RATE, EACH)}
    for label, (_, audio) in found.items():
        np.testing.assert_array_equal(clips[label], audio)


def test_lacking_channel_is_rejected_with_the_number_of_channels(calls: Path, tmp_path: Path) -> None:
    run(shard_job(max_seconds=4.0, sound=SoundOptions(1)), calls, tmp_path / "out")
    (row,) = rejects(tmp_path / "out")
    assert (row["source"], row["reason"]) == ("mono.wav", "unsupported")
    assert "only channel 0" in str(row["message"])


def test_equal_channels_are_duplicates_and_different_ones_are_not(calls: Path, tmp_path: Path) -> None:
    mono = parts_of(calls / "mono.wav")[:, 0]
    soundfile.write(calls / "twice.wav", np.stack([mono, mono], axis=1), RATE, "PCM_16")
    run(shard_job(max_seconds=4.0, sound=EACH, deduplicate=True), calls, tmp_path / "out")
    assert [(row["source"], row["reason"]) for row in rejects(tmp_path / "out")] == [("twice.wav", "duplicate")] * 2
    assert len(all_samples(tmp_path / "out")) == 5


def test_scaled_integers_are_rejected_with_their_duration_or_divided(calls: Path, tmp_path: Path) -> None:
    mono = parts_of(calls / "mono.wav")[:, 0]
    soundfile.write(calls / "scaled.wav", mono * 32_768, RATE, "FLOAT")
    soundfile.write(calls / "loud.wav", mono * 4, RATE, "FLOAT")
    report = run(shard_job(max_seconds=4.0), calls, tmp_path / "refuse")
    (row,) = rejects(tmp_path / "refuse")
    assert (row["source"], row["duration"], row["reason"]) == ("scaled.wav", 3.0, "clipped")
    assert report.summary.total.input_seconds == 15.0
    assert report.summary.total.unused["loud_samples"][".wav"].example == "loud.wav"
    run(shard_job(max_seconds=4.0, sound=SoundOptions(scale="auto")), calls, tmp_path / "auto")
    found = {s.source: audio for s, audio in all_samples(tmp_path / "auto")}
    np.testing.assert_array_equal(found["scaled.wav"], mono)


@pytest.mark.parametrize("sound", [EACH, REJECT, SoundOptions(1)], ids=["each", "reject", "1"])
def test_token_table_follows_the_options_and_encodes_again(
    sound: SoundOptions, calls: Path, tmp_path: Path, codec_folder: Path
) -> None:
    job = TokenizeJob(TokenizeOptions(str(codec_folder), device="cpu", max_seconds=2.0, sound=sound))
    report = run(job, calls, tmp_path / "out")
    codec = Codec.from_pretrained(codec_folder, device="cpu")
    rows = [row for part in sorted((tmp_path / "out").glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    if sound == EACH:
        assert len({row["id"] for row in rows}) == len(rows) == 10
        own = codec.encode(read_audio(calls / "call.wav", codec.sample_rate, sound=SoundOptions(1)), codec.sample_rate)
        channel = [row for row in rows if row["source"] == "call.wav" and json.loads(row["extra"]) == {"channel": 1}]
        assert [code for row in channel for code in row["codes"]] == own.reshape(-1).tolist()
    else:
        (row,) = rejects(tmp_path / "out")
        expected = {REJECT: ("opposite.wav", "cancelled", 3.0)}.get(sound, ("mono.wav", "unsupported", None))
        assert (row["source"], row["reason"], row["duration"]) == expected
    verify_output(tmp_path / "out")
    again = reencode(tmp_path / "out", codec, 1000)
    assert again.rows == len(rows) and again.equal_frames == again.frames
    assert report.summary.total.rows == len(rows)


def test_evaluation_follows_the_options(calls: Path, codec_folder: Path, tmp_path: Path) -> None:
    _, rows = evaluated(codec_folder, calls, tmp_path / "each", max_seconds=1.0, sound=EACH)
    assert len(rows) == 5
    report, rows = evaluated(codec_folder, calls, tmp_path / "reject", max_seconds=1.0, sound=REJECT)
    assert [row["reason"] for row in rejects(tmp_path / "reject")] == ["cancelled"]
    assert report.summary.total.unused["mixed_channels"]["2 channels"].count == 2


def test_bytes_behind_audio_count_once_for_all_channels(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.flac"
    path.parent.mkdir()
    soundfile.write(path, np.stack([tone(3, 16_000), tone(3, 16_000) / 2], axis=1), 16_000)
    path.write_bytes(path.read_bytes() + bytes([88]) * 5000)
    report = run(shard_job(sound=SoundOptions("each")), tmp_path / "in", tmp_path / "out")
    assert report.summary.total.rows == 2
    assert report.summary.total.unused["trailing_bytes"][".flac"].count == 5000
