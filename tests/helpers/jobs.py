"""Jobs, commands and digests for tests of jobs."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from codectok.pipelines.engine.job import Job
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.run import JobReport, run_job
from codectok.pipelines.shard.job import ShardJob
from codectok.pipelines.shard.options import ShardOptions
from codectok.pipelines.tokenize.job import TokenizeJob
from codectok.pipelines.tokenize.options import TokenizeOptions

# Half of the corpus of the tests is broken on purpose.
LOCAL = RunOptions(engine="local", max_rejects=1.0)
UNIT_SECONDS = 15.0


def shard_job(**options: Any) -> ShardJob:
    return ShardJob(ShardOptions(**{"shard_seconds": UNIT_SECONDS, **options}))


def tokenize_job(codec_folder: Path) -> TokenizeJob:
    return TokenizeJob(TokenizeOptions(str(codec_folder), device="cpu", part_seconds=UNIT_SECONDS))


def shard_command(corpus: Path, output: Path, *options: str) -> list[str]:
    return [*_command("shard", corpus, output), "--shard-seconds", str(UNIT_SECONDS), *options]


def tokenize_command(codec_folder: Path, corpus: Path, output: Path, *options: str) -> list[str]:
    own = ["--codec", str(codec_folder), "--device", "cpu", "--part-seconds", str(UNIT_SECONDS)]
    return [*_command("tokenize", corpus, output), *own, *options]


def _command(verb: str, corpus: Path, output: Path) -> list[str]:
    return [sys.executable, "-m", "codectok", verb, str(corpus), str(output), "--max-rejects", "1"]


def run(job: Job, source: Path | str, output: Path | str, options: RunOptions = LOCAL) -> JobReport:
    return run_job(job, [str(source)], output, options)


def digests(folder: Path) -> dict[str, str]:
    """Hash of every file by name, except locks and files about runs, which name processes and times."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(content_of(path)).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {"locks", "runs"} & {*path.relative_to(folder).parts}
    }


def content_of(path: Path) -> bytes:
    """Contents of a file; of `stats.json` without the times of the run."""
    return without_times(path.name, path.read_bytes())


def without_times(name: str, data: bytes) -> bytes:
    """Contents of the file `name`; of `stats.json` without the times of the run."""
    if name.rpartition("/")[2] != "stats.json":
        return data
    statistics = json.loads(data)
    statistics.pop("timing", None)
    return json.dumps(statistics).encode()


def rejects(folder: Path) -> list[dict[str, object]]:
    return [
        row
        for path in sorted((folder / "_codectok" / "rejects").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
