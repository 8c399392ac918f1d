"""Where the time of encoding and decoding goes: seconds of audio per second for each stage, on this machine's CPU.

Usage: python benchmarks/stages.py [PRESET ...]    (default: nano)
Compared with nothing: shares within one run. The weights are random, which changes no time.
"""

from __future__ import annotations

import statistics
import sys

import common
import torch
from rich.console import Console
from rich.table import Table

from codectok import Codec

SECONDS = 10.0
REPEATS = 5


@torch.inference_mode()
def measure(preset: str) -> dict[str, float]:
    """Seconds of each stage for a clip of `SECONDS`."""
    codec = Codec.from_config(preset, device="cpu")
    network, quantizer = codec.network, codec.network.quantizer
    waveform = torch.randn(1, round(SECONDS * codec.sample_rate)) * 0.1
    log_mel = codec.log_mel(waveform)
    features = quantizer.downsample(network.encoder(log_mel))
    search = quantizer.frame_encoder(reduced=False)
    codes = quantizer.encode(features)
    runs = {
        "mel": lambda: codec.log_mel(waveform),
        "encoder": lambda: quantizer.downsample(network.encoder(log_mel)),
        "search": lambda: search(features[0]),
        "lookup and decoder": lambda: network.decode(codes),
    }
    return {name: statistics.median(times) for name, times in common.interleaved(runs, REPEATS).items()}


def main() -> None:
    for preset in sys.argv[1:] or ["nano"]:
        stages = measure(preset)
        total = sum(stages.values())
        table = Table(title=f"{preset}: {SECONDS:g} s of audio, {torch.get_num_threads()} threads, median of {REPEATS}")
        for name in ("stage", "ms", "share", "audio s/s"):
            table.add_column(name, justify="left" if name == "stage" else "right")
        for name, seconds in stages.items():
            table.add_row(name, f"{seconds * 1e3:.1f}", f"{seconds / total:.0%}", f"{SECONDS / seconds:,.0f}")
        Console().print(table)


if __name__ == "__main__":
    main()
