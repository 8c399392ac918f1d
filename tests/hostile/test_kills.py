"""Kills at moments picked by changes on the disk: the same command again completes the output of an undisturbed run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def kill_jobs(folder: Path, *options: str) -> dict[str, dict[str, object]]:
    """Results of `benchmarks/kill_jobs.py` by verb and engine."""
    results = folder / "results.json"
    arguments = [sys.executable, "-m", "benchmarks.kill_jobs", "--json", str(results), *options]
    environment = {**os.environ, "TMPDIR": "/dev/shm" if Path("/dev/shm").is_dir() else str(folder)}
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return {f"{row['verb']} {row['engine']}".strip(): row for row in json.loads(results.read_text())}


def test_killed_commands_complete(tmp_path: Path) -> None:
    verbs = "shard,export sequences,export vocabulary,export tokenizer,export language-model,evaluate,train"
    rows = kill_jobs(tmp_path, "--kills", "8", "--engines", "local", "--seed", "7", "--verbs", verbs)
    assert len(rows) == 9
    for row in rows.values():
        assert row["kills"]
        assert row["runs"]
        assert not row["faults"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_often_killed_commands_complete(engine: str, tmp_path: Path) -> None:
    kills = {"local": "100", "ray": "20"}[engine]
    rows = kill_jobs(tmp_path, "--kills", kills, "--engines", engine, "--seed", "8", "--seconds", "1500")
    assert sum(int(str(row["kills"])) for row in rows.values()) >= 20
