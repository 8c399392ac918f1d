"""`evaluate`: measures equal those computed by hand, and every clip is measured or listed."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from codectok import Codec, CodectokError, InputError
from codectok.audio.files import read_audio
from codectok.evaluation.corpus import evaluate
from codectok.evaluation.metrics.signal import log_mel_error, si_sdr, stft_distance
from codectok.evaluation.metrics.speech_quality import installed_measures
from codectok.evaluation.reconstruction import ClipMeasures, EvaluationReport
from codectok.shards import Sample, ShardWriter
from tests.helpers.audio import tone
from tests.helpers.codecs import VARIANTS, make_codec
from tests.helpers.command_line import assert_refused, codectok, one_line
from tests.helpers.tars import write_tar

SECONDS = {"a.wav": 0.7, "b.flac": 1.2, "c.wav": 0.001, "d.wav": 0.05}


@pytest.fixture(scope="module")
def evaluation_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("testset") / "clips"
    folder.mkdir()
    for number, (name, seconds) in enumerate(SECONDS.items()):
        soundfile.write(folder / name, tone(seconds, 16_000, 200 + 70 * number, seed=number), 16_000)
    return folder


def measured(
    codec: Codec, *sources: Path, limit: int | None = None, max_seconds: float | None = None
) -> tuple[EvaluationReport, list[ClipMeasures]]:
    clips: list[ClipMeasures] = []
    report = evaluate(codec, [str(source) for source in sources], limit, max_seconds, on_clip=clips.append)
    return report, clips


@pytest.mark.parametrize("variant", ["folded", "grouped-residual"])
def test_measures_equal_those_computed_by_hand(variant: str, evaluation_clips: Path) -> None:
    codec = make_codec(VARIANTS[variant])
    report, clips = measured(codec, evaluation_clips)
    assert [clip.source for clip in clips] == list(SECONDS)
    counts: list[Counter[int]] = [Counter() for _ in range(codec.n_codebooks)]
    values: dict[str, list[float]] = {}
    for clip in clips:
        samples = read_audio(evaluation_clips / clip.source, codec.sample_rate)
        original = torch.from_numpy(samples)
        codes = codec.encode(original, codec.sample_rate)
        for of_codebook, column in zip(counts, codes.T.tolist(), strict=True):
            of_codebook.update(column)
        # The reference compares with one sample between; here `left_pad` is taken off.
        decoded = codec.decode(codes)[codec.config.left_pad :]
        n = min(len(decoded), len(samples))
        wanted = {
            "mel_l1": log_mel_error(codec.log_mel, original[:n], decoded[:n]),
            "stft": stft_distance(original[:n], decoded[:n]),
            "si_sdr": si_sdr(original[:n], decoded[:n]),
        }
        for name, measure in installed_measures().items():
            wanted[name] = measure(samples[:n], decoded[:n].numpy(), codec.sample_rate)
        assert clip.measures == wanted
        assert (clip.frames, clip.seconds) == (len(codes), len(samples) / codec.sample_rate)
        for name, value in wanted.items():
            values.setdefault(name, []).extend([] if value is None else [value])
    means = {name: float(np.mean(found)) for name, found in values.items()}
    assert {name: mean.mean for name, mean in report.means.items()} == pytest.approx(means)
    assert {name: mean.clips for name, mean in report.means.items()} == {n: len(found) for n, found in values.items()}
    assert (report.clips, report.frames) == (len(SECONDS), sum(clip.frames for clip in clips))
    for use, of_codebook in zip(report.codebooks, counts, strict=True):
        assert {code: count for code, count in enumerate(use.counts) if count} == of_codebook
        shares = np.array(list(of_codebook.values())) / of_codebook.total()
        assert use.used_share == len(of_codebook) / codec.codebook_size
        assert use.entropy == pytest.approx(-(shares * np.log2(shares)).sum())
        assert use.perplexity == pytest.approx(2**use.entropy)
    bits = codec.n_codebooks * math.log2(codec.codebook_size)
    assert report.bits_per_second == pytest.approx(codec.sample_rate / codec.frame_size * bits)
    assert report.entropy_bits_per_second == pytest.approx(
        codec.frame_rate * sum(use.entropy for use in report.codebooks)
    )
    assert report.codec.codec_fingerprint == codec.fingerprint
    assert measured(codec, evaluation_clips) == (report, clips)


def test_folder_manifest_and_tar_give_equal_measures(evaluation_clips: Path, tmp_path: Path) -> None:
    codec = make_codec(VARIANTS["one-codebook"])
    _, files = measured(codec, evaluation_clips)
    lines = [{"audio_filepath": str(evaluation_clips / name), "text": "words"} for name in SECONDS]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with ShardWriter(tmp_path / "shard-000000.tar", "wav") as writer:
        for name in SECONDS:
            samples, rate = soundfile.read(evaluation_clips / name, dtype="float32")
            seconds = len(samples) / rate
            described = Sample(
                source=name, start=2.0, duration=seconds, sample_rate=rate, n_samples=len(samples), dataset="d", id=name
            )
            writer.write(Path(name).stem, samples, described)
    for source in (tmp_path / "set.jsonl", tmp_path / "shard-000000.tar"):
        _, clips = measured(codec, source)
        assert [clip.measures for clip in clips] == [clip.measures for clip in files]
    assert {clip.start for clip in clips} == {2.0}


def test_unusable_clips_are_listed(corpus: Path, tmp_path: Path) -> None:
    codec = make_codec(VARIANTS["one-codebook"])
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("short.wav", "text.wav", "empty.wav", "nan.wav", "no-samples.wav", "truncated.flac", "notes.txt"):
        shutil.copy(corpus / name, broken)
    report, clips = measured(codec, broken)
    assert [clip.source for clip in clips] == ["short.wav", "truncated.flac"]
    assert clips[1].seconds == next(clip.start for clip in report.unused if clip.source == "truncated.flac")
    assert {clip.source: clip.reason for clip in report.unused} == {
        "text.wav": "unreadable",
        "empty.wav": "empty",
        "nan.wav": "not_finite",
        "no-samples.wav": "empty",
        "truncated.flac": "decode_error",
    }
    assert report.ignored == 1
    (broken / "short.wav").unlink()
    (broken / "truncated.flac").unlink()
    with pytest.raises(CodectokError, match=r"4 clips .*empty\.wav"):
        evaluate(codec, [str(broken)])


def test_unusable_tar_sample_has_start_of_its_recording(evaluation_clips: Path, tmp_path: Path) -> None:
    described = Sample(source="a.wav", start=2.0, duration=1.0, sample_rate=16_000, n_samples=16_000, dataset="d")
    members = [("broken.wav", b"text"), ("broken.json", described.model_dump_json().encode())]
    write_tar(tmp_path / "broken.tar", members)
    report, _ = measured(make_codec(VARIANTS["one-codebook"]), evaluation_clips, tmp_path / "broken.tar")
    assert [(clip.source, clip.start) for clip in report.unused] == [("a.wav", 2.0)]


def test_limit_and_max_seconds(evaluation_clips: Path, tmp_path: Path) -> None:
    codec = make_codec(VARIANTS["one-codebook"])
    report, clips = measured(codec, evaluation_clips, limit=2, max_seconds=0.5)
    assert [clip.source for clip in clips] == ["a.wav", "b.flac"]
    assert [clip.seconds for clip in clips] == [0.5, 0.5]
    assert (report.clips, report.options.limit) == (2, 2)
    start, rate = soundfile.read(evaluation_clips / "a.wav")
    soundfile.write(tmp_path / "start.wav", start[: rate // 2], rate)
    _, (alone,) = measured(codec, tmp_path / "start.wav")
    # Only the end differs, where resampling depends on the samples that follow.
    assert alone.measures["mel_l1"] == pytest.approx(clips[0].measures["mel_l1"], rel=0.05)
    for options in ({"limit": 0}, {"max_seconds": 0.0}, {"max_seconds": math.nan}):
        with pytest.raises(InputError, match="number"):
            evaluate(codec, [str(evaluation_clips)], **options)


@pytest.fixture(scope="module")
def codec_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codec") / "nano"
    make_codec(VARIANTS["one-codebook"]).save_pretrained(folder)
    return folder


def test_evaluate_command_shows_and_writes_report(evaluation_clips: Path, codec_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_text("text")
    command = ("evaluate", evaluation_clips, tmp_path / "broken.wav", "--codec", codec_folder, "--device", "cpu")
    result = codectok(*command, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    shown = one_line(result.output)
    for part in ("clips │ 4,", "not measured │ 1 clip;", "mel_l1", "stft", "si_sdr", "entropy (bits)", "broken.wav"):
        assert part in shown
    report = EvaluationReport.model_validate_json((tmp_path / "out" / "evaluation.json").read_text())
    rows = [ClipMeasures.model_validate_json(line) for line in (tmp_path / "out" / "evaluation.jsonl").open()]
    assert {row.source for row in rows} == set(SECONDS)
    assert [clip.source for clip in report.unused] == ["broken.wav"]
    for name, package in report.not_installed.items():
        assert f"Not measured here: {name}" in shown
        assert f"pip install {package}" in shown
    assert report.not_installed.keys() | report.means.keys() == {"mel_l1", "stft", "si_sdr", "stoi", "pesq"}
    # A second run into a file of another name writes the same bytes.
    result = codectok(*command, "--out", tmp_path / "mine.json")
    assert result.exit_code == 0, result.output
    for name, suffix in (("evaluation", ".json"), ("evaluation", ".jsonl")):
        assert (tmp_path / "out" / f"{name}{suffix}").read_bytes() == (tmp_path / f"mine{suffix}").read_bytes()
    assert_refused(codectok(*command, "--out", tmp_path / "mine.json"), "already exists")
    assert_refused(codectok(*command, "--out", tmp_path / "out"), "not empty")


def test_evaluate_command_names_first_unusable_clips(
    evaluation_clips: Path, codec_folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for number in range(8):
        (broken / f"{number}.wav").write_text("text")
    command = ("evaluate", evaluation_clips, broken, "--codec", codec_folder, "--limit", 5)
    for out, rest in (
        ((), "3 more clips; pass --out"),
        (("--out", tmp_path / "out"), "3 more clips in"),
    ):
        result = codectok(*command, *out)
        assert result.exit_code == 0, result.output
        assert one_line(result.output).count("Not measured (unreadable)") == 5
        assert f"Not measured: {rest}" in one_line(result.output)
    report = EvaluationReport.model_validate_json((tmp_path / "out" / "evaluation.json").read_text())
    assert len(report.unused) == 8


def test_silent_clip_does_not_change_means(tmp_path: Path) -> None:
    codec = make_codec(VARIANTS["one-codebook"])
    soundfile.write(tmp_path / "a.wav", tone(0.5, 16_000), 16_000)
    before, _ = measured(codec, tmp_path)
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 16_000)
    after, (_, silent) = measured(codec, tmp_path)
    assert (before.means["stft"], before.means["si_sdr"]) == (after.means["stft"], after.means["si_sdr"])
    assert silent.measures["stft"] is None


def test_evaluate_command_refuses_bad_input(evaluation_clips: Path, codec_folder: Path, tmp_path: Path) -> None:
    codec = ("--codec", codec_folder)
    assert_refused(codectok("evaluate", tmp_path / "none", *codec), "There is no file or folder")
    assert_refused(codectok("evaluate", evaluation_clips, "--codec", evaluation_clips), "codec")
    assert_refused(codectok("evaluate", evaluation_clips, *codec, "--max-seconds", -1), "above 0")
    (tmp_path / "text.wav").write_text("text")
    result = codectok("evaluate", tmp_path / "text.wav", *codec, "--out", tmp_path / "out")
    assert_refused(result, "1 clips", code=1)
    assert not (tmp_path / "out").exists()
    result = codectok("evaluate", tmp_path / "text.wav", *codec, "--out", tmp_path / "new" / "deep" / "mine.json")
    assert_refused(result, "1 clips", code=1)
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    assert_refused(codectok("evaluate", tmp_path / "text.wav", *codec, "--out", tmp_path / "mine"), "clips", code=1)
    assert not list((tmp_path / "mine").iterdir())
    result = codectok("evaluate", evaluation_clips, *codec, "--out", tmp_path / "clips.jsonl")
    assert_refused(result, "clips.json, or a folder")
    (tmp_path / "notes").mkdir()
    assert_refused(codectok("evaluate", tmp_path / "notes", *codec), "There are no audio files")
