"""Measures time and memory to plan a million files from a folder or a manifest, and to recognize a finished job.

Usage: python benchmarks/plan.py [--files 1000000] [--save]

The job writes one row for each file without opening it, so that only the engine's work is measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import common
import pyarrow as pa
import torch

from codectok.pipelines import RunOptions, TableJob, Unit, UnitOutput, run_job
from codectok.sources.kinds import BYTES_PER_SECOND

FILES_IN_FOLDER = 1000
FILE_BYTES = 250  # counts as 1/180 of a second: about 1,800 files in a unit
ROW_SECONDS = FILE_BYTES / BYTES_PER_SECOND[".flac"]


SCHEMA = pa.schema([("path", pa.string()), ("size", pa.int64())])


def names(unit: Unit, output: UnitOutput) -> Iterator[Mapping[str, object]]:
    """Yield name and size of each file."""
    for source in unit.sources:
        output.read(source.dataset)
        output.keep(source.dataset, 0.0)
        yield {"path": source.name, "size": source.size}


def make_files(folder: Path, count: int) -> None:
    for start in range(0, count, FILES_IN_FOLDER):
        part = folder / f"{start // FILES_IN_FOLDER:06d}"
        part.mkdir()
        for number in range(start, min(count, start + FILES_IN_FOLDER)):
            (part / f"utterance-{number:09d}.flac").write_bytes(b"x" * FILE_BYTES)


def write_manifest(path: Path, count: int) -> None:
    with path.open("w") as file:
        for number in range(count):
            row = {
                "path": f"in/{number // FILES_IN_FOLDER:06d}/utterance-{number:09d}.flac",
                "start": 0.0,
                "end": ROW_SECONDS,
                "id": f"utterance-{number:09d}",
                "text": f"the words of utterance number {number} in a corpus",
                "speaker": f"speaker-{number % 1000:03d}",
                "language": "en",
            }
            file.write(json.dumps(row) + "\n")


def run_once(folder: str, output: str, limit: int | None) -> None:
    """Time one run in a new process."""
    started = time.perf_counter()
    job = TableJob("names", names, SCHEMA, unit_seconds=10.0)  # about 1,800 files in a unit
    report = run_job(job, [folder], output, RunOptions(engine="local", limit=limit))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{seconds:8.2f} s, at most {peak:.2f} GB in memory, {report.summary.units:,} units", end="")


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of planning.")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--save", action="store_true", help="also write the printed table to benchmarks/results")
    parser.add_argument("--once", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        folder, output, limit = options.once
        run_once(folder, output, int(limit) or None)
        return
    report = common.Report()
    report.console.print(f"{common.machine(torch.device('cpu'))}\n{options.files:,} files")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "in"
        folder.mkdir()
        make_files(folder, options.files)
        manifest = Path(temporary) / "list.jsonl"
        write_manifest(manifest, options.files)
        for source in (folder, manifest):
            report.console.print("folder" if source == folder else "manifest")
            for name, limit in (("plan, and 1 unit", 1), ("all the others", 0), ("again, finished", 0)):
                command = [
                    sys.executable,
                    __file__,
                    "--once",
                    str(source),
                    f"{temporary}/out-{source.name}",
                    str(limit),
                ]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                report.console.print(f"  {name:16} {done.stdout}")
    if options.save:
        report.save("plan-cpu")


if __name__ == "__main__":
    main()
