"""Compares the speed of exports with a script over JSON lines and with `datasets.map`, and measures their memory.

Usage: python benchmarks/export.py [--tokens 8000000] [--rounds 3] [--large TOKENS --folder FOLDER] [--save]

All ways make the same ids of the same clips on one core: offset, marks around audio, end of sequence, and sequences of
8,192 tokens (next-fit). The script reads JSON lines, appends lists of Python, and writes an array; `datasets.map` reads
the token table (already converted to Arrow, which is not counted), adds offset and marks with numpy, packs in a second
map, and writes Parquet. It packs batches of 1,000 rows, so that its sequences end elsewhere; the ids are equal.
Each way has a process of its own, since the memory that one leaves behind would slow the next. Ratios compare
processor time, which other programs on the machine change least: an export beside the faster of the ways that write the
same form. `export megatron` writes a list of documents, too, which the others do not.

With --large, a table of TOKENS random codes, and one of half as many, are exported by the command line; the peak memory
of each export is shown.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from export_inputs import Inputs, write_inputs, write_table
from export_ways import LENGTH, OURS, map_datasets, ours, script_to_binary, script_to_parquet
from rich.table import Table

# Ways that write the same form.
SAME_FORM = {
    "export sequences": ("script, to Parquet", "datasets.map, to Parquet"),
    "export megatron": ("script, to an array", "datasets.map, to Parquet"),
}
TASKS = ("audio", "tts")


def ids_in(output: Path) -> np.ndarray:
    """All ids of an output, one sequence behind the other."""
    binary = sorted(path for path in output.glob("*.bin") if path.name != "lengths.bin")
    if binary:
        return np.concatenate([np.fromfile(path, np.int32) for path in binary])
    tables = [pq.read_table(path, columns=["input_ids"]) for path in sorted(output.glob("*.parquet"))]
    return pa.concat_tables(tables)["input_ids"].combine_chunks().flatten().to_numpy().astype(np.int32)


@dataclass(frozen=True)
class Time:
    """Seconds of a run: on the wall clock, of the processor, and of the processor in units alone."""

    wall: float
    processor: float
    units: float


def run_once(write: Callable[[Path], float | None], output: Path) -> Time:
    """Write to the new folder `output`; an export returns the share of the command that its units take."""
    shutil.rmtree(output, ignore_errors=True)
    gc.collect()
    started = time.perf_counter(), time.process_time()
    share = write(output)
    wall, processor = time.perf_counter() - started[0], time.process_time() - started[1]
    return Time(wall, processor, processor * (1.0 if share is None else share))


def use_one_core() -> None:
    """Keep this process and the threads of its libraries on one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    torch.set_num_threads(1)
    pa.set_cpu_count(1)


def measure(ways: dict[str, Callable[[Path], float | None]], work: Path, rounds: int) -> dict[str, list[Time]]:
    """Run all ways in turn, each in its process, after one round to warm up."""
    times: dict[str, list[Time]] = {name: [] for name in ways}
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"), initializer=use_one_core))
            for name in ways
        }
        for number in range(rounds + 1):
            for name, write in ways.items():
                found = processes[name].submit(run_once, write, work / name).result()
                if number:
                    times[name].append(found)
    return times


def ratio(times: dict[str, list[Time]], name: str, other: str, units: bool) -> float:
    """Median over all rounds of the processor time of `other` divided by that of `name` in the same round."""
    pairs = zip(times[name], times[other], strict=True)
    return statistics.median(theirs.processor / (own.units if units else own.processor) for own, theirs in pairs)


def rates(inputs: Inputs, task: str, work: Path, rounds: int) -> Table:
    """Time all ways in turn, and check that all have made the same ids."""
    ways: dict[str, Callable[[Path], float | None]] = {name: partial(ours, inputs, task, name) for name in OURS}
    ways |= {
        "script, to Parquet": partial(script_to_parquet, inputs, task),
        "script, to an array": partial(script_to_binary, inputs, task),
        "datasets.map, to Parquet": partial(map_datasets, inputs, task),
    }
    times = measure(ways, work, rounds)
    expected = ids_in(work / "export sequences")
    for name in ways:
        assert np.array_equal(ids_in(work / name), expected), f"{name} has made other ids"
    table = Table(title=f"--task {task}: {len(expected):,} ids, one core, median of {rounds}", title_justify="left")
    for heading in ("way", "ids/s", "by processor time", "in units", "faster than", "x", "x in units"):
        table.add_column(heading, justify="left" if heading in ("way", "faster than") else "right")
    for name in ways:
        wall, processor, units = (
            f"{len(expected) / statistics.median(getattr(run, clock) for run in times[name]):,.0f}"
            for clock in ("wall", "processor", "units")
        )
        if name in OURS:
            same = SAME_FORM[name]
            fastest = min(same, key=lambda other: statistics.median(run.processor for run in times[other]))
            found = [f"{ratio(times, name, fastest, alone):.1f}" for alone in (False, True)]
            table.add_row(name, wall, processor, units, fastest, *found)
        else:
            table.add_row(name, wall, processor, "", "", "", "")
    return table


def peak_of(arguments: list[str]) -> tuple[float, float]:
    """Run a command of codectok, and return its seconds and its peak memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "codectok", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e6


def memory(n_tokens: int, work: Path) -> Table:
    """Export tables of `n_tokens` and of half as many, and show the peak memory of each command."""
    table = Table(title="Peak memory of the command, one worker in its process", title_justify="left")
    for heading in ("command", "codes", "files", "MB on disk", "seconds", "peak MB"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    for count in (n_tokens // 2, n_tokens):
        n_codes = write_table(work / "large", count)
        files = list((work / "large").iterdir())
        size = sum(file.stat().st_size for file in files) / 1e6
        for name in OURS:
            arguments = [*name.split(), str(work / "large"), str(work / "out"), "--packing", "next-fit"]
            seconds, peak = peak_of([*arguments, "--length", str(LENGTH), "--engine", "local"])
            table.add_row(name, f"{n_codes:,}", str(len(files)), f"{size:,.0f}", f"{seconds:,.0f}", f"{peak:,.0f}")
            shutil.rmtree(work / "out")
        shutil.rmtree(work / "large")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of exports.")
    parser.add_argument("--tokens", type=int, default=8_000_000, help="codes to export")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is shown")
    parser.add_argument("--large", type=int, help="measure the memory for this many codes instead")
    parser.add_argument("--folder", type=Path, help="where inputs and outputs are written; a temporary one by default")
    parser.add_argument("--save", action="store_true", help="also write the output to benchmarks/results")
    options = parser.parse_args()
    use_one_core()
    report = common.Report()
    report.console.print(common.machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        work = Path(folder)
        if options.large:
            report.console.print(memory(options.large, work))
        else:
            inputs = write_inputs(work, options.tokens)
            for task in TASKS:
                report.console.print(rates(inputs, task, work / task, options.rounds))
    if options.save:
        report.save("export-memory-cpu" if options.large else "export-cpu")


if __name__ == "__main__":
    main()
