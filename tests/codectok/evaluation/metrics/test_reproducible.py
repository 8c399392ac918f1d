"""A clip scored again, and in another process without a network, has the same figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from codectok.evaluation.metrics.base import Pair, Signal
from codectok.evaluation.metrics.registry import measure_pair, metric_name, metrics
from tests.helpers.audio import voice

ROOT = Path(__file__).parents[4]
RATE = 24_000
TWICE = """
import json, socket, sys

def refuse(*_, **__):
    raise AssertionError("a metric asked for the network")

socket.socket.connect = socket.getaddrinfo = refuse
from tests.codectok.evaluation.metrics.test_reproducible import figures
print(json.dumps([figures(reverse=True), figures()]))
"""


def figures(names: list[str] | None = None, reverse: bool = False) -> dict[str, float | None]:
    """Values of a noisy voice by all installed metrics."""
    clip = voice(3, RATE)
    noisy = (clip + np.random.default_rng(1).normal(0, 0.01, len(clip))).astype(np.float32)
    for samples in (clip, noisy):
        samples.flags.writeable = False  # as arrays that workers share
    pair = Pair(Signal(clip, RATE), Signal(noisy, RATE), "some words", "en")
    chosen = metrics(names=names)
    values, _ = measure_pair(chosen[::-1] if reverse else chosen, pair)
    return dict(sorted(values.items()))


def test_values_are_repeated() -> None:
    fast = ["mel_l1", "mel", "stft", "si_sdr", "loudness", "stoi", "estoi", "pesq"]
    installed = [name for name in fast if name in [metric_name(one) for one in metrics()]]
    first = figures(installed)
    assert None not in first.values()
    assert figures(installed) == first
    assert figures(installed, reverse=True) == first


@pytest.mark.slow
def test_all_values_are_repeated_in_another_process_without_network() -> None:
    first = figures()
    assert None not in first.values()
    assert figures() == first
    assert figures(reverse=True) == first
    one_core = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    other = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, cwd=ROOT, env=one_core)
    assert other.returncode == 0, other.stderr
    assert json.loads(other.stdout) == [first, first]
