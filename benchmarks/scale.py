"""Simulates jobs on clusters of a thousand machines: the driver's work is real, the workers are simulated.

Usage: python benchmarks/scale.py [--nodes 1000] [--units 10000000] [--unit-seconds 60] [--save]

Real are the stored plan, reading its units, the scheduler, and the costs of a call of Ray, of committing a unit and of
reading its record, which are measured first. Simulated are the workers: how long a unit takes is drawn from the
units of a real run of `shard`, scaled to `--unit-seconds`; machines fail and come back, some are slow, some attempts
hang. The driver is simulated as what it is, one thread: a worker waits for its next unit until the driver has time.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import soundfile
import torch
from rich.console import Console
from rich.table import Table
from simulated_cluster import NONE, Faults, SimulatedCluster, Totals

from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.folder import OutputFolder
from codectok.pipelines.engine.output.record_set import UnitRecords
from codectok.pipelines.engine.output.records import Counts, OutputFile, UnitRecord
from codectok.pipelines.engine.output.unit_files import part_name, record_name
from codectok.pipelines.engine.planning.header import PlanHeader
from codectok.pipelines.engine.planning.outlines import UNIT_SCHEMA
from codectok.pipelines.engine.planning.plan import SOURCE_SCHEMA, Plan, add_generation, load_plan
from codectok.pipelines.engine.progress import NullProgress
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.engine.scheduling.scheduler import Scheduler
from codectok.pipelines.shard.job import ShardJob
from codectok.pipelines.shard.options import ShardOptions
from codectok.sources.listing.arguments import Argument
from codectok.sources.listing.sources import ListingBuilder
from codectok.storage import LocalStorage

WORKERS_PER_NODE = 16
SAMPLES = 2000
UNIT_AUDIO_SECONDS = 3600.0
HEAVY_UNITS, HEAVINESS = 0.002, 3.0
CHUNK = 1_000_000
RECORDING_SECONDS = (5, 40)
FILES_PER_UNIT = 4  # part, counts of codes, rejects, record


@dataclass(frozen=True)
class Costs:
    """Seconds of the driver for a unit, and of one look at the calls.

    Attributes:
        read: to read a unit from the plan.
        call: to send it to an actor of Ray and take the answer.
        commit: to move its files to their places and write its record.
        record: to read its record at the end.
        record_bytes: memory of its record.
        listed: to list one of its files.
        wait: to ask Ray which calls of all workers have ended.
    """

    read: float
    call: float
    commit: float
    record: float
    record_bytes: float
    listed: float
    wait: float


class UnitTimes(NullProgress):
    """Notes the time between units."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = time.perf_counter()

    def finished(self, record: UnitRecord) -> None:
        """Note the time since the unit before."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now


def measured_times(folder: Path) -> npt.NDArray[np.float64]:
    """Run `shard`, and return the seconds of its units as multiples of their mean."""
    corpus = folder / "recordings"
    corpus.mkdir()
    generator = np.random.default_rng(0)
    for number in range(60):
        audio = generator.normal(0, 0.1, 24_000 * int(generator.integers(*RECORDING_SECONDS))).astype(np.float32)
        soundfile.write(corpus / f"{number:03d}.flac", audio, 24_000)
    times = UnitTimes()
    options = RunOptions(engine="local", max_rejects=1.0)
    run_job(ShardJob(ShardOptions(shard_seconds=20.0)), [str(corpus)], folder / "shards", options, times)
    found = np.array(times.seconds[1:])
    return found / found.mean()


def store_plan(storage: LocalStorage, units: int) -> None:
    """Store a plan of `units` units with a recording each, of which some are heavy."""
    argument = Argument(dataset="corpus", kind="folder")
    listing = ListingBuilder((argument,), {"corpus": "/corpus"}).build()
    heavy = np.random.default_rng(1).random(units) < HEAVY_UNITS
    unit_columns = {
        "unit": np.arange(units, dtype=np.int32),
        "split": pa.array(["train"]).take(pa.array(np.zeros(units, np.int32))),
        "first_source": np.arange(units),
        "n_sources": np.ones(units, np.int32),
        "estimated_seconds": np.where(heavy, UNIT_AUDIO_SECONDS * HEAVINESS, UNIT_AUDIO_SECONDS),
    }
    sources = pa.concat_tables([source_table(start, min(start + CHUNK, units)) for start in range(0, units, CHUNK)])
    header = PlanHeader(verb="tokenize", bytes_version=1, options={}, generations=())
    add_generation(storage, header, listing, sources, pa.table(unit_columns, schema=UNIT_SCHEMA))


def source_table(start: int, end: int) -> pa.Table:
    count = end - start
    columns: dict[str, pa.Array] = {field.name: pa.nulls(count, field.type) for field in SOURCE_SCHEMA}
    paths = [b"book-%06d/chapter-%08d.flac" % (number // 100, number) for number in range(start, end)]
    columns["path"] = pa.array(paths, pa.binary())
    columns["size"] = pa.array(np.full(count, 100_000_000))
    for name, value in (("dataset", "corpus"), ("kind", "audio")):
        columns[name] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), [value])
    return pa.table(columns, schema=SOURCE_SCHEMA)


class IdleActor:
    """Answers at once, as a worker whose unit takes no time, or after some time."""

    def run(self, unit: object, attempt: str, with_care: bool) -> UnitRecord:
        """Answer with a record."""
        return record_of(0)

    def sleep(self) -> None:
        """Block the calls behind this one."""
        time.sleep(60)


def record_of(unit: int) -> UnitRecord:
    """A record as `tokenize` writes it."""
    counts = Counts(inputs=100, input_seconds=3600.0, rows=100, seconds=3600.0, codes=337_500, rejects={"silent": 1})
    histogram = dict.fromkeys(range(30), 3)
    files = tuple(
        OutputFile(name=name, bytes=100_000, sha256="0" * 64)
        for name in (part_name(unit), f"_codectok/codes/{unit:06d}.parquet", f"rejects/{unit:06d}.parquet")
    )
    return UnitRecord(
        unit=unit, split="train", counts={"corpus": counts}, histograms={"seconds": histogram}, files=files
    )


def in_new_process(folder: Path) -> tuple[float, float]:
    """Load a plan in a new process; return the seconds, and the bytes by which the process has grown."""
    command = [sys.executable, __file__, "--load", str(folder)]
    seconds, size = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]
    return float(seconds), float(size)


def print_load(folder: Path) -> None:
    before, started = resident_bytes(), time.perf_counter()
    plan = load_plan(LocalStorage(folder), {})
    assert plan is not None, "it was stored"
    print(time.perf_counter() - started, resident_bytes() - before)


def measured_costs(folder: Path, plan: Plan, workers: int) -> Costs:
    """Measure the costs of the driver."""
    read = seconds_of(lambda: [plan.unit(number) for number in range(SAMPLES)]) / SAMPLES
    call, wait = costs_of_ray(plan, workers)
    storage = LocalStorage(folder / "output")
    output = OutputFolder(storage, "whole")
    records = [record_of(number) for number in range(SAMPLES)]
    for record in records:
        for file in record.files:
            path = storage.path / output.attempt(record.unit, 1) / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    commit = seconds_of(lambda: [output.commit(record, output.attempt(record.unit, 1)) for record in records])
    listed = seconds_of(storage.sizes) / (SAMPLES * FILES_PER_UNIT)
    texts = [storage.read(record_name(number)) for number in range(SAMPLES)]
    before = resident_bytes()
    found = UnitRecords()

    def keep() -> None:
        for text in texts:
            found.add(UnitRecord.model_validate_json(text))

    record = seconds_of(keep)
    size = (resident_bytes() - before) / SAMPLES
    return Costs(read, call, commit / SAMPLES, record / SAMPLES, size, listed, wait)


def costs_of_ray(plan: Plan, workers: int) -> tuple[float, float]:
    """Seconds of a call, and of a look at as many running calls as there are workers."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        actor: Any = ray.remote(IdleActor).remote()
        units = [plan.unit(number) for number in range(SAMPLES)]
        ray.get(actor.run.remote(units[0], "attempt", False))

        def call() -> None:
            ray.get([actor.run.remote(unit, "attempt", False) for unit in units])

        seconds = seconds_of(call) / SAMPLES
        blocked = [actor.sleep.remote()]
        blocked += [actor.run.remote(None, "attempt", False) for _ in range(workers - 1)]
        ray.wait(blocked, num_returns=workers, timeout=0)
        return seconds, seconds_of(lambda: ray.wait(blocked, num_returns=workers, timeout=0))
    finally:
        ray.shutdown()


