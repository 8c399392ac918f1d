"""The text format of metrics, as Prometheus' own parser reads it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from codectok import InputError
from codectok.monitoring.events import (
    BusyMeasured,
    Noted,
    RunEnded,
    StepLogged,
    UnitFailed,
    UnitFinished,
    UnitRetried,
    UnitsPlanned,
    UnitStarted,
    WorkerDied,
    WorkerEnded,
    WorkerStarted,
)
from codectok.monitoring.metrics import RunMetrics
from codectok.monitoring.monitor import Monitor
from codectok.monitoring.series import ALL_SERIES, RUN_TAGS, UNIT_TIME, MetricValues
from tests.helpers.events import metrics_of, samples_of, value_of

HOSTILE = 'a "quoted" \\ path\nof two lines, {with} = braces #'


def worked() -> MetricValues:
    """Values of a job with a bit of everything, on an output with a hostile name."""
    values = MetricValues()
    metrics = RunMetrics(values, "tokenize", HOSTILE, "part-1-of-2")
    metrics.emit(UnitsPlanned(9, 1, 4, 100.0, {}))
    for worker in (1, 2):
        metrics.emit(WorkerStarted(worker, f"node-{worker}", 1.0))
    for unit in range(3):
        metrics.emit(UnitStarted(unit, "node-1", 1))
    metrics.emit(UnitFinished(0, "node-1", 0.5, 60.0, 7, 0, 100, {"silent": 2}))
    metrics.emit(UnitFinished(1, "node-2", 4000.0, 30.0, 1, 0, 50, {"silent": 1, "empty": 1}))
    metrics.emit(UnitRetried(2, "node-1", "it was tired"))
    metrics.emit(WorkerEnded(1, "node-1", 3.0))
    metrics.emit(WorkerDied(1, "node-1", ""))
    metrics.emit(BusyMeasured(0.25))
    metrics.emit(Noted("a note"))
    metrics.emit(UnitFailed(2, "it was tired", False))
    metrics.emit(StepLogged(7, {"generator": 1.5, "broken": math.nan, "endless": math.inf}))
    return values


def test_events_become_metrics() -> None:
    samples = samples_of(worked().exposition())
    for name, value in (
        ("units_left", 1), ("units_running", 0), ("units_waiting", 1), ("workers", 1), ("workers_died_total", 1),
        ("units_retried_total", 1), ("units_failed_total", 1), ("busy_ratio", 0.25), ("notes_total", 1),
        ("run_active", 1), ("train_step", 7),
    ):  # fmt: skip
        assert value_of(samples, f"codectok_{name}", part="part-1-of-2") == value, name
    assert value_of(samples, "codectok_rejects_total", reason="silent") == 3
    assert value_of(samples, "codectok_audio_seconds_total", node="node-2") == 30
    assert value_of(samples, "codectok_unit_seconds_sum", node="node-2") == 4000
    below = {"le": "3600.0", "node": "node-2"}, {"le": "7200.0", "node": "node-2"}
    assert [value_of(samples, "codectok_unit_seconds_bucket", **labels) for labels in below] == [0, 1]


def test_metrics_of_an_ended_run_say_so() -> None:
    values = MetricValues()
    metrics = RunMetrics(values, "shard", "out", "whole")
    metrics.emit(UnitsPlanned(2, 0, 2, 1.0, {}))
    metrics.emit(UnitStarted(0, "here", 1))
    metrics.emit(RunEnded("interrupted", "", 1.0, {}))
    samples = samples_of(values.exposition())
    for name, value in (("run_active", 0), ("units_running", 0), ("units_left", 2)):
        assert value_of(samples, f"codectok_{name}") == value


def test_parser_of_prometheus_reads_all_values() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    values = worked()
    families = {family.name: family for family in parser.text_string_to_metric_families(values.exposition())}
    for (series, tags), number in values.numbers.items():
        family = families[series.full_name.removesuffix("_total")]
        assert (family.type, family.documentation) == (series.kind, series.help)
        labels = dict(zip(series.tag_keys, tags, strict=True))
        (found,) = (sample.value for sample in family.samples if sample.labels == labels)
        assert found == number or math.isnan(found) == math.isnan(number) is True
        assert {sample.name for sample in family.samples} == {series.full_name}
    histogram = families[UNIT_TIME.full_name]
    assert histogram.type == "histogram"
    assert {sample.labels["output"] for sample in histogram.samples} == {HOSTILE}
    ends = [sample for sample in histogram.samples if sample.labels.get("le") == "+Inf"]
    counts = [sample for sample in histogram.samples if sample.name.endswith("_count")]
    assert [end.value for end in ends] == [count.value for count in counts] == [1.0, 1.0]


def test_names_follow_the_rules_of_prometheus() -> None:
    names = [series.full_name for series in ALL_SERIES]
    assert len(set(names)) == len(names)
    for series in ALL_SERIES:
        assert series.full_name.startswith("codectok_")
        assert series.full_name.endswith("_total") == (series.kind == "counter")
        # Prometheus sets these itself, or has them for histograms.
        assert not {"job", "instance", "le", "quantile"} & {*series.tag_keys}
        assert series.tag_keys[: len(RUN_TAGS)] == RUN_TAGS
        assert bool(series.bounds) == (series.kind == "histogram")
        assert series.help.endswith(".")


def test_runs_of_other_outputs_have_other_files(tmp_path: Path) -> None:
    """The collector refuses two files with the same series, so that a run replaces the file of the one before it."""
    log = str(tmp_path / "log")
    for output, part in (("a", "whole"), ("b", "whole"), ("a", "part-1-of-2"), ("a", "whole")):
        monitor = Monitor("shard", str(tmp_path / output), part, log, print)
        monitor.run("shard").emit(Noted(f"{output} {part}"))
        monitor.close()
    files = sorted((tmp_path / "log").glob("*.prom"))
    assert len(files) == 3
    together = samples_of("".join(file.read_text() for file in files))  # refuses a series twice
    assert len(together["codectok_notes_total"]) == 3
    assert len(list((tmp_path / "log").glob("*.jsonl"))) == 4


def test_metrics_that_cannot_be_replaced_are_noted_once(tmp_path: Path) -> None:
    notes: list[str] = []
    monitor = Monitor("shard", str(tmp_path / "out"), "whole", str(tmp_path / "log"), notes.append)
    run = monitor.run("shard")
    (file,) = (tmp_path / "log").glob("*.prom")
    file.unlink()
    file.mkdir()
    (file / "in-the-way").write_text("")
    for _ in range(2):
        monitor.refresh(now=True)
    (note,) = notes
    assert "the run continues" in note
    (file / "in-the-way").unlink()
    file.rmdir()
    run.emit(Noted("a note"))
    monitor.close()
    assert value_of(metrics_of(tmp_path / "log"), "codectok_notes_total") == 1


def test_log_in_the_output_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for output, log in (
        ("out", "out"),
        ("out", "out/log"),
        ("./out/", "out/../out/log"),
        ("memory://a", "memory://a/log"),
    ):
        with pytest.raises(InputError, match="lies in the output"):
            Monitor("shard", output, "whole", log, print)
    assert not (tmp_path / "out").exists()
    Monitor("shard", "out", "whole", "out-log", print).close()
    Monitor("shard", "memory://a", "whole", "memory://a-log", print).close()
