"""Job `tokenize`: slices, statistics, shared encoders, reproducibility."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import ray
import ray.cloudpickle
import soundfile
import torch

from codectok import Codec, CodectokError, InputError
from codectok.audio.files import read_audio
from codectok.audio.spans import Span
from codectok.choices import KernelChoice, Precision
from codectok.errors import AudioError
from codectok.pipelines.engine.executors import ray_cluster, servers, worker_pool
from codectok.pipelines.engine.executors.ray_cluster import gpu_model_of
from codectok.pipelines.engine.job import RunUnit, Server, WorkerContext
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.report import REPORT_FILE
from codectok.pipelines.engine.output.statistics import STATISTICS_FILE
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.progress import NullProgress
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.tokenize.encoder_server import EncoderServer, load_codec_of_job
from codectok.pipelines.tokenize.job import TokenizeJob
from codectok.pipelines.tokenize.options import TokenizeOptions
from codectok.pipelines.tokenize.statistics import read_statistics
from codectok.pipelines.verify.output import verify_output
from codectok.storage import open_storage
from codectok.tokens.reader import open_table
from codectok.tokens.slicing import cut_row
from codectok.tokens.table import TokenRow, read_rows
from tests.helpers.jobs import LOCAL, UNIT_SECONDS, digests, rejects, run, shard_job
from tests.helpers.transformers_models import save_model

from . import test_tokenize

ray.cloudpickle.register_pickle_by_value(test_tokenize)

RATE, FRAME = 24_000, 256


def job(codec_folder: Path, **options: Any) -> TokenizeJob:
    return TokenizeJob(TokenizeOptions(str(codec_folder), **{"device": "cpu", "part_seconds": UNIT_SECONDS, **options}))


def row(seconds: float, text: str | None = None) -> TokenRow:
    n_samples = round(seconds * RATE)
    codes = np.arange(max(1, n_samples // FRAME))[:, None]
    return TokenRow("id", "a.wav", "d", 1.5, n_samples / RATE, n_samples, codes, text)


@pytest.mark.parametrize("seconds", [0.001, 0.4, 2.0, 2.02, 4.0, 4.0001, 9.99, 61.7])
def test_slices_have_codes_of_whole_row(seconds: float) -> None:
    whole = row(seconds)
    slices = [part for part in cut_row(whole, Span(), 2.0, RATE, FRAME) if isinstance(part, TokenRow)]
    np.testing.assert_array_equal(np.concatenate([part.codes for part in slices]), whole.codes)
    assert sum(part.n_samples for part in slices) == whole.n_samples
    assert len({part.id for part in slices}) == len(slices)
    position = 0
    for part in slices:
        assert part.start == pytest.approx(1.5 + position / RATE)
        assert part.duration == pytest.approx(part.n_samples / RATE)
        assert len(part.codes) == max(1, part.n_samples // FRAME) <= 2.0 * RATE / FRAME
        position += part.n_samples


def test_extension_by_another_version_says_so_once(
    tmp_path: Path, corpus: Path, codec_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes could differ in a few places; another device or precision is refused."""

    class Notes(NullProgress):
        def __init__(self) -> None:
            self.said: list[str] = []

        def note(self, message: str) -> None:
            self.said.append(message)

    monkeypatch.setattr(torch, "__version__", "2.10.0")
    run(job(codec_folder), corpus / "a.wav", out := tmp_path / "out")
    monkeypatch.undo()
    sources, extend = [str(corpus / "a.wav"), f"more={corpus / 'b.flac'}"], replace(LOCAL, extend=True)
    run_job(job(codec_folder), sources, out, extend, progress := Notes())
    assert len([said for said in progress.said if f"version of torch: {torch.__version__} and 2.10.0" in said]) == 1
    verify_output(open_storage(out))
    assert open_table(out).metadata.mixed == {"torch": ("2.10.0", torch.__version__)}
    again = Notes()
    run_job(job(codec_folder), sources, out, LOCAL, again)
    assert not again.said
    with pytest.raises(InputError, match="dtype was float32 and is bfloat16"):
        run_job(job(codec_folder, dtype="bfloat16"), sources, out, extend)


