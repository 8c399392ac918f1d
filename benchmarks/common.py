"""What the benchmarks share: interleaved timing, memory, the machine's name, saving what was printed."""

from __future__ import annotations

import argparse
import ctypes
import datetime
import gc
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from codectok import Codec
from codectok.audio.files import AUDIO_SUFFIXES, read_audio
from codectok.device import Precision
from codectok.errors import CodectokError

RESULTS = Path(__file__).parent / "results"


def parser(description: str) -> argparse.ArgumentParser:
    """Options that every benchmark of a codec has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--codec", default="distilcodec-v1", help="a preset (random weights) or a folder of a codec")
    made.add_argument("--device", default="auto", help="auto, cpu or cuda")
    made.add_argument("--audio", type=Path, help="a folder of recordings; noise without it")
    made.add_argument("--seconds", type=float, help="audio to work on; 72 on a CPU, 7200 on a GPU")
    made.add_argument("--rounds", type=int, default=5, help="of which the median is shown")
    made.add_argument("--save", action="store_true", help="also write what is printed to benchmarks/results")
    return made


def load(name: str, device: str, dtype: Precision = "float32") -> Codec:
    """The codec in the folder `name`, or a random one of that preset."""
    if Path(name).is_dir():
        return Codec.from_pretrained(name, device, dtype)
    return Codec.from_config(name, device=device, dtype=dtype)


def audio_of(folder: Path | None, seconds: float, sample_rate: int) -> np.ndarray:
    """Mono float32 [n]: the recordings in `folder` one after the other, repeated as often as needed, or noise."""
    n_samples = round(seconds * sample_rate)
    if folder is None:
        return np.random.default_rng(0).normal(0, 0.1, n_samples).astype(np.float32)
    found: list[np.ndarray] = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES):
        try:
            found.append(read_audio(path, sample_rate))
        except CodectokError:
            continue
        if sum(map(len, found)) >= n_samples:
            break
    return np.resize(np.concatenate(found), n_samples)


def clips_of(waveform: np.ndarray, sample_rate: int) -> list[np.ndarray]:
    """Clips of 2 to 10 s, of evenly spread lengths in mixed order."""
    lengths = np.random.default_rng(1).permutation(np.linspace(2, 10, 12))
    clips: list[np.ndarray] = []
    start = 0
    while start < len(waveform) - 2 * sample_rate:
        stop = start + round(lengths[len(clips) % len(lengths)] * sample_rate)
        clips.append(waveform[start:stop])
        start = stop
    return clips


def interleaved(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each of `runs`, taken in turn, so that a machine whose speed wanders is fair to all; one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                times[name].append(time.perf_counter() - started)
    return times


def ratio(times: Mapping[str, list[float]], name: str, other: str) -> float:
    """Median over the rounds of how many times as long `name` took as `other` in the same round."""
    return statistics.median(a / b for a, b in zip(times[name], times[other], strict=True))


def rates_table(title: str, runs: Mapping[str, Callable[[], object]], seconds: float, base: str, rounds: int) -> Table:
    """Rates of `runs` over so many seconds of audio, and how they compare with the one called `base`."""
    times = interleaved(runs, rounds)
    table = Table(title=title)
    for heading in ("way", "audio s/s", f"x {base}"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name in runs:
        rate = seconds / statistics.median(times[name])
        table.add_row(name, f"{rate:,.0f}", f"{1 / ratio(times, name, base):.2f}")
    return table


def peak_megabytes(run: Callable[[], object], device: torch.device) -> float | None:
    """Most memory that `run` held at once beyond what was held before; None where that cannot be told."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_reserved()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_reserved() - before) / 1e6
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    # Memory that was freed and kept for later would hide what is taken from it.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    reset.write_text("5")
    before = _status_kilobytes("VmRSS")
    run()
    return (_status_kilobytes("VmHWM") - before) * 1024 / 1e6


def product_rate(device: torch.device) -> float:
    """FLOP/s of a large float32 product, the median of five."""
    x, y = (torch.randn(2048, 2048, device=device) for _ in range(2))
    times = interleaved({"product": lambda: x @ y}, 5)["product"]
    return 2 * 2048**3 / statistics.median(times)


def machine(device: torch.device) -> str:
    """One line on where and with what something was measured."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        model = re.search(r"model name\s*: (.+)", _read("/proc/cpuinfo"))
        hardware = f"{model[1] if model else platform.machine()}, {torch.get_num_threads()} threads"
    return f"{hardware}, torch {torch.__version__}, {datetime.date.today().isoformat()}"


class Report:
    """A console whose output can be saved."""

    def __init__(self) -> None:
        self.console = Console(record=True, width=118)

    def save(self, name: str) -> None:
        """Write everything printed so far to `benchmarks/results/NAME.txt`."""
        RESULTS.mkdir(exist_ok=True)
        lines = [line.rstrip() for line in self.console.export_text().splitlines()]
        (RESULTS / f"{name}.txt").write_text("\n".join(lines) + "\n")


def _status_kilobytes(key: str) -> int:
    found = re.search(rf"{key}:\s*(\d+) kB", _read("/proc/self/status"))
    assert found is not None
    return int(found[1])


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""
