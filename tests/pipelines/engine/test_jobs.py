"""Output of jobs: the same bytes for any engine and number of workers, and rejects for unusable inputs."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import tarfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webdataset

from codectok import AudioError, Codec, CodectokError, InputError
from codectok.audio.files import audio_info, read_audio, stream_audio
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.tokenize.options import TokenizeOptions
from codectok.shards import read_manifest
from codectok.storage import LocalStorage
from codectok.tokens.table import read_rows
from tests.helpers.jobs import LOCAL, digests, rejects, run, shard_job, tokenize_job

# The audio before the damage of truncated.flac is too short for a segment.
REJECTED = {"decode_error": 1, "empty": 2, "not_finite": 1, "too_short": 2, "unreadable": 1}


@pytest.fixture(scope="module")
def shards(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "out"
    run(shard_job(), corpus, folder)
    return folder


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_output_is_independent_of_engine_and_workers(
    workers: int, corpus: Path, shards: Path, codec_folder: Path, tmp_path: Path
) -> None:
    on_ray = RunOptions(engine="ray", workers=workers, max_rejects=1.0)
    run(shard_job(), corpus, tmp_path / "shards", on_ray)
    assert digests(tmp_path / "shards") == digests(shards)
    run(tokenize_job(codec_folder), shards, tmp_path / "a", LOCAL)
    run(tokenize_job(codec_folder), shards, tmp_path / "b", on_ray)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert len(list((tmp_path / "a").glob("*.parquet"))) > 1


def test_shards_hold_all_audio_not_rejected(corpus: Path, shards: Path) -> None:
    manifest = read_manifest(LocalStorage(shards))
    pieces: dict[str, list[tuple[int, np.ndarray]]] = {}
    keys = []
    for entry in manifest.shards:
        path = shards / entry.name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
        for sample in webdataset.WebDataset(str(path), shardshuffle=False):
            described = json.loads(sample["json"])
            audio, _ = soundfile.read(io.BytesIO(sample["flac"]), dtype="float32")
            assert len(audio) == described["n_samples"]
            assert 2 <= described["duration"] <= 10
            pieces.setdefault(described["source"], []).append((round(described["start"] * 24_000), audio))
            keys.append(sample["__key__"])
    assert len(set(keys)) == len(keys) == sum(entry.samples for entry in manifest.shards)
    assert set(pieces) == {
        "a.wav", "b.flac", "e.opus", "stereo.wav", "sub folder/c ü.ogg", "sub folder/d.mp3",
    }  # fmt: skip
    for source, found in pieces.items():
        expected = read_audio(corpus / source, 24_000)
        joined = np.concatenate([audio for _, audio in sorted(found, key=lambda piece: piece[0])])
        np.testing.assert_allclose(joined, np.clip(expected, -1, 1), atol=1 / 32_768)


def test_unusable_files_are_rejected_by_reason(corpus: Path, tmp_path: Path) -> None:
    report = run(shard_job(), corpus, tmp_path / "out")
    assert report.summary.total.rejects == REJECTED
    assert report.summary.total.ignored == 1
    rows = rejects(tmp_path / "out")
    assert {row["source"]: row["reason"] for row in rows} == {
        "empty.wav": "empty",
        "nan.wav": "not_finite",
        "no-samples.wav": "empty",
        "short.wav": "too_short",
        "text.wav": "unreadable",
        "truncated.flac": "decode_error",
    }
    assert all(row["message"] for row in rows)


def test_rows_equal_encoding_each_file_alone(corpus: Path, codec_folder: Path, tmp_path: Path) -> None:
    report = run(tokenize_job(codec_folder), corpus, tmp_path / "out")
    codec = Codec.from_pretrained(codec_folder, device="cpu")
    rows = list(read_rows(tmp_path / "out"))
    assert len(rows) == report.summary.total.rows == 8
    for row in rows:
        blocks = stream_audio(corpus / row.source, 24_000)
        with pytest.raises(AudioError) if row.source == "truncated.flac" else nullcontext():
            samples = np.zeros(0, np.float32)
            for block in blocks:
                samples = np.concatenate([samples, block])
        np.testing.assert_array_equal(row.codes, codec.encode(samples, 24_000).numpy())
        assert row.n_samples == len(samples)
        assert len(row.codes) == max(1, row.n_samples // codec.frame_size)
    assert report.summary.total.rejects == {key: count for key, count in REJECTED.items() if key != "too_short"}


def test_text_beyond_the_end_is_rejected(corpus: Path, codec_folder: Path, tmp_path: Path) -> None:
    seconds = audio_info(corpus / "a.wav").seconds
    times = {"words": (0.0, seconds + 5), None: (0.5, seconds + 5), "rounded": (1.0, seconds + 0.05)}
    rows = [{"path": str(corpus / "a.wav"), "start": a, "end": b, "text": text} for text, (a, b) in times.items()]
    rows.append({"path": str(corpus / "a.wav"), "start": seconds + 1})
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(tokenize_job(codec_folder), tmp_path / "list.jsonl", tmp_path / "out")
    found = {row.text: row.duration for row in read_rows(tmp_path / "out")}
    assert found == {None: pytest.approx(seconds - 0.5), "rounded": pytest.approx(seconds - 1.0)}
    assert [row["reason"] for row in rejects(tmp_path / "out")] == ["unreadable", "unreadable"]


def test_tars_become_rows_with_sample_metadata(shards: Path, codec_folder: Path, tmp_path: Path) -> None:
    run(tokenize_job(codec_folder), shards, tmp_path / "out")
    rows = list(read_rows(tmp_path / "out"))
    assert len(rows) == sum(entry.samples for entry in read_manifest(LocalStorage(shards)).shards)
    assert {row.dataset for row in rows} == {"speech"}
    assert any(row.start > 0 and row.source == "b.flac" for row in rows)


def test_foreign_and_damaged_tars_are_read(codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "foreign.tar", "w") as tar:
        for name, data in (
            ("x/one.wav", (corpus / "a.wav").read_bytes()),
            ("x/one.json", b'{"anything": 1}'),
            ("x/two.txt", b"no audio here"),
            ("x/three.wav", b"not audio either"),
            ("x/four.wav", (corpus / "stereo.wav").read_bytes()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    whole = (tmp_path / "in" / "foreign.tar").read_bytes()
    (tmp_path / "in" / "damaged.tar").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "text.tar").write_text("no tar" * 1000)
    with tarfile.open(tmp_path / "in" / "foreign.tar") as tar:
        border = tar.getmember("x/two.txt").offset
    (tmp_path / "in" / "border.tar").write_bytes(whole[:border])
    report = run(tokenize_job(codec_folder), tmp_path / "in", tmp_path / "out")
    foreign = [row for row in read_rows(tmp_path / "out") if "foreign" in row.source]
    assert [row.source for row in foreign] == ["foreign.tar/x/one.wav", "foreign.tar/x/four.wav"]
    rows = list(read_rows(tmp_path / "out"))
    assert len({row.id for row in rows}) == len(rows)
    assert report.summary.total.rejects["unsupported"] >= 1
    assert [row.source for row in rows if "border" in row.source] == ["border.tar/x/one.wav"]
    assert report.summary.total.rejects["unreadable"] >= 3  # one tar cut inside a member, one between two, one of text


def test_job_without_output_fails(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.wav").write_text("text")
    for _ in range(2):
        with pytest.raises(CodectokError, match="all inputs were rejected"):
            run(shard_job(), tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("options", [{"min_seconds": 6.0}, {"shard_seconds": 0.0}, {"sample_rate": 24}])
def test_invalid_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        shard_job(**options)


@pytest.mark.usefixtures("ray_session")
def test_workers_check_the_codec(codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    job = tokenize_job(codec_folder)
    Codec.from_config("nano", seed=2).save_pretrained(tmp_path / "other")
    job.settings = TokenizeOptions(str(tmp_path / "other"), device="cpu")
    for name in ("local", "ray"):
        with pytest.raises(CodectokError, match="another codec"):
            run(job, corpus, tmp_path / "out", RunOptions(engine=name, workers=1))
        assert not list((tmp_path / "out").glob("*.parquet"))


def test_non_utf8_names_are_escaped(
    corpus: Path, codec_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in {a,b} ::x"
    folder.mkdir()
    try:
        shutil.copy(corpus / "a.wav", folder / os.fsdecode(b"caf\xe9.wav"))
        shutil.copy(corpus / "text.wav", folder / os.fsdecode(b"t\xe9xt.wav"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    report = run(shard_job(), folder, tmp_path / "shards {a,b} ::x")
    assert (report.summary.total.rows, report.summary.total.rejects) == (1, {"unreadable": 1})
    # A launcher's variables must not make the tar reader leave samples to other ranks.
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    run(tokenize_job(codec_folder), tmp_path / "shards {a,b} ::x", tmp_path / "out")
    run(tokenize_job(codec_folder), folder, tmp_path / "from-files")
    for output in ("out", "from-files"):
        assert [row.source for row in read_rows(tmp_path / output)] == ["caf\\xe9.wav"]


def test_report_shows_rejects_histograms_and_examples(corpus: Path, shards: Path, tmp_path: Path) -> None:
    page = (shards / "_codectok" / "report.html").read_text()
    for words in ("decode_error", "too_short", "Loudness in LUFS", "Bandwidth in kHz", "<td>speech</td>"):
        assert words in page
    assert page.count("<audio") == min(10, sum(entry.samples for entry in read_manifest(LocalStorage(shards)).shards))
    assert "http" not in page  # the page fetches nothing
    encoded = page.partition("base64,")[2].partition('"')[0]
    audio, rate = soundfile.read(io.BytesIO(base64.b64decode(encoded)))
    assert (rate, len(audio) >= 48_000) == (24_000, True)