def test_text_is_cut_between_timed_words() -> None:
    parts = tuple(Span(1.5 + 1.9 * n, 1.5 + 1.9 * n + 1.2, text=f"word{n}") for n in range(4))
    spoken = row(7.6, "word0 word1 word2 word3")
    span = Span(1.5, 9.1, "id", spoken.text, supervisions=parts)
    slices = [part for part in cut_row(spoken, span, 4.5, RATE, FRAME) if isinstance(part, TokenRow)]
    assert [part.text for part in slices] == ["word0 word1", "word2 word3"]
    np.testing.assert_array_equal(np.concatenate([part.codes for part in slices]), spoken.codes)
    for without in (Span(), replace(span, supervisions=())):
        (error,) = cut_row(spoken, without, 4.5, RATE, FRAME)
        assert isinstance(error, AudioError)
        assert error.reason == "too_long"
    assert list(cut_row(spoken, Span(), 8.0, RATE, FRAME)) == [spoken]


def test_slices_have_the_further_labels_of_their_own_supervisions() -> None:
    extras = ['{"gender": "f"}', '{"gender": "f"}', '{"gender": "m"}', None]
    parts = tuple(Span(1.9 * n, 1.9 * n + 1.2, text=f"word{n}", extra=extra) for n, extra in enumerate(extras))
    merged = '{"gender": ["f", "m", null], "room": "hall"}'
    span = Span(0.0, 7.6, "id", "word0 word1 word2 word3", supervisions=parts, extra=merged)
    spoken = replace(row(7.6, span.text), extra='{"channel": 1, "gender": ["f", "m", null], "room": "hall"}')
    slices = [part for part in cut_row(spoken, span, 4.5, RATE, FRAME) if isinstance(part, TokenRow)]
    assert [json.loads(part.extra or "") for part in slices] == [
        {"channel": 1, "gender": "f", "room": "hall"},
        {"channel": 1, "gender": ["m", None], "room": "hall"},
    ]


