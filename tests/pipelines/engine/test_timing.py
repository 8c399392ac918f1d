from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from socket import gethostname
from time import monotonic, sleep
from typing import Any

import pyarrow as pa
import pytest
import torch

from codectok.cli.times import time_facts
from codectok.phases import PhaseClock
from codectok.pipelines import RunOptions, TableJob, Unit, UnitOutput, decoded_clips, run_job
from codectok.pipelines.engine.run import JobReport
from codectok.pipelines.engine.status import JobReader
from codectok.pipelines.engine.timing import RunTimer, RunTiming
from tests.helpers.jobs import LOCAL, digests, run, shard_job, tokenize_job

PAUSE = 0.05


def timing_of(folder: Path) -> RunTiming:
    return RunTiming.model_validate(json.loads((folder / "_codectok" / "stats.json").read_bytes())["timing"])


def checked(report: JobReport, folder: Path, elapsed: float) -> RunTiming:
    timing = report.timing
    assert timing is not None
    assert sum(timing.command.values()) == pytest.approx(timing.wall)
    assert timing.wall == pytest.approx(elapsed, rel=0.1, abs=0.2)
    assert timing.audio == pytest.approx(report.summary.total.input_seconds)
    assert timing.first_unit_started is not None
    assert timing.first_unit_finished is not None
    assert 0 < timing.first_unit_started < timing.first_unit_finished <= timing.wall
    assert sum(timing.before_units.values()) == pytest.approx(timing.first_unit_started, abs=0.05)
    stored = timing_of(folder)
    assert stored.units == timing.units == report.new_units
    assert stored.wall <= timing.wall
    assert set(stored.worker_phases) == set(timing.worker_phases)
    return timing


@pytest.mark.parametrize("verb", ["shard", "tokenize"])
def test_stats_say_where_the_time_of_a_run_goes(verb: str, codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    job = shard_job() if verb == "shard" else tokenize_job(codec_folder)
    started = monotonic()
    report = run(job, corpus, tmp_path / "out")
    timing = checked(report, tmp_path / "out", monotonic() - started)
    phases = timing.worker_phases
    # One worker, which lives from its start to the last unit.
    assert sum(phases.values()) == pytest.approx(timing.command["workers"] + timing.command["units"], rel=0.1, abs=0.1)
    assert {"reading", "encoding", "writing"} <= set(phases)
    assert phases["waiting"] < 0.5 * sum(phases.values())
    assert timing.gpu_busy is None
    facts = time_facts(timing)
    assert list(facts) == ["time", "speed", "first unit", "before it", "workers"]
    assert "encoding" in str(facts["workers"])


@pytest.mark.usefixtures("ray_session")
def test_times_differ_but_bytes_do_not_with_more_workers(codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    run(tokenize_job(codec_folder), corpus, tmp_path / "one")
    started = monotonic()
    report = run(tokenize_job(codec_folder), corpus, tmp_path / "two", RunOptions("ray", workers=2, max_rejects=1.0))
    timing = checked(report, tmp_path / "two", monotonic() - started)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert timing_of(tmp_path / "one") != timing_of(tmp_path / "two")
    assert timing.workers == 2
    status = JobReader(str(tmp_path / "two")).read()
    assert {node: work.units for node, work in status.nodes.items()} == {gethostname(): report.new_units}
    assert (status.runs[0].file.engine, status.runs[0].file.workers) == ("ray", 2)
    lives = sum(timing.worker_phases.values())
    assert lives == pytest.approx(2 * (timing.command["workers"] + timing.command["units"]), rel=0.1, abs=0.5)
    assert {"imports", "codec", "reading", "encoding", "writing", "waiting"} <= set(timing.worker_phases)


def sleepy(unit: Unit, output: UnitOutput) -> Iterator[Mapping[str, Any]]:
    for clip, samples in decoded_clips(unit, output, 24_000):
        sleep(PAUSE)
        output.keep(clip.dataset, 1.0)
        yield {"n": len(samples)}


def test_jobs_of_users_are_timed_as_well(corpus: Path, tmp_path: Path) -> None:
    job = TableJob("sleepy", sleepy, pa.schema([("n", pa.int64())]))
    report = run_job(job, [str(corpus)], tmp_path / "out", LOCAL)
    assert report.timing is not None
    assert report.timing.worker_phases["other"] >= PAUSE * report.summary.total.rows
    assert report.timing.worker_phases["reading"] > 0
    again = run_job(job, [str(corpus)], tmp_path / "out", LOCAL)
    assert again.timing is None
    assert timing_of(tmp_path / "out").units == report.new_units


def test_clock_of_a_command_counts_its_start(corpus: Path, tmp_path: Path) -> None:
    clock = PhaseClock("imports")
    sleep(PAUSE)
    report = run_job(shard_job(), [str(corpus)], tmp_path / "out", LOCAL, clock=clock)
    assert report.timing is not None
    assert PAUSE <= report.timing.command["imports"] < report.timing.wall


def test_lost_workers_count_with_their_lives() -> None:
    timer = RunTimer()
    timer.begin_worker("a")
    timer.begin_worker("b")
    sleep(PAUSE)
    timer.worker_ready("b", {"codec": PAUSE / 2})
    timer.end_worker("a")
    timer.begin_unit(0, "here")
    timer.finish_unit({"reading": PAUSE / 4}, 10.0)
    timing = timer.timing()
    assert timing is not None
    assert timing.workers == 2
    assert sum(timing.worker_phases.values()) == pytest.approx(2 * PAUSE, rel=0.3)
    assert timing.worker_phases["codec"] == PAUSE / 2
    assert timing.worker_phases["imports"] >= PAUSE / 3


@pytest.mark.gpu
def test_gpu_time_is_measured_by_the_gpu(codec_folder: Path) -> None:
    from codectok import Codec
    from codectok.model.cuda_graph import GPUClock

    codec = Codec.from_pretrained(codec_folder, "cuda")
    samples = torch.randn(60 * codec.sample_rate)
    codec.encode(samples, codec.sample_rate)
    before, started = GPUClock.seconds, monotonic()
    for _ in range(5):
        codec.encode(samples, codec.sample_rate)
    assert 0 < GPUClock.seconds - before <= monotonic() - started
