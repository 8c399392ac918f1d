"""Tokens of damaged clips: the audio before the damage becomes a row, the rest a reject."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from codectok.audio.files import stream_audio
from codectok.audio.sound import SoundOptions
from codectok.codec import Codec
from codectok.errors import AudioError, VerificationError
from codectok.pipelines.tokenize.job import TokenizeJob
from codectok.pipelines.tokenize.options import TokenizeOptions
from codectok.pipelines.tokenize.reencode import reencode
from codectok.pipelines.verify.output import verify_output
from codectok.storage import open_storage
from codectok.tokens.table import read_rows
from tests.helpers.audio import tone
from tests.helpers.command_line import assert_refused, codectok
from tests.helpers.evaluation import evaluated
from tests.helpers.jobs import rejects, run, tokenize_job
from tests.helpers.records import update_record
from tests.helpers.tars import write_tar

RATE, SECONDS = 24_000, 6.0


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "a.mp3"
    path.parent.mkdir()
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(SECONDS, RATE), RATE, format="MP3")
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    return path


def good(path: Path) -> np.ndarray:
    blocks = []
    with pytest.raises(AudioError):
        for block in stream_audio(path, RATE):
            blocks.append(block)
    return np.concatenate(blocks)


def test_audio_before_damage_becomes_a_row(damaged: Path, codec_folder: Path, tmp_path: Path) -> None:
    soundfile.write(damaged.with_name("b.wav"), tone(2, RATE), RATE)
    report = run(tokenize_job(codec_folder), damaged.parent, tmp_path / "out")
    rows = {row.source: row for row in read_rows(tmp_path / "out")}
    codec, samples = Codec.from_pretrained(codec_folder, device="cpu"), good(damaged)
    np.testing.assert_array_equal(rows["a.mp3"].codes, codec.encode(samples, RATE).numpy())
    assert rows["a.mp3"].n_samples == len(samples) and rows["b.wav"].duration == 2
    (row,) = rejects(tmp_path / "out")
    assert (row["reason"], row["start"]) == ("decode_error", pytest.approx(len(samples) / RATE))
    assert row["duration"] == pytest.approx(SECONDS - len(samples) / RATE)
    total = report.summary.total
    assert (total.inputs, total.rows) == (2, 2)
    assert total.seconds + sum(total.reject_seconds.values()) == pytest.approx(total.input_seconds) == SECONDS + 2
    assert reencode(tmp_path / "out", codec, 2).equal_frames == sum(len(row.codes) for row in rows.values())


@pytest.mark.parametrize("end", [None, 5.0])
def test_damaged_clip_with_text_is_rejected_whole(
    end: float | None, damaged: Path, codec_folder: Path, tmp_path: Path
) -> None:
    soundfile.write(damaged.with_name("b.wav"), tone(2, RATE), RATE)
    lines: list[dict[str, Any]] = [
        {"path": "in/a.mp3", "text": "words", "start": 0.5 if end else 0.0, "end": end},
        {"path": "in/b.wav"},
    ]
    lines = [{key: value for key, value in line.items() if value is not None} for line in lines]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run(tokenize_job(codec_folder), tmp_path / "m.jsonl", tmp_path / "out")
    assert [row.source.rpartition("/")[2] for row in read_rows(tmp_path / "out")] == ["b.wav"]
    (row,) = rejects(tmp_path / "out")
    assert row["start"] == (0.5 if end else 0.0)
    assert row["duration"] == pytest.approx(4.5 if end else SECONDS)


def test_verify_passes_rows_of_damaged_clips(damaged: Path, codec_folder: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "t.tar", [("s.mp3", damaged.read_bytes()), ("s.jpg", b"picture")])
    stereo = np.stack([tone(SECONDS, RATE), tone(SECONDS, RATE) / 2], axis=1)
    buffer = io.BytesIO()
    soundfile.write(buffer, stereo, RATE, format="WAV")
    (tmp_path / "in" / "stereo.wav").write_bytes(buffer.getvalue()[:400_000])
    several: list[dict[str, Any]] = [{}, {"max_seconds": 2.0}, {"sound": SoundOptions("each")}]
    for number, options in enumerate(several):
        output = tmp_path / f"out{number}"
        run(TokenizeJob(TokenizeOptions(str(codec_folder), device="cpu", **options)), tmp_path / "in", output)
        found = rejects(output)
        assert len(found) == (4 if "sound" in options else 3)
        assert {row["stage"] for row in found} == {"rest"}
        verify_output(open_storage(output))


def test_verify_finds_rejected_rest_without_its_row(damaged: Path, codec_folder: Path, tmp_path: Path) -> None:
    soundfile.write(damaged.with_name("b.wav"), tone(2, RATE), RATE)
    table = tmp_path / "out"
    run(tokenize_job(codec_folder), damaged.parent, table)
    (part,) = table.glob("*.parquet")
    rows = pq.read_table(part)
    pq.write_table(rows.filter([name != "a.mp3" for name in rows["source"].to_pylist()]), part)
    update_record(table, part)
    n_codes = sum(row.codes.size for row in read_rows(table))
    record = json.loads((table / "_codectok" / "records" / "000000.json").read_text())
    (counts,) = record["tallies"].values()
    counts.update(rows=1, seconds=2.0, codes=n_codes)
    (table / "_codectok" / "records" / "000000.json").write_text(json.dumps(record))
    with pytest.raises(VerificationError, match=r"2 clips were read, but 1|a\.mp3 of the unit 0"):
        verify_output(open_storage(table))


def test_evaluate_measures_audio_before_damage(damaged: Path, codec_folder: Path, tmp_path: Path) -> None:
    _, (clip,) = evaluated(codec_folder, damaged, tmp_path / "out")
    n_samples = len(good(damaged))
    assert clip["seconds"] == pytest.approx(n_samples / RATE)
    (row,) = rejects(tmp_path / "out")
    assert row["reason"] == "decode_error" and row["start"] == pytest.approx(n_samples / RATE)


def test_encode_refuses_a_damaged_file(damaged: Path, codec_folder: Path, tmp_path: Path) -> None:
    result = codectok("encode", damaged, tmp_path / "a.npz", "--codec", codec_folder, "--device", "cpu")
    assert_refused(result, "a.mp3", "cut off")
    assert not (tmp_path / "a.npz").exists()
