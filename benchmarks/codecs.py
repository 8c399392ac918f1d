"""Compares the encoding speed of the codecs of transformers with that of ours, side by side in one run.

Usage: python benchmarks/codecs.py [--families NAME,...] [--device cuda] [--encoders 1,2,4] [--batch-seconds 60]

Every codec of transformers has its default configuration (Higgs: strides that fit its other sizes) and random weights,
so that nothing is downloaded; speed does not depend on the values of weights. As in `tokenize`, encoders of
transformers do not hold the parameters of the decoder. Clips are noise. Rates are seconds of audio that are encoded in
a second:

- clips of 2 to 10 s, of 12 lengths in mixed order, one by one: by one encoder, and by several processes with an encoder
  each, as `tokenize --encoders-per-gpu` runs them;
- clips of one length (`--seconds`), one by one and in batches of `--batch-seconds`, as `tokenize --batch-seconds`
  encodes segments of `shard --segmenter fixed`. A star marks a codec whose bits depend on the company of a row on this
  device, so that rows are encoded one by one. Codecs of ours pack clips of all lengths.

Each rate is measured for `--budget` seconds after a warm-up. Memory is that of a clip of `--seconds`: the highest
resident memory beyond that of the loaded codec on a CPU, of the allocator on a GPU. A codec is skipped, with the
reason, if the installed transformers lacks it, or if its parameters need more memory than `--memory` allows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import common
import torch
from encoder_processes import EncoderError, EncoderProcesses, Facts, Work
from rich.table import Table

from codectok import Codec
from codectok.codecs.fingerprints import Hashes
from codectok.codecs.transformers_models.codec import TransformersCodec
from codectok.codecs.transformers_models.families import FAMILIES
from codectok.device import resolve_device

OURS = ("nano", "distilcodec-v1")
BYTES_PER_PARAMETER = 4
LENGTHS = (7.1, 2.7, 9.3, 4.2, 10.0, 3.5, 5.6, 2.0, 8.5, 6.4, 4.9, 7.8)
# The default sizes of this family do not fit each other; with these strides they do.
_RATIOS = [8, 5, 4, 2, 3]
CHANGED: Mapping[str, Mapping[str, Any]] = {
    "higgs_audio_v2_tokenizer": {
        "acoustic_model_config": {"model_type": "dac", "downsampling_ratios": _RATIOS, "upsampling_ratios": _RATIOS},
    }
}
# Modules that transformers before 5.24 names otherwise.
EARLIER: Mapping[str, Mapping[str, Any]] = {
    "mimi": {"features": "downsample", "decoder": ("decoder", "decoder_transformer", "upsample")}
}


@dataclass(frozen=True)
class RandomCodecs:
    """Makes codecs with random weights.

    Attributes:
        tiny: make models of a few thousand parameters, to try the script.
    """

    tiny: bool = False

    def config(self, family: str) -> Any:
        """Return the configuration of a model."""
        if self.tiny:
            sys.path.append(str(Path(__file__).parents[1]))
            from tests.helpers.transformers_models import tiny_config

            return tiny_config(family)
        import transformers

        return transformers.AutoConfig.for_model(family, **CHANGED.get(family, {}))

    def model(self, family: str, device: str) -> Any:
        """Make a model; on the device "meta" without any memory."""
        import transformers

        with torch.device(device):
            return transformers.AutoModel.from_config(self.config(family))

    def n_parameters(self, name: str) -> int:
        """Count the parameters of a codec, without making them."""
        made = Codec.from_config(name, device="cpu").network if name in OURS else self.model(name, "meta")
        return sum(one.numel() for one in made.parameters())

    def make(self, name: str, device: str) -> Codec | TransformersCodec:
        """Make a codec on a device."""
        torch.manual_seed(0)
        if name in OURS:
            return Codec.from_config(name, device=device)
        model = self.model(name, device).eval().requires_grad_(False)
        family = FAMILIES[name]
        if name in EARLIER and EARLIER[name]["features"] in dict(model.named_children()):
            family = replace(family, **EARLIER[name])
        hashes = Hashes("0" * 64, "0" * 64)  # nothing is compared
        return TransformersCodec(model, family, hashes, device=device, encoder_only=True)


@dataclass(frozen=True)
class Measurement:
    """A column of rates."""

    heading: str
    work: Work
    n_encoders: int = 1


def measurements(encoders: Sequence[int], seconds: float, batch_seconds: float) -> list[Measurement]:
    """Return the columns of the table."""
    columns = [Measurement(f"2-10 s x{n}", Work(LENGTHS), n) for n in encoders]
    columns.append(Measurement(f"{seconds:g} s", Work((seconds,))))
    if batch_seconds > 0:
        columns.append(Measurement(f"{seconds:g} s batches", Work((seconds,), batch_seconds)))
    return columns


def measure(
    name: str, processes: EncoderProcesses, columns: Sequence[Measurement], options: argparse.Namespace
) -> list[str]:
    """Measure a codec, and return its cells of the table.

    Raises:
        EncoderError: it cannot be measured.
    """
    (needed,) = processes.call(1, "n_parameters", name)
    if needed * BYTES_PER_PARAMETER * max(options.encoders) > options.memory * 1e9:
        raise EncoderError(f"{max(options.encoders)} x {needed / 1e6:,.0f} M parameters need more than --memory allows")
    facts: Facts = processes.call(max(options.encoders), "load", name)[0]
    rates = []
    for column in columns:
        together = processes.call(column.n_encoders, "warm_up", column.work, options.budget)
        rate = processes.rate(column.n_encoders, column.work, options.budget)
        rates.append(_shown(rate) + ("" if all(together) else "*"))
    (megabytes,) = processes.call(1, "megabytes", options.seconds)
    sizes = [f"{count / 1e6:,.0f} M" for count in (needed, facts.n_parameters)]
    codes = [f"{facts.sample_rate:,}", f"{facts.frame_rate:g}", f"{facts.n_codebooks} x {facts.codebook_size:,}"]
    return [name, *sizes, *codes, *rates, "unknown" if megabytes is None else _shown(megabytes)]


def _shown(number: float) -> str:
    return f"{number:,.1f}" if number < 100 else f"{number:,.0f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join([*OURS, *FAMILIES]), help="names, separated by commas")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--encoders", help="numbers of processes, separated by commas; 1,2,4 on a GPU, 1 on a CPU")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of clips of one length")
    parser.add_argument("--batch-seconds", type=float, help="audio of a batch; 60 on a GPU, no batches on a CPU")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds for each rate")
    parser.add_argument("--memory", type=float, help="GB for the parameters of all encoders; 40 on a GPU, 8 on a CPU")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of all encoders on a CPU")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try the script")
    parser.add_argument("--save", action="store_true", help="also write the output to benchmarks/results")
    options = parser.parse_args()
    options.device = resolve_device(options.device)
    on_gpu = options.device.type == "cuda"
    options.encoders = sorted({int(n) for n in (options.encoders or ("1,2,4" if on_gpu else "1")).split(",")})
    if options.batch_seconds is None:
        options.batch_seconds = 60.0 if on_gpu else 0.0
    if options.memory is None:
        options.memory = 40.0 if on_gpu else 8.0
    return options


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)  # for the description of the machine
    report = common.Report()
    report.console.print(common.machine(options.device))
    batches = f", batches of {options.batch_seconds:g} s" if options.batch_seconds else ""
    report.console.print(
        f"{'Tiny' if options.tiny else 'Default'} configurations with random weights, float32{batches};"
        f" {options.budget:g} s for each rate"
    )
    columns = measurements(options.encoders, options.seconds, options.batch_seconds)
    table = Table(title="Encoding, in seconds of audio a second")
    headings = ["codec", "param.", "held", "Hz", "frames/s", "codes", *(one.heading for one in columns), "MB a clip"]
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "codec" else "right", no_wrap=heading == "codec")
    threads = max(1, options.threads // max(options.encoders))
    processes = EncoderProcesses(max(options.encoders), RandomCodecs(options.tiny), str(options.device), threads)
    print("; ".join(headings), flush=True)
    for name in options.families.split(","):
        try:
            cells = measure(name, processes, columns, options)
        except EncoderError as error:
            report.console.print(f"{name} skipped: {error}")
            continue
        print("; ".join(cells), flush=True)  # so that a run which is cut short shows all that it measured
        table.add_row(*cells)
    processes.stop()
    report.console.print(table)
    if options.save:
        report.save(f"codecs-{'cpu' if options.device.type == 'cpu' else 'gpu'}")


if __name__ == "__main__":
    main()