def seconds_of(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def simulate(
    plan: Plan, nodes: int, times: npt.NDArray[np.float64], unit_seconds: float, driver_seconds: float, faults: Faults
) -> Totals:
    """Run all units of a plan on `nodes` machines."""
    units = len(plan.units)
    draws = np.random.default_rng(2).choice(times, units)
    seconds = draws * unit_seconds * plan.units.estimated_seconds / UNIT_AUDIO_SECONDS
    scheduler = Scheduler(range(units), plan.units.weights(range(units)), 6 * 3600.0)
    return SimulatedCluster(scheduler, nodes, WORKERS_PER_NODE, seconds, driver_seconds, faults, seed=3).run()


def print_report(console: Console, folder: Path, nodes: int, units: int, unit_seconds: float) -> None:
    """Print the whole report."""
    times = measured_times(folder)
    storage = LocalStorage(folder / "job")
    stored = seconds_of(lambda: store_plan(storage, units))
    loaded, held = in_new_process(storage.path)
    plan = load_plan(storage, {})
    assert plan is not None, "it was stored"
    workers = nodes * WORKERS_PER_NODE
    costs = measured_costs(folder, plan, workers)
    console.print(
        f"{common.machine(torch.device('cpu'))}\n{nodes:,} machines with {WORKERS_PER_NODE} workers each, {units:,}"
        f" units of {unit_seconds:g} s (those of a run of shard: {times.std():.0%} around their mean,"
        f" {HEAVY_UNITS:.1%} of them {HEAVINESS:g} times as long)\n"
        f"plan: stored within {stored:.0f} s, loaded within {loaded:.1f} s, {held / 1e6:,.0f} MB"
    )
    driver_seconds = costs.read + costs.call + costs.commit
    rows = {
        "no faults": simulate(plan, nodes, times, unit_seconds, driver_seconds, NONE),
        "faults": simulate(plan, nodes, times, unit_seconds, driver_seconds, Faults()),
    }
    console.print(runs_table(rows))
    print_limits(console, costs, rows["faults"], workers, units, unit_seconds)


def runs_table(rows: Mapping[str, Totals]) -> Table:
    """Table of simulated runs."""
    table = Table(title="simulated runs")
    for name in (
        "",
        "makespan, h",
        "over ideal",
        "us a unit in the scheduler",
        "driver busy",
        "machines lost",
        "work lost",
    ):
        table.add_column(name, justify="right")
    table.add_column("units run twice", justify="right")
    for name, totals in rows.items():
        table.add_row(
            name,
            f"{totals.makespan / 3600:.2f}",
            f"{totals.capacity / totals.work:.3f}",
            f"{totals.scheduling / totals.units * 1e6:.1f}",
            f"{totals.driver / totals.makespan:.0%}",
            f"{totals.losses:,}",
            f"{totals.lost_work / totals.work:.2%}",
            f"{totals.copies:,}",
        )
    return table


def print_limits(console: Console, costs: Costs, totals: Totals, workers: int, units: int, unit_seconds: float) -> None:
    """Print the price of a fault, the costs of the driver, and what ends first in larger jobs."""
    console.print(
        f"A lost machine costs {totals.lost_work / max(1, totals.losses) / 60:.1f} minutes of work of a worker"
        f" ({WORKERS_PER_NODE} units in the middle), besides the time until another one takes its place."
    )
    driver = {"read the unit": costs.read, "call of Ray": costs.call, "commit": costs.commit}
    scheduling = totals.scheduling / totals.units
    whole = sum(driver.values()) + scheduling
    told = ", ".join(f"{name} {seconds * 1e6:.0f}" for name, seconds in driver.items())
    console.print(
        f"Driver, microseconds a unit: {told}, scheduler and simulation {scheduling * 1e6:.0f}; a look at {workers:,}"
        f" running calls takes {costs.wait * 1e3:.1f} ms."
    )
    console.print(
        f"Beyond: the driver makes {1 / whole:,.0f} units a second, so that {unit_seconds / whole:,.0f} workers with"
        f" units of {unit_seconds:g} s keep it busy; longer units allow more. The records of {units:,} units take"
        f" {costs.record_bytes * units / 1e9:.1f} GB; a run that resumes lists {units * FILES_PER_UNIT:,} files"
        f" ({costs.listed * units * FILES_PER_UNIT / 60:.0f} minutes on a local disk) and reads the records"
        f" ({costs.record * units / 60:.0f} minutes besides the disk)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulates jobs on large clusters.")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--units", type=int, default=10_000_000)
    parser.add_argument("--unit-seconds", type=float, default=60.0, help="mean time of a unit on a worker")
    parser.add_argument("--save", action="store_true", help="also write the output to benchmarks/results")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load is not None:
        print_load(options.load)
        return
    report = common.Report()
    with tempfile.TemporaryDirectory() as name:
        print_report(report.console, Path(name), options.nodes, options.units, options.unit_seconds)
    if options.save:
        report.save("scale-cpu")


if __name__ == "__main__":
    main()
