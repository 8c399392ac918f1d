"""Measures the speed and memory of decoding, and its difference from decoding every clip whole.

Usage: python benchmarks/decode.py [--codec PRESET|DIR] [--device cuda] [--audio FOLDER] [--save]

Compares decoding in windows, and by kernels of Triton in packs, with the network applied to each whole clip in float32,
and with batches padded to the longest clip, on the codes of clips of 2-10 s and of one long file. Differences are
between samples in [-1, 1].
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import common
import torch
from rich.table import Table
from torch import Tensor, nn

from codectok import Codec
from codectok.device import inference

PADDED_BATCH = 8


def decode_whole(codec: Codec, many: list[Tensor]) -> list[Tensor]:
    """Decode each clip as a whole to samples [n]."""
    with inference(codec.device, tf32=False, autocast=False):
        return [codec.network.decode(codes.unsqueeze(0).to(codec.device))[0].cpu() for codes in many]


def decode_padded(codec: Codec, many: list[Tensor]) -> list[Tensor]:
    """Decode batches of clips, padded with code 0 to the longest, to samples [n] of each clip."""
    found: list[Tensor] = []
    for first in range(0, len(many), PADDED_BATCH):
        batch = many[first : first + PADDED_BATCH]
        padded = nn.utils.rnn.pad_sequence(batch, batch_first=True)
        with inference(codec.device, tf32=False, autocast=False):
            samples = codec.network.decode(padded.to(codec.device)).cpu()
        found += [row[: len(codes) * codec.frame_size] for row, codes in zip(samples, batch, strict=True)]
    return found


def flops_per_frame(codec: Codec) -> float:
    """Count the floating-point operations of convolutions and linear layers for one code frame."""
    counted: list[float] = []

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        # A transposed convolution applies its kernel at each input, any other layer at each output.
        places = inputs[0] if isinstance(module, nn.ConvTranspose1d) else output
        steps = places.shape[-2] if isinstance(module, nn.Linear) else places.shape[-1]
        counted.append(2.0 * steps * module.weight.numel())

    layers = [m for m in codec.network.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.ConvTranspose1d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with inference(codec.device, tf32=False, autocast=False):
        codec.network.decode(torch.zeros(1, 32, codec.n_codebooks, dtype=torch.long, device=codec.device))
    for hook in hooks:
        hook.remove()
    return sum(counted) / 32


def main() -> None:
    options = common.parser("Speed, memory and exactness of decoding.").parse_args()
    codecs = common.variants(options.codec, options.device)
    exact = codecs["float32"]
    on_gpu = exact.device.type == "cuda"
    seconds = options.seconds or (1200.0 if on_gpu else 24.0)
    audio = common.audio_of(options.audio, seconds, exact.sample_rate)
    clips = common.clips_of(audio, exact.sample_rate)
    work = {"clips of 2-10 s": exact.encode_batch(clips, exact.sample_rate)}
    work["one long file"] = [exact.encode(audio, exact.sample_rate)]

    report = common.Report()
    report.console.print(f"{exact.config.name}, {exact.header.origin}\n{common.machine(exact.device)}")
    report.console.print(f"audio: {'recordings' if options.audio else 'noise'}")
    table = Table(title=f"{seconds:,.0f} s of audio, median of {options.rounds}")
    for heading in ("audio", "way", "audio s/s", "x whole", "of product rate", "peak MB", "largest difference"):
        table.add_column(heading, justify="left" if heading in ("audio", "way") else "right")
    flops, rate = flops_per_frame(exact), common.product_rate(exact.device)
    table.caption = f"{flops / 1e9:.3f} GFLOP a frame; large float32 products reach {rate / 1e9:,.0f} GFLOP/s"
    for name, many in work.items():
        runs: dict[str, Callable[[], list[Tensor]]] = {
            "whole, float32": lambda many=many: decode_whole(exact, many),
            "padded, float32": lambda many=many: decode_padded(exact, many),
        }
        for dtype, codec in codecs.items():
            runs[f"ours, {dtype}"] = lambda codec=codec, many=many: codec.decode_batch(many)
        times = common.interleaved(runs, options.rounds)
        whole = decode_whole(exact, many)
        for way, run in runs.items():
            results: list[Tensor] = []
            peak = common.peak_megabytes(lambda run=run, results=results: results.extend(run()), exact.device)
            total = sum(map(len, results)) / exact.sample_rate
            differences = [float((a - b).abs().max()) for a, b in zip(results, whole, strict=True)]
            speed = total / statistics.median(times[way])
            table.add_row(
                name,
                way,
                f"{speed:,.1f}",
                f"{1 / common.ratio(times, way, 'whole, float32'):.2f}",
                f"{speed * exact.frame_rate * flops / rate:.0%}",
                "-" if peak is None else f"{peak:,.0f}",
                f"{max(differences):.1e}",
            )
    report.console.print(table)
    if options.save:
        report.save(f"decode-{exact.config.name}-{exact.device.type}")


if __name__ == "__main__":
    main()
