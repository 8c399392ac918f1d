"""Helpers of the benchmarks: interleaved timing, memory, machine names, saved reports."""

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
from codectok.checkpoints.built_in import built_in_codec
from codectok.choices import Precision
from codectok.errors import CodectokError

RESULTS = Path(__file__).parent / "results"


def parser(description: str) -> argparse.ArgumentParser:
    """Create a parser with the options of every codec benchmark."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument(
        "--codec", default="distilcodec-v1", help="a preset (random weights), universal-small or a folder"
    )
    made.add_argument("--device", default="auto", help="auto, cpu or cuda")
    made.add_argument("--audio", type=Path, help="a folder of recordings; noise without it")
    made.add_argument("--seconds", type=float, help="audio to work on; 72 on a CPU, 7200 on a GPU")
    made.add_argument("--rounds", type=int, default=5, help="of which the median is shown")
    made.add_argument("--save", action="store_true", help="also write the output to benchmarks/results")
    return made


def load(name: str, device: str, dtype: Precision = "float32") -> Codec:
    """Load the built-in codec `name` or the one in the folder `name`, or create a random one of the preset `name`."""
    if built_in_codec(name) is not None or Path(name).is_dir():
        return Codec.from_pretrained(name, device, dtype)
    return Codec.from_config(name, device=device, dtype=dtype)


def variants(name: str, device: str) -> dict[str, Codec]:
    """Load a codec in every precision and with all kernels that the device has; the first one is float32."""
    exact = load(name, device)
    found = {"float32": exact}
    dtypes: list[Precision] = ["bfloat16"] if exact.device.type == "cpu" else ["tf32", "bfloat16"]
    for dtype in dtypes:
        made = load(name, device, dtype)
        if made.kernels == "triton":
            plain = Codec(made.header, made.network, device, dtype, kernels="torch")
            found |= {f"{dtype}, torch": plain, f"{dtype}, triton": made}
        else:
            found[dtype] = made
    return found


def audio_of(folder: Path | None, seconds: float, sample_rate: int) -> np.ndarray:
    """Concatenate the recordings in `folder`, repeated as needed, to mono float32 [n]; noise without a folder."""
    n_samples = round(seconds * sample_rate)
    if folder is None:
        return np.random.default_rng(0).normal(0, 0.1, n_samples).astype(np.float32)
    from codectok.audio.files import AUDIO_SUFFIXES, read_audio  # noise needs no library of files

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
    """Cut `waveform` into clips of 2 to 10 s, with evenly distributed lengths in mixed order."""
    lengths = np.random.default_rng(1).permutation(np.linspace(2, 10, 12))
    clips: list[np.ndarray] = []
    start = 0
    while start < len(waveform) - 2 * sample_rate:
        stop = start + round(lengths[len(clips) % len(lengths)] * sample_rate)
        clips.append(waveform[start:stop])
        start = stop
    return clips


def interleaved(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time `runs` in turn, so that drift of the machine's speed affects all alike; one warm-up round.

    Returns:
        Seconds of every round by name.
    """
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
    """Median over all rounds of the time of `name` divided by that of `other` in the same round."""
    return statistics.median(a / b for a, b in zip(times[name], times[other], strict=True))


def rates_table(title: str, runs: Mapping[str, Callable[[], object]], seconds: float, base: str, rounds: int) -> Table:
    """Table of the rates of `runs` over `seconds` of audio, and their ratio to the run `base`."""
    times = interleaved(runs, rounds)
    table = Table(title=title)
    for heading in ("way", "audio s/s", f"x {base}"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name in runs:
        rate = seconds / statistics.median(times[name])
        table.add_row(name, f"{rate:,.0f}", f"{1 / ratio(times, name, base):.2f}")
    return table


def peak_megabytes(run: Callable[[], object], device: torch.device) -> float | None:
    """Measure the peak memory of `run` beyond the memory held before it; None if unknown."""
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
    # Return freed memory to the system first: reusing it would hide allocations.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    reset.write_text("5")
    before = _status_kilobytes("VmRSS")
    run()
    return (_status_kilobytes("VmHWM") - before) * 1024 / 1e6


def product_rate(device: torch.device) -> float:
    """Measure the FLOP/s of a large float32 matrix product (median of five)."""
    x, y = (torch.randn(2048, 2048, device=device) for _ in range(2))
    times = interleaved({"product": lambda: x @ y}, 5)["product"]
    return 2 * 2048**3 / statistics.median(times)


def machine(device: torch.device) -> str:
    """Describe the hardware, torch version and date in one line."""
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
        """Write all output so far to `benchmarks/results/NAME.txt`."""
        RESULTS.mkdir(exist_ok=True)
        lines = [line.rstrip() for line in self.console.export_text().splitlines()]
        (RESULTS / f"{name}.txt").write_text("\n".join(lines) + "\n")


def _status_kilobytes(key: str) -> int:
    found = re.search(rf"{key}:\s*(\d+) kB", _read("/proc/self/status"))
    assert found is not None
    return int(found[1])


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""
