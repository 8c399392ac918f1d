"""Metrics of jobs on Ray, as Prometheus reads them from its machines."""

from __future__ import annotations

import os
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from socket import gethostname

import pytest

from codectok import InputError
from codectok.monitoring.series import JOB_SERIES, UNIT_TIME
from codectok.pipelines import NullProgress, RunOptions, UnitRecord, run_job
from codectok.pipelines.engine import ray_metrics
from tests.helpers.clusters import free_port, ray_head
from tests.helpers.events import Samples, events_of, samples_of, value_of
from tests.helpers.jobs import shard_job

# Ray's agents collect metrics every 10 s.
SCRAPE_SECONDS = 90.0

needs_agent = pytest.mark.skipif(
    not ray_metrics.is_served_here(),
    reason="Ray serves metrics with ray[default] only: pip install 'codectok[metrics]'",
)


class Scraper(NullProgress):
    """Waits after the last unit until Prometheus would find it."""

    def __init__(self, port: int) -> None:
        self.port, self.left = port, 0
        self.made = 0
        self.samples: Samples = {}
        self.notes: list[str] = []

    def planned(self, plan: object, done: object, to_do: object) -> None:
        self.left = len(to_do)  # type: ignore[arg-type]

    def finished(self, record: UnitRecord) -> None:
        self.left, self.made = self.left - 1, self.made + 1
        if not self.left:
            self.samples = self.wait_for(self.made)

    def note(self, message: str) -> None:
        self.notes.append(message)

    def scrape(self) -> Samples:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return samples_of("".join(f"{line}\n" for line in text.splitlines() if line.startswith("ray_codectok_")))

    def wait_for(self, units: int) -> Samples:
        deadline = time.monotonic() + SCRAPE_SECONDS
        while True:
            samples = self.scrape()
            found = sum(samples.get("ray_codectok_units_finished_total", {}).values())
            if found == units:
                return samples
            assert time.monotonic() < deadline, f"{found} of {units} units are served"
            time.sleep(1.0)


def check(samples: Samples, events: Path, output: Path) -> None:
    """Compare the series with the events of the same run."""
    finished = events_of(events, "unit_finished")
    tags = {"verb": "shard", "output": str(output), "part": "whole"}
    for name, total in (
        ("units_finished_total", len(finished)),
        ("audio_seconds_total", sum(line["audio_seconds"] for line in finished)),
        ("rows_total", sum(line["rows"] for line in finished)),
        ("output_bytes_total", sum(line["bytes"] for line in finished)),
        ("unit_seconds_count", len(finished)),
    ):
        assert value_of(samples, f"ray_codectok_{name}", node=gethostname(), **tags) == pytest.approx(total), name
    rejects = sum((Counter(line["rejects"]) for line in finished), Counter[str]())
    assert rejects
    for reason, count in rejects.items():
        assert value_of(samples, "ray_codectok_rejects_total", reason=reason, **tags) == count
    for name, value in (("units_left", 0), ("units_running", 0), ("units_waiting", 0), ("run_active", 1)):
        assert value_of(samples, f"ray_codectok_{name}", **tags) == value, name
    assert value_of(samples, "ray_codectok_workers", **tags) >= 1
    assert value_of(samples, "ray_codectok_speed_ratio", **tags) > 0
    served = {f"ray_{series.full_name}{'_count' * (series == UNIT_TIME)}" for series in JOB_SERIES}
    # Nothing failed, and there is no server; Ray has no counters of 0.
    silent = {f"ray_codectok_{name}" for name in ("units_failed_total", "units_retried_total", "workers_died_total")}
    assert served - silent - {"ray_codectok_busy_ratio"} <= samples.keys()


@needs_agent
@pytest.mark.cluster
def test_prometheus_reads_metrics_of_a_cluster(corpus: Path, tmp_path: Path) -> None:
    port = free_port()
    scraper = Scraper(port)
    with tempfile.TemporaryDirectory(prefix="head") as folder:
        environment = {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        with ray_head(Path(folder), environment, f"--metrics-export-port={port}") as address:
            options = RunOptions(address=address, max_rejects=1.0, log_dir=str(tmp_path / "log"))
            run_job(shard_job(), [str(corpus)], tmp_path / "out", options, scraper)
            check(scraper.samples, tmp_path / "log", tmp_path / "out")
            (served,) = events_of(tmp_path / "log", "metrics_served")
            assert [address.partition(f":{port}")[2] for address in served["addresses"]] == ["/metrics"]


@needs_agent
@pytest.mark.cluster
def test_prometheus_reads_metrics_of_a_ray_of_the_job(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv(ray_metrics.PORT_VARIABLE, str(port))
    scraper = Scraper(port)
    options = RunOptions(workers=2, max_rejects=1.0, log_dir=str(tmp_path / "log"))
    run_job(shard_job(), [str(corpus)], tmp_path / "out", options, scraper)
    check(scraper.samples, tmp_path / "log", tmp_path / "out")


@pytest.mark.usefixtures("ray_session")
def test_missing_packages_are_noted_if_metrics_are_asked_for(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics are passed on to Ray in any case, and the job does not depend on them."""
    monkeypatch.setattr(ray_metrics, "NEEDED_MODULES", ("no_such_package.exporter",))
    for port in (None, "8080"):
        scraper = Scraper(0)
        monkeypatch.setattr(scraper, "wait_for", lambda units: {})
        if port is not None:
            monkeypatch.setenv(ray_metrics.PORT_VARIABLE, port)
        options = RunOptions(workers=1, limit=1, max_rejects=1.0)
        run_job(shard_job(), [str(corpus)], tmp_path / f"out {port}", options, scraper)
        assert sum("ray[default]" in note for note in scraper.notes) == (port is not None)


@pytest.mark.parametrize("text", ["none", "0", "65536", "-1"])
def test_port_of_metrics_is_checked(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ray_metrics.PORT_VARIABLE, text)
    with pytest.raises(InputError, match=ray_metrics.PORT_VARIABLE):
        ray_metrics.metrics_port()
