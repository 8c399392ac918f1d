"""`evaluate`: rows equal values computed by hand, and files do not depend on workers or interruption."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray.cloudpickle
import soundfile
import torch

from codectok import Codec, CodectokError, InputError, VerificationError, read_audio
from codectok.choices import KernelChoice, Precision
from codectok.evaluation.codes.stability import stability
from codectok.evaluation.controls.controls import CONTROLS
from codectok.evaluation.metrics.alignment import align
from codectok.evaluation.metrics.base import Signal
from codectok.evaluation.metrics.registry import measure_pair, metrics
from codectok.evaluation.summary import EvaluationSummary
from codectok.phases import PhaseClock
from codectok.pipelines.engine.job import Server
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.evaluate.clips import EvaluatedClip, fraction_of
from codectok.pipelines.evaluate.job import EvaluateJob
from codectok.pipelines.evaluate.measuring import ClipMeasurer
from codectok.pipelines.evaluate.options import EvaluateOptions, NamedCodec
from codectok.pipelines.evaluate.reconstruction import CodecsOnDevice, Reconstruction
from codectok.pipelines.verify.output import verify_output
from codectok.sources.clip import Clip
from codectok.tokens.table import read_rows
from tests.helpers.audio import tone
from tests.helpers.codecs import VARIANTS, make_codec
from tests.helpers.command_line import assert_refused, codectok, one_line
from tests.helpers.evaluation import QUICK, evaluated
from tests.helpers.jobs import LOCAL, digests, rejects, run, tokenize_job

METRICS = ("mel", "stft", "si_sdr")
# Actors cannot import the tests.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def test_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two categories, of recordings at three rates; one of the recordings is silent, one holds a single sample."""
    root = tmp_path_factory.mktemp("test-set") / "clips"
    lines = []
    for number, seconds in enumerate([1.0, 1.5, 2.0, 0.7, 1.2, 0.9]):
        rate, name = (16_000, 24_000, 44_100)[number % 3], f"{number}.wav"
        (root / "audio").mkdir(parents=True, exist_ok=True)
        soundfile.write(root / "audio" / name, tone(seconds, rate, 200 + 70 * number, seed=number), rate)
        category = "speech" if number % 2 else "music"
        lines.append({"audio_filepath": f"audio/{name}", "category": category, "text": f"words {number}"})
    soundfile.write(root / "audio" / "silent.wav", np.zeros(12_000), 24_000)
    soundfile.write(root / "audio" / "sample.wav", np.full(1, 0.5), 24_000)
    lines += [{"audio_filepath": f"audio/{name}.wav", "category": "speech"} for name in ("silent", "sample")]
    (root / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root / "list.jsonl"


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("codecs")
    for number, name in enumerate(("one-codebook", "grouped-residual")):
        make_codec(VARIANTS[name]).save_pretrained(folder / name)
        del number
    return {"one": folder / "one-codebook", "two": folder / "grouped-residual"}


def options(codecs: dict[str, Path], **changes: Any) -> EvaluateOptions:
    named = NamedCodec.parse_all([f"{label}={path}" for label, path in codecs.items()])
    known: dict[str, Any] = {
        "device": "cpu",
        "metrics": METRICS,
        "controls": ("original", "silence", "noise"),
        "unit_seconds": 3.0,
    }
    return EvaluateOptions(named, **(known | changes))


@pytest.fixture(scope="module")
def output(test_set: Path, codecs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of an evaluation of two codecs in several units."""
    out = tmp_path_factory.mktemp("evaluation") / "out"
    report = run(EvaluateJob(options(codecs, references=True)), test_set, out)
    assert report.summary.units > 2
    return out


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / "metrics.parquet").to_pylist()
    return rows


def summary_of(out: Path) -> EvaluationSummary:
    return EvaluationSummary.model_validate_json((out / "summary.json").read_text())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in a worker: the last bits of a product can depend on threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_rows_equal_values_computed_by_hand(output: Path, test_set: Path, codecs: dict[str, Path]) -> None:
    rows = rows_of(output)
    assert [row["system"] for row in rows[:5]] == ["one", "two", "original", "silence", "noise"]
    assert len(rows) == 5 * 8
    loaded = {label: Codec.from_pretrained(path, device="cpu") for label, path in codecs.items()}
    measures = metrics(names=METRICS)
    for row in rows:
        original = read_audio(test_set.parent / row["source"], 24_000)
        seed = int(fraction_of(Clip(row["id"], b"", "", ""), "seed") * 2**32)
        expected: dict[str, Any] = {}
        if row["system"] in loaded:
            codec = loaded[row["system"]]
            codes = codec.encode(original, 24_000)
            made = codec.decode_aligned(codes, len(original)).numpy()
            assert row["n_frames"] == len(codes)
            expected = stability(codec, original, codes.numpy(), seed)
        else:
            (control,) = (each for each in CONTROLS if each.name == row["system"])
            made = control.reconstruct(original, 24_000, seed)
            assert row["n_frames"] is None
        rate = soundfile.info(test_set.parent / row["source"]).samplerate
        aligned = align(Signal(original, 24_000, rate), Signal(made, 24_000), None, None)
        values, reasons = measure_pair(measures, aligned.pair)
        assert row["delay"] == aligned.delay
        undefined = [name for name, share in expected.items() if share is None]
        assert dict(row["reasons"]).keys() == reasons.keys() | {*undefined}
        for name, value in (values | expected).items():
            assert row[name] == value, (row["id"], row["system"], name)


def test_codes_are_those_of_tokenize(output: Path, test_set: Path, codecs: dict[str, Path], tmp_path: Path) -> None:
    run(tokenize_job(codecs["one"]), test_set, tmp_path / "tokens")
    tokens = {row.source: row.codes.reshape(-1).tolist() for row in read_rows(tmp_path / "tokens")}
    found = {}
    for path in sorted((output / "_codectok" / "clips").glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            if row["system"] == "one":
                found[row["source"]] = row["codes"]
    assert found == tokens


def test_summary_follows_from_rows(output: Path, codecs: dict[str, Path]) -> None:
    summary, rows = summary_of(output), rows_of(output)
    assert list(summary.categories) == ["all", "music", "speech"]
    assert (summary.categories["all"].clips, summary.categories["music"].clips) == (8, 3)
    for category, found in summary.categories.items():
        for system, estimates in found.systems.items():
            for name, estimate in estimates.items():
                values = [
                    row[name]
                    for row in rows
                    if row["system"] == system and category in ("all", row["category"]) and row[name] is not None
                ]
                assert estimate.clips == len(values)
                assert estimate.mean == pytest.approx(np.mean(values))
                if len(values) > 1:
                    assert estimate.low is not None and estimate.high is not None and estimate.mean is not None
                    assert estimate.low <= estimate.mean <= estimate.high
    (difference,) = summary.categories["all"].differences["mel"]
    by_system = {s: {r["id"]: r["mel"] for r in rows if r["system"] == s} for s in codecs}
    expected = [by_system["one"][clip] - value for clip, value in by_system["two"].items() if value is not None]
    assert difference.estimate.mean == pytest.approx(np.mean(expected))
    codes = summary.categories["all"].codes["two"]
    assert codes.bits_per_second == pytest.approx(93.75 / 2 * 2 * 3 * 6) or codes.bits_per_second > 0
    assert codes.tokens == sum((row["n_frames"] or 0) * 6 for row in rows if row["system"] == "two")
    assert summary.metrics["mel"].not_told_apart == ()


def test_equal_codecs_do_not_differ(codecs: dict[str, Path], test_set: Path, tmp_path: Path) -> None:
    same = options({"one": codecs["one"], "again": codecs["one"]}, stability=False, controls=())
    run(EvaluateJob(same), test_set, tmp_path / "out")
    for differences in summary_of(tmp_path / "out").categories["all"].differences.values():
        (found,) = differences
        assert (found.estimate.mean, found.estimate.low, found.estimate.high) == (0.0, 0.0, 0.0)
        assert found.better is None


class ServedJob(EvaluateJob):
    """The codecs on the CPU serve all workers, as on a GPU."""

    @property
    def server(self) -> Server:
        from codectok.pipelines.evaluate.reconstruction import CodecServer

        server = CodecServer(self.settings, [codec.description for codec in self.codecs], self.device_class)
        server.gpus = 0.0
        return server


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("job_type", [EvaluateJob, ServedJob])
def test_workers_and_servers_write_the_same_bytes(
    job_type: type[EvaluateJob], output: Path, test_set: Path, codecs: dict[str, Path], tmp_path: Path
) -> None:
    on_ray = RunOptions(engine="ray", workers=2, max_rejects=1.0)
    run(job_type(options(codecs, references=True)), test_set, tmp_path / "out", on_ray)
    found, expected = digests(tmp_path / "out"), digests(output)
    for name in ("_codectok/plan.json", "_codectok/stats.json"):
        found.pop(name, None), expected.pop(name, None)
    assert found == expected


def test_resumed_run_writes_the_same_bytes(
    output: Path, test_set: Path, codecs: dict[str, Path], tmp_path: Path
) -> None:
    job = EvaluateJob(options(codecs, references=True))
    part = run(job, test_set, tmp_path / "out", replace(LOCAL, limit=2))
    assert not part.summary.complete and not (tmp_path / "out" / "metrics.parquet").exists()
    run(job, test_set, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(output)
    with pytest.raises(CodectokError, match="metrics"):
        run(EvaluateJob(options(codecs, references=True, metrics=("mel",))), test_set, tmp_path / "out")


def test_extended_test_set_is_measured(codecs: dict[str, Path], tmp_path: Path) -> None:
    one = {"one": codecs["one"]}
    folder = tmp_path / "in"
    folder.mkdir()
    job = EvaluateJob(options(one, stability=False, controls=()))
    for number in range(2):
        soundfile.write(folder / f"{number}.wav", tone(1, 24_000, seed=number), 24_000)
        run(job, folder, tmp_path / "out", replace(LOCAL, extend=number > 0))
        assert [row["source"] for row in rows_of(tmp_path / "out")] == [f"{n}.wav" for n in range(number + 1)]
        assert summary_of(tmp_path / "out").categories["all"].clips == number + 1
    verify_output(tmp_path / "out")


def test_verify_finds_changed_files(output: Path, tmp_path: Path) -> None:
    verify_output(output)
    for name in ("metrics.parquet", "summary.json", "_codectok/clips/000001.parquet"):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(output, tmp_path / "copy")
        path = tmp_path / "copy" / name
        if name == "summary.json":
            changed = summary_of(output).model_copy(update={"sample_rate": 8000})
            path.write_text(changed.model_copy(update={"cut": 9}).model_dump_json())
        else:
            table = pq.read_table(path)
            pq.write_table(table.slice(1), path)
        with pytest.raises(VerificationError, match=f"{Path(name).name}|units are not complete"):
            verify_output(tmp_path / "copy")


def test_references_list_the_audio(output: Path, test_set: Path) -> None:
    lines = [json.loads(line) for line in (output / "references.jsonl").read_text().splitlines()]
    assert len(lines) == 8
    for system in ("original", "one", "two"):
        listed = dict(line.split(" ", 1) for line in (output / f"{system}.scp").read_text().splitlines())
        assert listed == {line["key"]: line[system] for line in lines}
        for line in lines:
            samples, rate = soundfile.read(output / line[system])
            assert rate == 24_000 and len(samples)
    texts = (output / "text").read_text().splitlines()
    assert sorted(line.split(" ", 1)[1] for line in texts) == [f"words {number}" for number in range(6)]


def test_page_holds_tables_pictures_and_players(output: Path) -> None:
    page = (output / "report.html").read_text()
    for part in (
        "mel",
        "stable_shift_1",
        "Category speech",
        "DistilCodec",
        "<audio",
        "<svg",
        "data:image/png",
        "worst",
    ):
        assert part in page
    assert "http://" not in page.replace("http://www.w3.org/", "") and "https://" not in page


def test_share_and_longest_seconds(codec_folder: Path, test_set: Path, tmp_path: Path) -> None:
    _, rows = evaluated(codec_folder, test_set, tmp_path / "short", max_seconds=0.8)
    assert max(row["seconds"] for row in rows) == 0.8
    assert summary_of(tmp_path / "short").cut == 5
    _, half = evaluated(codec_folder, test_set, tmp_path / "half", share=0.5)
    expected = {row["id"] for row in rows if fraction_of(Clip(row["id"], b"", "", ""), "share") < 0.5}
    assert {row["id"] for row in half} == expected and 0 < len(half) < len(rows)


def test_unusable_clips_are_rejected(codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    report, rows = evaluated(codec_folder, corpus, tmp_path / "out", max_seconds=1.0)
    assert {row["source"] for row in rows} >= {"a.wav", "sub folder/c ü.ogg", "truncated.flac"}
    unused = {row["source"]: row["reason"] for row in rejects(tmp_path / "out")}
    expected = {"text.wav": "unreadable", "empty.wav": "empty", "nan.wav": "not_finite", "no-samples.wav": "empty"}
    assert unused == expected  # the damage of truncated.flac lies behind the first second
    assert report.summary.total.ignored == 1
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "text.wav").write_text("text")
    with pytest.raises(CodectokError, match="rejected"):
        run_job(EvaluateJob(options({"one": codec_folder})), [str(tmp_path / "broken")], tmp_path / "none", LOCAL)


def test_command_shows_means_and_codes(codec_folder: Path, test_set: Path, tmp_path: Path) -> None:
    command = ("evaluate", test_set, tmp_path / "out", "--codec", f"mine={codec_folder}", "--device", "cpu", *QUICK)
    result = codectok(*command)
    assert result.exit_code == 0, result.output
    shown = one_line(result.output)
    for part in ("si_sdr", "mine", "perplexity", "report.html"):
        assert part in shown
    assert "already finished" in one_line(codectok(*command).output)
    codec = ("--codec", codec_folder)
    out = tmp_path / "none"
    assert_refused(codectok("evaluate", test_set, out, *codec, *QUICK[2:], "--metrics", "beauty"), "no metric beauty")
    assert_refused(codectok("evaluate", test_set, out, *codec, "--controls", "mp3"), "no control mp3")
    assert_refused(codectok("evaluate", test_set, out, *codec, *codec), "taken")
    assert_refused(codectok("evaluate", test_set, out, *codec, "--preset", "vctk"), "no preset vctk")
    assert_refused(codectok("evaluate", test_set, out, *codec, "--max-seconds", -1), "above 0")
    assert_refused(codectok("evaluate", tmp_path / "nothing", out, *codec, *QUICK), "There is no file or folder")
    assert not out.exists()


def test_preset_checks_the_copy_of_librispeech(codec_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "LibriSpeech" / "test-clean"
    command = ("evaluate", root, tmp_path / "out", "--codec", codec_folder, "--preset", "librispeech-test-clean")
    assert_refused(codectok(*command), "not a folder")
    chapter = root / "61" / "70968"
    chapter.mkdir(parents=True)
    soundfile.write(chapter / "61-70968-0000.flac", tone(1, 16_000), 16_000)
    assert_refused(codectok(*command), "1 utterances of 1 speakers", "2,620 of 40")
    (chapter / "61-70968-0000.flac").rename(root / "61-70968-0000.flac")
    assert_refused(codectok(*command), "does not lie in the layout")


def test_labels_of_codecs(codecs: dict[str, Path]) -> None:
    path = str(codecs["one"])
    parsed = NamedCodec.parse_all([path, f"name={path}/"])
    assert [(codec.label, codec.name) for codec in parsed] == [("one-codebook", path), ("name", path)]
    for names in ([path, path], [f"original={path}"], []):
        with pytest.raises(InputError, match=r"taken|No codec"):
            NamedCodec.parse_all(names)


def test_category_of_the_name_of_all_clips_does_not_replace_them(codec_folder: Path, tmp_path: Path) -> None:
    for number, category in enumerate(["all", "b", "b"]):
        soundfile.write(tmp_path / f"{number}.wav", tone(0.5, 24_000, seed=number), 24_000)
        with (tmp_path / "list.jsonl").open("a") as file:
            file.write(json.dumps({"audio_filepath": f"{number}.wav", "category": category}) + "\n")
    evaluated(codec_folder, tmp_path / "list.jsonl", tmp_path / "out")
    categories = summary_of(tmp_path / "out").categories
    assert {name: found.clips for name, found in categories.items()} == {"all": 3, "b": 2}


def test_speech_at_8_khz_has_no_wide_band_figures(codec_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pystoi")
    (tmp_path / "in").mkdir()
    for rate in (8000, 16_000):
        soundfile.write(tmp_path / "in" / f"{rate}.wav", tone(1.5, rate), rate)
    _, rows = evaluated(codec_folder, tmp_path / "in", tmp_path / "out", metrics=("stoi", "si_sdr"))
    narrow, wide = sorted(rows, key=lambda row: -int(row["source"].removesuffix(".wav")))[::-1]
    assert narrow["stoi"] is None and "sample rate" in dict(narrow["reasons"])["stoi"]
    assert narrow["si_sdr"] is not None and wide["stoi"] is not None


@pytest.mark.parametrize(("length", "limit"), [(24_000, 100.0), (23_900, 100.0), (6000, 10.0)])
def test_missing_end_of_a_reconstruction_is_measured_as_silence(length: int, limit: float, codec_folder: Path) -> None:
    job = EvaluateJob(options({"one": codec_folder}, stability=False, metrics=("si_sdr",)))
    samples = tone(1.0, 24_000)

    def cut(number: int, samples: np.ndarray, seed: int) -> Reconstruction:
        return Reconstruction(np.zeros((1, 1), np.int32), samples[:length], {})

    measurer = ClipMeasurer(job.codecs, cut, (), metrics(names=["si_sdr"]), 24_000, False)
    clip = EvaluatedClip(Clip("a", b"", "d", "a.wav"), {24_000: samples}, 24_000, False)
    (row,) = measurer.measure(clip, PhaseClock()).rows
    assert row["si_sdr"] == 100.0 if limit == 100.0 else row["si_sdr"] < limit


def test_refused_clip_has_reasons_and_is_the_worst(codec_folder: Path) -> None:
    job = EvaluateJob(options({"one": codec_folder}))
    measurer = ClipMeasurer(job.codecs, lambda *_: "too short", (), metrics(names=METRICS), 24_000, True)
    clip = EvaluatedClip(Clip("a", b"", "d", "a.wav"), {24_000: tone(1.0, 24_000)}, 24_000, False)
    measured = measurer.measure(clip, PhaseClock())
    (row,) = measured.rows
    undefined = {quantity.name for quantity in job.quantities}
    assert {name for name, value in row.items() if value is None} >= undefined
    assert row["reasons"] == dict.fromkeys(undefined, "too short")
    assert not measured.audio and job._worst_of(measured.rows) == float("inf")


def test_nothing_to_measure_is_refused(codec_folder: Path) -> None:
    with pytest.raises(InputError, match="No metric is left"):
        EvaluateJob(options({"one": codec_folder}, metrics=(), stability=False))


@pytest.mark.parametrize(
    ("dtype", "kernels", "expected"),
    [("bfloat16", "auto", "triton"), ("bfloat16", "torch", "torch"), ("float32", "auto", "torch")],
)
def test_evaluation_names_kernels_that_all_its_workers_use(
    codecs: dict[str, Path], dtype: Precision, kernels: KernelChoice, expected: str
) -> None:
    job = EvaluateJob(options(codecs, dtype=dtype, kernels=kernels, device="auto"), gpu_model="NVIDIA H100 80GB HBM3")
    descriptions = [codec.description for codec in job.codecs]
    assert [description.kernels for description in descriptions] == [expected, expected]
    if expected == "torch":
        assert "kernels" not in job.options()  # as in plans of earlier versions
    else:
        assert job.options()["kernels"] == ["triton", "triton"]
        with pytest.raises(InputError, match="on a GPU only"):
            CodecsOnDevice(options(codecs, dtype=dtype), descriptions, "cpu")


@pytest.mark.parametrize("verb", ["encode", "reconstruct", "evaluate"])
def test_kernels_that_do_not_run_here_are_refused(
    verb: str, codec_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", tone(1.0, 24_000, 200), 24_000)
    output = {"encode": "a.npz", "reconstruct": "b.wav", "evaluate": "out"}[verb]
    result = codectok(verb, "a.wav", output, "--codec", codec_folder, "--device", "cpu", "--kernels", "triton")
    assert_refused(result, "Kernels of Triton compute in bfloat16 on a GPU only")
    assert not Path(output).exists()


def test_worker_with_other_packages_is_refused(
    codec_folder: Path, test_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = EvaluateJob(options({"one": codec_folder}))
    job._versions["mel"] = {"numpy": "1.0"}
    with pytest.raises(CodectokError, match="other packages"):
        run(job, test_set, tmp_path / "out")
