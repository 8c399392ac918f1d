"""Cutting by speech: detected spans, and an account of every second."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.functional import lfilter

from codectok import CodectokError
from codectok.audio.analysis.speech import SPEECH_RATE, speech_in
from tests.helpers.audio import tone
from tests.helpers.jobs import rejects, run, shard_job
from tests.helpers.tars import all_samples

pytest.importorskip("silero_vad")
VOWELS = [(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480)]
PAUSE, VOICE = 3.0, 6.0


def resonance(samples: np.ndarray, frequency: float) -> np.ndarray:
    radius = np.exp(-np.pi * 90 / SPEECH_RATE)
    a = torch.tensor([1, -2 * radius * np.cos(2 * np.pi * frequency / SPEECH_RATE), radius**2])
    b = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    return lfilter(torch.from_numpy(samples), a, b, clamp=False).numpy()


def voice(seconds: float, seed: int) -> np.ndarray:
    """Synthesize a sequence of vowels from pulses and three resonances."""
    generator = np.random.default_rng(seed)
    t = np.arange(round(seconds * SPEECH_RATE)) / SPEECH_RATE
    phase = np.cumsum(120 + 15 * np.sin(2 * np.pi * 0.7 * t)) / SPEECH_RATE
    pulses = np.diff(np.floor(phase), prepend=0.0) + 0.005 * generator.standard_normal(len(t))
    parts = []
    for part in np.array_split(pulses, round(seconds / 0.22)):
        for frequency in VOWELS[generator.integers(len(VOWELS))]:
            part = resonance(part, frequency)
        parts.append(part / np.abs(part).max() * np.hanning(len(part)) ** 0.3)
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def recording() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(round((2 * VOICE + 3 * PAUSE) * SPEECH_RATE)) * 1e-3
    for number, start in enumerate((PAUSE, 2 * PAUSE + VOICE)):
        sound = 0.4 * voice(VOICE, number)
        first = round(start * SPEECH_RATE)
        noise[first : first + len(sound)] += sound
    return noise.astype(np.float32)


def is_near_the_voice(start: float, end: float) -> bool:
    begins = (PAUSE, 2 * PAUSE + VOICE)
    return any(begin - 0.4 <= start and end <= begin + VOICE + 0.4 for begin in begins)


def test_speech_in_finds_only_voice(recording: np.ndarray) -> None:
    found, seconds = speech_in([recording])
    assert seconds == pytest.approx(2 * VOICE + 3 * PAUSE)
    assert found
    assert all(is_near_the_voice(start, end) for start, end in found)
    assert speech_in(np.array_split(recording, 37)) == (found, seconds)
    assert speech_in([np.zeros(5000, np.float32)]) == ([], 5000 / SPEECH_RATE)


def test_speech_is_kept_and_rest_is_rejected(
    recording: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "talk.wav", recording, SPEECH_RATE)
    report = run(shard_job(segmenter="vad", min_seconds=0.2), tmp_path, tmp_path / "out")
    found = all_samples(tmp_path / "out")
    assert found
    assert all(is_near_the_voice(sample.start, sample.start + sample.duration) for sample, _ in found)
    total = report.summary.total
    assert total.seconds + sum(total.reject_seconds.values()) == pytest.approx(2 * VOICE + 3 * PAUSE, abs=0.01)
    assert total.input_seconds == pytest.approx(2 * VOICE + 3 * PAUSE, abs=0.01)
    assert total.inputs == 1
    assert {row["message"] for row in rejects(tmp_path / "out") if row["reason"] == "filtered"} == {
        "No speech was detected."
    }

    # Spans with text are not searched for speech.
    (tmp_path / "list.jsonl").write_text(json.dumps({"path": "talk.wav", "start": 0.5, "end": 2.5, "text": "hm"}))
    run(shard_job(segmenter="vad"), tmp_path / "list.jsonl", tmp_path / "text")
    assert [sample.duration for sample, _ in all_samples(tmp_path / "text")] == [2.0]

    # Long speech is cut, and short neighbours are joined.
    def detect_two(blocks: Iterable[np.ndarray]) -> tuple[list[tuple[float, float]], float]:
        return [(1.0, 2.5), (3.0, 19.0)], sum(len(block) for block in blocks) / SPEECH_RATE

    monkeypatch.setattr("codectok.pipelines.shard.cutter.speech_in", detect_two)
    run(shard_job(segmenter="vad"), tmp_path / "talk.wav", tmp_path / "long")
    kept = [sample for sample, _ in all_samples(tmp_path / "long")]
    assert sum(sample.duration for sample in kept) == pytest.approx(16.0, abs=0.01)
    assert max(sample.duration for sample in kept) <= 10
    assert rejects(tmp_path / "long")[-1]["reason"] == "too_short"


def test_blocks_shorter_than_window_are_joined(recording: np.ndarray) -> None:
    borders = [0, 100, 500, 700, 5000]
    assert speech_in(np.split(recording, borders)) == speech_in([recording])


def test_recording_shorter_than_window_is_rejected(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.02, 44_100), 44_100)
    with pytest.raises(CodectokError, match="1 filtered"):
        run(shard_job(segmenter="vad"), tmp_path / "a.wav", tmp_path / "out")


def test_pause_inside_segment_is_not_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "talk.wav", tone(20, SPEECH_RATE), SPEECH_RATE)
    rows = [
        {"path": "talk.wav", "start": 0.0, "end": 10.0, "id": "u1", "speaker": "ann"},
        {"path": "talk.wav", "start": 8.0, "end": 25.0, "id": "u2"},
    ]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def detect_three(blocks: Iterable[np.ndarray]) -> tuple[list[tuple[float, float]], float]:
        return [(1.0, 2.0), (2.75, 3.5), (6.0, 9.0)], sum(len(block) for block in blocks) / SPEECH_RATE

    monkeypatch.setattr("codectok.pipelines.shard.cutter.speech_in", detect_three)
    report = run(shard_job(segmenter="vad"), tmp_path / "list.jsonl", tmp_path / "out")
    kept = [(sample.id, sample.start, sample.duration) for sample, _ in all_samples(tmp_path / "out")]
    assert kept == [("u1", 1.0, 2.5), ("u1", 6.0, 3.0), ("u2", 9.0, 2.5), ("u2", 14.0, 3.0)]
    found = [(row["start"], row["duration"], row["reason"]) for row in rejects(tmp_path / "out")]
    assert sorted(found) == [
        (0.0, 1.0, "filtered"), (3.5, 2.5, "filtered"), (8.0, 1.0, "filtered"), (9.0, 1.0, "filtered"),
        (11.5, 2.5, "filtered"), (17.0, 3.0, "filtered"), (20.0, 0.0, "unreadable"),
    ]  # fmt: skip
    total = report.summary.total
    assert total.inputs == 2
    assert total.seconds + sum(total.reject_seconds.values()) == pytest.approx(10 + 12) == total.input_seconds


def test_damaged_recordings_are_rejected(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(CodectokError, match="8 filtered, 2 empty, 1 decode_error, 1 not_finite, 1 unreadable"):
        run(shard_job(segmenter="vad"), corpus, tmp_path / "out")
