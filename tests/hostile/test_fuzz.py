"""A short form of the fuzzer of hostile inputs: no finding among a few damaged inputs of each kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
KINDS = "tars,parquet,manifests,codecs,checkpoints"


def test_fuzzer_finds_nothing(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "fuzz_hostile.py"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script, "--mutations", "2", "--seconds", "3", "--seed", "1", "--kinds", KINDS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    for kind in KINDS.split(","):
        assert kind in done.stdout
