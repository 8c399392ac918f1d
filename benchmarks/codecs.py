"""Compares the encoding speed of the codecs of transformers with that of ours, side by side in one run.

Usage: python benchmarks/codecs.py [--codecs NAME,...] [--device cuda] [--seconds 10] [--batch-seconds 0] [--save]

Every codec of transformers has its default configuration (Higgs: strides that fit its other sizes) and random weights,
so that nothing is downloaded; speed does not depend on the values of weights. Each codec encodes noise of `--seconds`,
by `encode` as users call it. Codecs run in processes of their own, one after the other, so that the memory of each is
measured alone: the highest resident memory beyond that of the loaded codec on a CPU, of the allocator on a GPU. Time is
the median of `--rounds`, after a warm-up. A codec is skipped, with the reason, if its parameters need more memory than
`--memory` allows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Mapping
from typing import Any

import common
import numpy as np
import torch
from rich.table import Table

from codectok import Codec
from codectok.codecs.base import AudioCodec
from codectok.codecs.fingerprints import Hashes
from codectok.codecs.transformers_models.codec import TransformersCodec
from codectok.codecs.transformers_models.families import FAMILIES
from codectok.device import resolve_device

OURS = ("nano", "distilcodec-v1")
BYTES_PER_PARAMETER = 4
# The default sizes of this family do not fit each other; with these strides they do.
_RATIOS = [8, 5, 4, 2, 3]
CHANGED: Mapping[str, Mapping[str, Any]] = {
    "higgs_audio_v2_tokenizer": {
        "acoustic_model_config": {"model_type": "dac", "downsampling_ratios": _RATIOS, "upsampling_ratios": _RATIOS},
    }
}


def model_of(family: str, device: str) -> Any:
    """Create a model of the default configuration with random weights; on the device "meta" without any memory."""
    import transformers

    config = transformers.AutoConfig.for_model(family, **CHANGED.get(family, {}))
    with torch.device(device):
        return transformers.AutoModel.from_config(config)


def n_parameters(name: str) -> int:
    """Count the parameters of a codec, without making them."""
    if name in OURS:
        return sum(one.numel() for one in Codec.from_config(name, device="cpu").network.parameters())
    return sum(one.numel() for one in model_of(name, "meta").parameters())


def codec_of(name: str, device: str, batch_seconds: float) -> AudioCodec:
    """Create a codec with random weights."""
    torch.manual_seed(0)
    if name in OURS:
        return Codec.from_config(name, device=device)
    model = model_of(name, "cpu").eval().requires_grad_(False)
    hashes = Hashes("0" * 64, "0" * 64)  # nothing is compared
    return TransformersCodec(model, FAMILIES[name], hashes, device=device, batch_seconds=batch_seconds)


def measure(
    name: str, device: str, seconds: float, batch_seconds: float, rounds: int, threads: int
) -> Mapping[str, Any]:
    """Measure one codec: seconds of audio encoded in a second, and memory."""
    torch.set_num_threads(threads)
    codec = codec_of(name, device, batch_seconds)
    n_samples = round(seconds * codec.sample_rate)
    n_clips = max(1, int(batch_seconds / max(seconds, 1.0)))
    noise = np.random.default_rng(0).normal(0, 0.1, (n_clips, n_samples)).astype(np.float32)
    times = common.interleaved({name: lambda: codec.encode_batch(list(noise), codec.sample_rate)}, rounds)[name]
    return {
        "rate": n_clips * seconds / statistics.median(times),
        "frame_rate": codec.frame_rate,
        "n_codebooks": codec.n_codebooks,
        "codebook_size": codec.codebook_size,
        "sample_rate": codec.sample_rate,
        "megabytes": common.peak_megabytes(lambda: codec.encode_batch(list(noise), codec.sample_rate), codec.device),
    }


def _work(connection: Any, arguments: tuple[Any, ...]) -> None:
    connection.send(measure(*arguments))


def measured_alone(*arguments: Any) -> Mapping[str, Any] | str:
    """Run `measure` in a process, and return its result, or a sentence if the process ended without one."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, arguments))
    process.start()
    sender.close()
    try:
        found: Mapping[str, Any] = receiver.recv()
    except EOFError:
        process.join()
        return f"ended with exit code {process.exitcode}"
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codecs", default=",".join([*OURS, *FAMILIES]), help="names, separated by commas")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
    parser.add_argument("--batch-seconds", type=float, default=0.0, help="clips of one length encoded at once")
    parser.add_argument("--memory", type=float, default=8.0, help="GB that the parameters of a codec may take")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is shown")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of a CPU")
    parser.add_argument("--save", action="store_true", help="also write the output to benchmarks/results")
    options = parser.parse_args()
    device = resolve_device(options.device)
    torch.set_num_threads(options.threads)  # for the description of the machine
    report = common.Report()
    report.console.print(common.machine(device))
    report.console.print(
        f"Default configurations with random weights, float32; clips of {options.seconds:g} s of noise,"
        f" {options.batch_seconds:g} s in a batch"
    )
    table = Table(title="Encoding")
    headings = ("codec", "parameters", "Hz", "frames/s", "books", "codes", "audio s/s", "MB a clip")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "codec" else "right", no_wrap=heading == "codec")
    for name in options.codecs.split(","):
        count = n_parameters(name)
        shown = f"{count / 1e6:,.0f} M"
        if count * BYTES_PER_PARAMETER > options.memory * 1e9:
            table.add_row(name, shown, "skipped: more parameters than --memory allows")
            continue
        found = measured_alone(
            name, str(device), options.seconds, options.batch_seconds, options.rounds, options.threads
        )
        if isinstance(found, str):
            table.add_row(name, shown, found)
            continue
        rate, megabytes = found["rate"], found["megabytes"]
        table.add_row(
            name, shown, f"{found['sample_rate']:,}", f"{found['frame_rate']:g}", str(found["n_codebooks"]),
            f"{found['codebook_size']:,}", f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}",
            "unknown" if megabytes is None else f"{megabytes:,.0f}",
        )  # fmt: skip
        print(f"{name} measured", flush=True)
    report.console.print(table)
    if options.save:
        report.save(f"codecs-{'cpu' if device.type == 'cpu' else 'gpu'}")


if __name__ == "__main__":
    main()
