"""Event logs and metrics files for tests."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

LABEL = re.compile(r'([A-Za-z_]+)="((?:[^"\\]|\\.)*)"')
Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]
SAMPLE = re.compile(r"([a-z_]+)\{(.*)\} (\S+)")


def log_file(folder: Path) -> Path:
    """The only log in a folder."""
    (path,) = folder.glob("*.jsonl")
    return path


def events_of(folder: Path, name: str | None = None) -> list[dict[str, Any]]:
    """Lines of the only log in a folder, of one event or of all; each has the common fields, in the order of time."""
    lines = [json.loads(line) for line in log_file(folder).read_bytes().splitlines()]
    times = [datetime.fromisoformat(line["time"]) for line in lines]
    assert times == sorted(times)
    assert all(list(line)[:3] == ["time", "event", "verb"] and line["time"].endswith("Z") for line in lines)
    return [line for line in lines if name in (None, line["event"])]


def metrics_of(folder: Path) -> Samples:
    """Samples of the only file of metrics in a folder, by name and labels."""
    (path,) = folder.glob("*.prom")
    return samples_of(path.read_text())


def samples_of(text: str) -> Samples:
    """Samples of a text in Prometheus' format by name and labels."""
    found: Samples = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            labels = tuple(sorted(LABEL.findall(match[2])))
            assert labels not in found.setdefault(match[1], {}), f"{line} twice"
            found[match[1]][labels] = float(match[3])
    return found


def value_of(samples: Samples, name: str, **labels: str) -> float:
    """The only sample of this name with these labels, and perhaps others."""
    (value,) = (value for found, value in samples[name].items() if labels.items() <= dict(found).items())
    return value
