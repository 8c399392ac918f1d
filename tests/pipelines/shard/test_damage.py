"""Damaged recordings: all audio before the damage is kept, and the rest is rejected with start and duration."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from codectok.audio.files import read_audio, stream_audio
from codectok.errors import AudioError, CodectokError
from codectok.pipelines.shard import cutter
from tests.helpers.audio import tone
from tests.helpers.jobs import rejects, run, shard_job
from tests.helpers.tars import all_samples

RATE, SECONDS = 24_000, 20.0


def _cut_flac() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(SECONDS, RATE), RATE, format="FLAC")
    return buffer.getvalue()[: len(buffer.getvalue()) * 2 // 3]


def _mp3() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(SECONDS, RATE), RATE, format="MP3")
    return buffer.getvalue()


def _cut_mp3() -> bytes:
    return _mp3()[: len(_mp3()) * 2 // 3]


def _overwritten_mp3() -> bytes:
    data = bytearray(_mp3())
    data[len(data) * 2 // 3 : len(data) * 2 // 3 + 700] = bytes(700)
    return bytes(data)


DAMAGED: dict[str, Callable[[], bytes]] = {"a.flac": _cut_flac, "b.mp3": _cut_mp3, "c.mp3": _overwritten_mp3}


@pytest.fixture(params=DAMAGED)
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "in" / request.param
    path.parent.mkdir()
    path.write_bytes(DAMAGED[request.param]())
    return path


def good(path: Path) -> np.ndarray:
    """Samples before the damage."""
    blocks = []
    with pytest.raises(AudioError):
        for block in stream_audio(path, RATE):
            blocks.append(block)
    return np.concatenate(blocks)


def intervals(output: Path) -> list[tuple[float, float, str]]:
    """Start, end and fate of everything that was kept or rejected, in order."""
    kept = [(sample.start, sample.start + sample.duration, "kept") for sample, _ in all_samples(output)]
    rows: list[dict[str, Any]] = rejects(output)
    lost = [(row["start"], row["start"] + row["duration"], row["reason"]) for row in rows]
    return sorted(kept + lost)


def check_cover(found: list[tuple[float, float, str]], start: float, end: float) -> None:
    """Check that intervals follow one another from `start` to `end`."""
    assert found[0][0] == pytest.approx(start, abs=1e-4)
    for (_, before, _), (after, _, _) in itertools.pairwise(found):
        assert after == pytest.approx(before, abs=1e-4)
    assert found[-1][1] == pytest.approx(end, abs=0.06)


@pytest.mark.parametrize("segmenter", ["quiet", "fixed"])
def test_all_audio_before_damage_is_kept(segmenter: str, damaged: Path, tmp_path: Path) -> None:
    report = run(shard_job(segmenter=segmenter, max_seconds=8.0), damaged.parent, tmp_path / "out")
    expected = good(damaged)
    assert 10 < len(expected) / RATE < 15
    samples = np.concatenate([audio for _, audio in all_samples(tmp_path / "out")])
    np.testing.assert_allclose(samples, expected, atol=1e-4)
    (row,) = rejects(tmp_path / "out")
    assert row["reason"] == "decode_error" and row["start"] == pytest.approx(len(expected) / RATE)
    check_cover(intervals(tmp_path / "out"), 0.0, SECONDS)
    total = report.summary.total
    assert total.seconds + sum(total.reject_seconds.values()) == pytest.approx(total.input_seconds)


SPANS: list[dict[str, Any]] = [
    {"start": 1.0, "end": 5.0, "id": "before", "kept": True},
    {"start": 2.0, "end": 6.0, "id": "before, with text", "text": "words", "kept": True},
    {"start": 6.0, "end": 18.0, "id": "across", "kept": True},
    {"start": 8.0, "end": 17.0, "id": "across, with text", "text": "words", "kept": False},
    {"start": 16.0, "end": 19.0, "id": "behind", "kept": False},
    {"start": 16.5, "end": 19.5, "id": "behind, with text", "text": "words", "kept": False},
]


def test_spans_are_kept_up_to_damage_and_texts_whole(damaged: Path, tmp_path: Path) -> None:
    each = []
    for number, span in enumerate(SPANS):
        manifest, output = tmp_path / f"{number}.jsonl", tmp_path / f"out-{number}"
        manifest.write_text(json.dumps({"path": str(damaged), **span}) + "\n")
        with suppress(CodectokError):  # everything is rejected
            run(shard_job(), manifest, output)
        found = intervals(output)
        check_cover(found, span["start"], span["end"])
        assert ("kept" in {fate for _, _, fate in found}) == span["kept"]
        assert len(found) == 1 or "text" not in span
        each += found
    # All together, from one pass over the file.
    (tmp_path / "all.jsonl").write_text("".join(json.dumps({"path": str(damaged), **span}) + "\n" for span in SPANS))
    run(shard_job(), tmp_path / "all.jsonl", tmp_path / "all")
    assert intervals(tmp_path / "all") == sorted(each)


def test_pieces_of_a_span_behind_damage_are_one_reject(damaged: Path, tmp_path: Path) -> None:
    cuts = [{"start": float(n), "end": n + 0.9, "text": f"word {n}"} for n in range(20)]
    row = {"path": str(damaged), "start": 0.0, "end": 20.0, "text": "all words", "supervisions": cuts}
    (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n")
    run(shard_job(max_seconds=4.0), tmp_path / "m.jsonl", tmp_path / "out")
    assert len(rejects(tmp_path / "out")) == 1
    check_cover(intervals(tmp_path / "out"), 0.0, 20.0)


def test_speech_before_damage_is_kept(damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def detect(blocks: Iterable[np.ndarray]) -> tuple[list[tuple[float, float]], float]:
        seconds = sum(len(block) for block in blocks) / 16_000
        return [(1.0, 4.0), (6.0, seconds)], seconds

    monkeypatch.setattr(cutter, "speech_in", detect)
    monkeypatch.setattr("codectok.audio.analysis.speech.check_installed", lambda: None)
    run(shard_job(segmenter="vad"), damaged.parent, tmp_path / "out")
    check_cover(intervals(tmp_path / "out"), 0.0, SECONDS)
    fates = [fate for _, _, fate in intervals(tmp_path / "out")]
    assert fates == ["filtered", "kept", "filtered", "kept", "decode_error"]


@pytest.mark.parametrize("scale", [1e10, 1e19, 1e25, 3e38])
def test_samples_beyond_any_scale_cost_no_neighbours(scale: float, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", tone(5, RATE) / 2 * scale, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "in" / "b.wav", tone(5, RATE), RATE)
    run(shard_job(), tmp_path / "in", tmp_path / "out")
    assert "b.wav" in {sample.source for sample, _ in all_samples(tmp_path / "out")}


def test_damaged_recordings_are_not_duplicates(damaged: Path, tmp_path: Path) -> None:
    (damaged.parent / f"copy{damaged.suffix}").write_bytes(damaged.read_bytes())
    run(shard_job(deduplicate=True), damaged.parent, tmp_path / "out")
    assert {row["reason"] for row in rejects(tmp_path / "out")} == {"decode_error"}
    assert len(good(damaged)) * 2 == sum(len(audio) for _, audio in all_samples(tmp_path / "out"))


def test_read_audio_of_damaged_file_is_an_error(damaged: Path) -> None:
    with pytest.raises(AudioError) as caught:
        read_audio(damaged, RATE)
    assert caught.value.seconds == pytest.approx(SECONDS - len(good(damaged)) / RATE, abs=0.06)
