"""Measures the speed and memory of encoding, and the share of codes that a lower precision changes.

Usage: python benchmarks/encode.py [--codec PRESET|DIR] [--device cuda] [--audio FOLDER] [--save]

The first table compares the time of a pack, from samples to codes, with that of its matrix products alone: in the
encoder's blocks of rows, and over the whole pack at once. The second table compares packed encoding of clips of 2-10 s
and of one long file with a baseline: batches padded to the longest clip, with convolutions and the distances to all
codes computed as defined. Shares of equal codes are relative to float32 clip by clip, and meaningful only for a trained
codec.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import common
import numpy as np
import torch
from padded import padded_baseline
from rich.table import Table
from torch import Tensor, nn

from codectok import Codec
from codectok.config import FiniteScalarQuantizerConfig
from codectok.device import inference
from codectok.model.packing import cut_into_chunks, fill_packs
from codectok.model.plain_features import in_precision
from codectok.model.quantization.residual import folding_pays
from codectok.model.quantization.search import MIN_CODES_REDUCED, OFFSET_COLUMNS


class Products:
    """The matrix products of encoding, without any other operation."""

    def __init__(self, codec: Codec, frames: int) -> None:
        self.frames, self.device, self.dtype = frames, codec.device, codec.dtype
        level = codec.geometry.alignment
        encoder = in_precision(codec.network.encoder, codec.dtype)
        downsample = in_precision(codec.network.quantizer.downsample, codec.dtype)
        roots = [(encoder, frames), *((root, frames // level) for root in downsample)]
        modules = [(module, rows) for root, rows in roots for module in root.modules()]
        weights = [(module.weight, rows) for module, rows in modules if isinstance(module, nn.Linear)]
        weights.append((encoder.stem.weight.flatten(1), frames))
        weights += [(weight, frames // level) for weight in search_weights(codec)]
        self.work = [
            (torch.randn(rows, w.shape[1], dtype=w.dtype, device=w.device), w.contiguous()) for w, rows in weights
        ]
        self.outputs = {
            (len(x), len(w), w.dtype): torch.empty(len(x), len(w), dtype=w.dtype, device=w.device) for x, w in self.work
        }

    @property
    def flops(self) -> float:
        """Number of floating-point operations of all products."""
        return sum(2.0 * len(x) * w.numel() for x, w in self.work)

    def run(self, block_rows: int) -> None:
        """Compute all products in blocks of `block_rows` rows."""
        with inference(self.device, tf32=self.dtype == "tf32", autocast=False):
            for x, w in self.work:
                out = self.outputs[len(x), len(w), w.dtype]
                for start in range(0, len(x), block_rows):
                    torch.mm(x[start : start + block_rows], w.T, out=out[start : start + block_rows])


def search_weights(codec: Codec) -> list[Tensor]:
    """Create matrices with the shapes and precisions of the code search."""
    quantizer = codec.config.quantizer
    if isinstance(quantizer, FiniteScalarQuantizerConfig):
        return [codec.network.quantizer.inner.project_in.weight]
    codes, dim = quantizer.codebook_size, quantizer.codebook_dim
    group_dim = codec.config.feature_dim // quantizer.n_groups
    folded = quantizer.n_residuals == 1 and dim != group_dim and folding_pays(codes, group_dim, dim)
    projections = 0 if folded or dim == group_dim else 1
    width, dtype = group_dim if folded else dim, torch.float32
    if codec.device.type == "cuda" and codec.dtype != "float32" and codes >= MIN_CODES_REDUCED:
        # The reduced search splits the table into two bfloat16 tables.
        width, dtype = 2 * width + OFFSET_COLUMNS, torch.bfloat16
    group = [torch.randn(dim, group_dim)] * projections + [torch.randn(codes, width, dtype=dtype)]
    group += group[-1:] * (quantizer.n_residuals - 1)
    return [weight.to(codec.device) for _ in range(quantizer.n_groups) for weight in group]


def products_table(codecs: dict[str, Codec], rounds: int) -> tuple[Table, float]:
    """Return the first table, and the rate in FLOP/s of float32 products over whole packs."""
    table = Table(title="One pack from samples to codes beside its bare products, median ratio of each round")
    for heading in ("precision", "frames", "encode ms", "products ms, whole", "in blocks", "ratio, whole", "in blocks"):
        table.add_column(heading, justify="left" if heading == "precision" else "right")
    rate = 0.0
    for dtype, codec in codecs.items():
        geometry, encoder = codec.geometry, codec.packed_encoder
        frames = geometry.pack_frames if codec.device.type == "cuda" else geometry.pack_frames // 4
        samples = np.random.default_rng(0).normal(0, 0.1, frames * geometry.hop).astype(np.float32)
        chunks = ((None, chunk) for chunk in cut_into_chunks([samples], geometry))
        pack = next(fill_packs(chunks, geometry, fixed_length=codec.device.type == "cuda"))
        products = Products(codec, len(pack.gaps[0]))
        runs: dict[str, Callable[[], object]] = {
            "encode": lambda encoder=encoder, pack=pack: encoder.start(pack.samples, *pack.gaps)(),
            "whole": lambda products=products: products.run(products.frames),
            "blocks": lambda products=products, encoder=encoder: products.run(encoder._block_rows),
        }
        times = common.interleaved(runs, rounds)
        medians = {name: statistics.median(seconds) for name, seconds in times.items()}
        if dtype == "float32":
            rate = products.flops / medians["whole"]
        table.add_row(
            dtype,
            f"{products.frames:,}",
            *(f"{medians[name] * 1e3:,.1f}" for name in ("encode", "whole", "blocks")),
            f"{common.ratio(times, 'encode', 'whole'):.2f}",
            f"{common.ratio(times, 'encode', 'blocks'):.2f}",
        )
    table.caption = f"float32 products of these shapes reach {rate / 1e9:,.0f} GFLOP/s"
    return table, rate


def throughput_table(codecs: dict[str, Codec], audio: np.ndarray, rounds: int, rate: float) -> Table:
    """Return the second table."""
    exact = codecs["float32"]
    work = {"clips of 2-10 s": common.clips_of(audio, exact.sample_rate), "one long file": [audio]}
    products = Products(exact, 1024)
    flops_per_second = products.flops / 1024 * exact.sample_rate / exact.config.mel.hop_length
    table = Table(title=f"{len(audio) / exact.sample_rate:,.0f} s of audio, median of {rounds}")
    for heading in ("audio", "way", "audio s/s", "x padded", "of product rate", "peak MB", "equal codes"):
        table.add_column(heading, justify="left" if heading in ("audio", "way") else "right")
    for name, waveforms in work.items():
        runs: dict[str, Callable[[], list[Tensor]]] = {
            "padded, float32": lambda waveforms=waveforms: padded_baseline(exact, waveforms)
        }
        for dtype, codec in codecs.items():
            runs[f"packed, {dtype}"] = lambda codec=codec, waveforms=waveforms: codec.encode_batch(
                waveforms, codec.sample_rate
            )
        # Measure memory before time, so that memory allocated at the first use is counted.
        results: dict[str, list[Tensor]] = {}
        peaks = {
            way: common.peak_megabytes(
                lambda way=way, run=run, results=results: results.update({way: run()}), exact.device
            )
            for way, run in runs.items()
        }
        alone = torch.cat([exact.encode(waveform, exact.sample_rate) for waveform in waveforms])
        times = common.interleaved(runs, rounds)
        for way in runs:
            seconds = sum(map(len, waveforms)) / exact.sample_rate
            speed = seconds / statistics.median(times[way])
            peak = peaks[way]
            equal = torch.cat(results[way]) == alone
            table.add_row(
                name,
                way,
                f"{speed:,.1f}",
                f"{1 / common.ratio(times, way, 'padded, float32'):.2f}",
                f"{speed * flops_per_second / rate:.0%}",
                "-" if peak is None else f"{peak:,.0f}",
                f"{equal.all(1).double().mean():.2%}",
            )
    return table


def main() -> None:
    parser = common.parser("Speed, memory and exactness of encoding.")
    options = parser.parse_args()
    codecs = common.variants(options.codec, options.device)
    exact = codecs["float32"]
    report = common.Report()
    report.console.print(f"{exact.config.name}, {exact.header.origin}\n{common.machine(exact.device)}")
    report.console.print(f"audio: {'recordings' if options.audio else 'noise'}")
    table, rate = products_table(codecs, options.rounds)
    report.console.print(table)
    seconds = options.seconds or (7200.0 if exact.device.type == "cuda" else 72.0)
    audio = common.audio_of(options.audio, seconds, exact.sample_rate)
    report.console.print(throughput_table(codecs, audio, options.rounds, rate))
    if options.save:
        report.save(f"encode-{exact.config.name}-{exact.device.type}")


if __name__ == "__main__":
    main()