def test_ids_of_the_corpus_are_further_labels(codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    rows = [{"path": str(corpus / "b.flac"), "id": "ä1"}, {"path": str(corpus / "a.wav")}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    run(job(codec_folder, max_seconds=3.0), tmp_path / "rows.jsonl", tmp_path / "out")
    extras = {found.extra for found in read_rows(tmp_path / "out") if "b.flac" in found.source}
    assert extras == {'{"id": "ä1"}'}
    assert {found.extra for found in read_rows(tmp_path / "out") if "a.wav" in found.source} == {None}


def test_long_recordings_are_sliced(codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    report = run(job(codec_folder, max_seconds=3.0), corpus, tmp_path / "out")
    rows = [found for found in read_rows(tmp_path / "out") if found.source == "b.flac"]
    codec = Codec.from_pretrained(codec_folder, device="cpu")
    whole = codec.encode(read_audio(corpus / "b.flac", RATE), RATE).numpy()
    np.testing.assert_array_equal(np.concatenate([found.codes for found in rows]), whole)
    assert all(found.duration <= 3.0 for found in rows)
    assert len(rows) == -(-len(whole) // (3 * RATE // FRAME))
    assert report.summary.total.seconds == pytest.approx(sum(found.duration for found in read_rows(tmp_path / "out")))
    assert sum(found.n_samples for found in rows) == len(read_audio(corpus / "b.flac", RATE))


def test_long_clip_with_text_is_rejected(codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    lines = [{"path": str(corpus / "b.flac"), "text": "many words"}, {"path": str(corpus / "a.wav")}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run(job(codec_folder, max_seconds=3.0), tmp_path / "in.jsonl", tmp_path / "out")
    assert {found.source for found in read_rows(tmp_path / "out")} == {str(corpus / "a.wav")}
    (reject,) = rejects(tmp_path / "out")
    assert (reject["reason"], reject["stage"]) == ("too_long", "slice")


def test_statistics_match_rows(codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    report = run(job(codec_folder), corpus, tmp_path / "out")
    found = read_statistics(open_storage(tmp_path / "out"))
    rows = list(read_rows(tmp_path / "out"))
    assert (found.rows, found.frames) == (len(rows), sum(len(one.codes) for one in rows))
    assert found.hours == pytest.approx(report.summary.total.seconds / 3600)
    for number, use in enumerate(found.codebooks):
        counts = Counter(int(code) for one in rows for code in one.codes[:, number])
        assert dict(counts) == {code: count for code, count in enumerate(use.counts) if count}
        shares = np.array(list(counts.values())) / sum(counts.values())
        assert use.entropy == pytest.approx(-(shares * np.log2(shares)).sum())
        assert use.perplexity == pytest.approx(2**use.entropy)
    assert "Codes of codebook 0" in (tmp_path / "out" / REPORT_FILE).read_text()
    (tmp_path / "out" / STATISTICS_FILE).unlink()
    before = digests(tmp_path / "out")
    assert run(job(codec_folder), corpus, tmp_path / "out").new_units == 0
    assert digests(tmp_path / "out").items() > before.items()


def test_encoder_threads_are_part_of_plan(codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    run(job(codec_folder, encoder_threads=2), corpus / "a.wav", tmp_path / "out")
    with pytest.raises(InputError, match="encoder-threads was 2 and is 1"):
        run(job(codec_folder), corpus / "a.wav", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_encoder_threads_do_the_same_on_ray(codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    two = job(codec_folder, encoder_threads=2)
    run(two, corpus, tmp_path / "local")
    run(two, corpus, tmp_path / "ray", replace(LOCAL, engine="ray"))
    assert digests(tmp_path / "local") == digests(tmp_path / "ray")


@pytest.mark.parametrize("options", [{"max_seconds": 0.0}, {"encoder_threads": 0}, {"part_seconds": -1.0}])
def test_invalid_tokenize_options_are_refused(options: dict[str, object], codec_folder: Path) -> None:
    with pytest.raises(InputError):
        job(codec_folder, **options)


class ServedJob(TokenizeJob):
    """One encoder on the CPU serves all workers, as on a GPU."""

    @property
    def server(self) -> Server:
        server = EncoderServer(self.settings, self.description, self.device_class)
        server.gpus = 0.0
        return server


class FailingServer(EncoderServer):
    """Runs out of memory, or dies in its second call; the folder `notes` counts calls."""

    def __init__(self, job: TokenizeJob, fault: str, notes: Path) -> None:
        super().__init__(job.settings, job.description, job.device_class)
        self.gpus = 0.0
        self.fault, self.notes = fault, notes

    def start(self) -> Callable[..., np.ndarray]:
        encode = super().start()

        def fail(*arguments: np.ndarray) -> np.ndarray:
            self.notes.joinpath(str(len(list(self.notes.iterdir())))).touch()
            if self.fault == "memory":
                raise torch.OutOfMemoryError("CUDA out of memory.")
            if len(list(self.notes.iterdir())) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return encode(*arguments)

        return fail


class FaultyServedJob(TokenizeJob):
    def __init__(self, options: TokenizeOptions, fault: str, notes: Path) -> None:
        super().__init__(options)
        self.fault, self.notes = fault, notes

    @property
    def server(self) -> Server:
        return FailingServer(self, self.fault, self.notes)


ON_RAY = RunOptions(engine="ray", workers=2, max_rejects=1.0)


@pytest.mark.usefixtures("ray_session")
def test_shared_encoder_writes_same_bytes_and_its_utilization_is_reported(
    codec_folder: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "BUSY_REPORT_SECONDS", 0.0)

    class Busy(NullProgress):
        shares: ClassVar[list[float]] = []
        staff: ClassVar[list[tuple[int, int, int]]] = []

        def started(self, workers: int, threads: int, gpus: int) -> None:
            self.staff.append((workers, threads, gpus))

        def busy(self, share: float) -> None:
            self.shares.append(share)

    plain = job(codec_folder, pack_frames=1024)
    run(plain, corpus, tmp_path / "local")
    run_job(ServedJob(plain.settings), [str(corpus)], tmp_path / "served", ON_RAY, Busy())
    assert digests(tmp_path / "local") == digests(tmp_path / "served")
    assert Busy.staff == [(2, 1, 0)]
    assert Busy.shares
    assert all(0 <= share <= 1 for share in Busy.shares)
    assert Busy.shares[-1] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_shared_encoder_of_whole_clips_writes_same_bytes(corpus: Path, tmp_path: Path) -> None:
    options = TokenizeOptions(f"transformers:{save_model('encodec', tmp_path / 'model')}", "cpu", batch_seconds=2.0)
    run(TokenizeJob(options), corpus, tmp_path / "local")
    run(ServedJob(options), corpus, tmp_path / "served", ON_RAY)
    assert digests(tmp_path / "local") == digests(tmp_path / "served")


@pytest.mark.parametrize(("encoders", "gpus", "count"), [(1, None, 2), (4, None, 8), (4, 1, 4), (2, 2, 4), (3, 5, 6)])
def test_encoders_share_each_gpu(
    encoders: int, gpus: int | None, count: int, codec_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TokenizeOptions(str(codec_folder), "cpu", encoders_per_gpu=encoders)
    server = EncoderServer(options, TokenizeJob(options).description, "GPU")
    monkeypatch.setattr(servers, "cluster_resource", lambda name: 2.0)
    assert servers.server_count(server, gpus) == count
    monkeypatch.setattr(servers, "cluster_resource", lambda name: 0.0)
    with pytest.raises(InputError, match="no GPU"):
        servers.server_count(server, gpus)


@pytest.mark.usefixtures("ray_session")
def test_dead_encoder_server_is_restarted(codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    plain, notes = job(codec_folder), tmp_path / "notes"
    notes.mkdir()
    run(plain, corpus, tmp_path / "local")
    run(FaultyServedJob(plain.settings, "SIGKILL", notes), corpus, tmp_path / "served", ON_RAY)
    assert len(list(notes.iterdir())) > 2
    assert digests(tmp_path / "local") == digests(tmp_path / "served")


@pytest.mark.usefixtures("ray_session")
def test_encoder_out_of_memory_names_pack_frames(codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    plain, notes = job(codec_folder), tmp_path / "notes"
    notes.mkdir()
    with pytest.raises(CodectokError, match="--pack-frames"):
        run(FaultyServedJob(plain.settings, "memory", notes), corpus, tmp_path / "out", ON_RAY)
    assert not list((tmp_path / "out").glob("*.parquet"))


class CrashingServedJob(ServedJob):
    """Its decoder crashes the process at `b.flac`."""

    def start(self, context: WorkerContext) -> RunUnit:
        run = super().start(context)

        def run_or_crash(unit: Unit, output: UnitOutput) -> None:
            crash(unit)
            run(unit, output)

        return run_or_crash

    @property
    def server(self) -> Server:
        server = CrashingServer(self.settings, self.description, self.device_class)
        server.gpus = 0.0
        return server


class CrashingServer(EncoderServer):
    def probe(self, unit: Unit) -> None:
        crash(unit)
        super().probe(unit)


def crash(unit: Unit) -> None:
    if any(source.path == "b.flac" for source in unit.sources):
        os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_crashing_file_beside_encoder_server_is_rejected(codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.wav", "b.flac", "text.wav"):
        shutil.copy(corpus / name, tmp_path / "in")
    plain = job(codec_folder, part_seconds=100.0)
    run(CrashingServedJob(plain.settings), tmp_path / "in", tmp_path / "out", replace(ON_RAY, workers=1))
    reasons = {row["source"]: row["reason"] for row in rejects(tmp_path / "out")}
    assert reasons == {"text.wav": "unreadable", "b.flac": "decoder_crash"}
    run(plain, tmp_path / "in" / "a.wav", tmp_path / "clean")
    kept, expected = ([row.codes for row in read_rows(tmp_path / name)] for name in ("out", "clean"))
    np.testing.assert_array_equal(kept, expected)
    verify_output(open_storage(tmp_path / "out"))


@pytest.mark.usefixtures("ray_session")
def test_cluster_without_gpus_has_no_gpu_model() -> None:
    assert gpu_model_of(None) is None


@pytest.mark.usefixtures("ray_session")
@pytest.mark.skipif(torch.cuda.is_available(), reason="Ray has a GPU")
def test_wait_for_the_first_gpu_of_a_cluster_is_told_and_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "GPU_NOTE_SECONDS", 0.2)
    monkeypatch.setattr(ray_cluster, "GPU_NOTES_SECONDS", 0.2)
    monkeypatch.setattr(ray_cluster, "GPU_POLL_SECONDS", 0.1)
    told: list[str] = []

    def stop(note: str) -> None:
        told.append(note)
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gpu_model_of(None, stop)
    assert told[1].startswith("Waiting for a GPU of the Ray cluster: it has no machine with a GPU yet.")


@pytest.mark.usefixtures("ray_session")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU can be used")
def test_gpu_unusable_by_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    remote: Any = ray.remote
    monkeypatch.setattr(ray, "remote", lambda num_gpus: remote(num_gpus=0))
    monkeypatch.setattr(ray_cluster, "cluster_resource", lambda name: 1.0)
    with pytest.raises(CodectokError, match=r"has a GPU that torch cannot use there: .*--device cpu"):
        gpu_model_of(None)


@pytest.mark.slow
def test_gpu_unusable_by_torch_is_an_error(codec_folder: Path) -> None:
    script = (
        "import ray\n"
        "from codectok import CodectokError\n"
        "from codectok.pipelines.engine.executors.ray_cluster import gpu_model_of\n"
        "ray.init(address='local', num_cpus=1, num_gpus=1, include_dashboard=False, logging_level='ERROR')\n"
        "try:\n"
        "    gpu_model_of(None)\n"
        "except CodectokError as error:\n"
        "    print(error)\n"
        "ray.shutdown()\n"
    )
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "99"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=hidden, check=True)
    assert "has a GPU that torch cannot use" in done.stdout
    assert "--device cpu" in done.stdout


def test_gpu_job_is_created_without_gpu(codec_folder: Path) -> None:
    options = TokenizeOptions(str(codec_folder), dtype="tf32")
    made = TokenizeJob(options, gpu_model="NVIDIA H100 80GB HBM3")
    assert made.options()["device"] == "NVIDIA H100 80GB HBM3"
    assert made.options()["encoder_threads"] is None
    assert made.server is not None
    assert made.threads == 1


@pytest.mark.parametrize(
    ("dtype", "kernels", "expected"),
    [("bfloat16", "auto", "triton"), ("bfloat16", "torch", "torch"), ("float32", "auto", "torch")],
)
def test_job_names_kernels_that_all_its_workers_use(
    codec_folder: Path, dtype: Precision, kernels: KernelChoice, expected: str
) -> None:
    options = TokenizeOptions(str(codec_folder), dtype=dtype, kernels=kernels)
    made = TokenizeJob(options, gpu_model="NVIDIA H100 80GB HBM3")
    assert made.options()["kernels"] == made.description.kernels == expected


def test_worker_without_the_kernels_of_its_job_is_refused(codec_folder: Path) -> None:
    options = TokenizeOptions(str(codec_folder), device="cpu", dtype="bfloat16")
    description = TokenizeJob(options, gpu_model="cpu").description
    with pytest.raises(InputError, match="on a GPU only"):
        load_codec_of_job(options, description, "cpu")


def test_shards_with_colliding_ids_are_refused(codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    """Two corpora of the same name, sharded separately, have a file of the same name and thus equal keys."""
    (tmp_path / "more").mkdir()
    shutil.copy(corpus / "a.wav", tmp_path / "more" / "z.wav")
    run(shard_job(), f"speech={corpus}", tmp_path / "shards" / "1")
    run(shard_job(), f"speech={corpus}", tmp_path / "shards" / "2")
    run(shard_job(), f"speech={tmp_path / 'more'}", tmp_path / "shards" / "3")
    job = TokenizeJob(TokenizeOptions(str(codec_folder), device="cpu"))
    for sources in (["shards"], ["shards/1", "shards/2"]):
        with pytest.raises(InputError, match=r"both hold segments of speech/a\.wav"):
            run_job(job, [str(tmp_path / source) for source in sources], tmp_path / "out", LOCAL)
        assert not (tmp_path / "out").exists()
    run_job(job, [str(tmp_path / "shards" / number) for number in "13"], tmp_path / "out", LOCAL)
    verify_output(open_storage(tmp_path / "out"))


def test_corpus_without_rows_is_an_error(codec_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "empty.wav", np.zeros(0, np.float32), RATE)
    with pytest.raises(CodectokError, match="Nothing was written"):
        run(job(codec_folder), tmp_path / "in", tmp_path / "out")


def test_worker_or_server_with_other_weights_is_refused(corpus: Path, tmp_path: Path) -> None:
    Codec.from_config("nano", seed=1).save_pretrained(tmp_path / "codec")
    planned = ServedJob(TokenizeOptions(str(tmp_path / "codec"), device="cpu"))
    same = planned.server
    same.start()
    assert {"codec", "first batch"} <= set(same.clock.seconds())
    shutil.rmtree(tmp_path / "codec")
    Codec.from_config("nano", seed=2).save_pretrained(tmp_path / "codec")
    with pytest.raises(CodectokError, match="another codec"):
        planned.server.start()
    with pytest.raises(CodectokError, match="another codec"):
        run(planned, corpus, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.parquet"))
