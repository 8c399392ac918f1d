"""Tokenizing a corpus end to end: the whole job against the encoder alone and against what people do by hand.

    python benchmarks/tokenize.py --codec run/codec --audio recordings

The same clips, all on the same threads: `encode_clips` of samples that are in memory (the encoder alone), a loop over
files with `encode` and `numpy.save`, a DataLoader with padded batches, and the job with one worker and with several.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import common
import numpy as np
import ray
import soundfile
import torch
from torch.utils.data import DataLoader, Dataset

from codectok import Codec
from codectok.audio.files import read_audio
from codectok.pipelines.engine import EngineName, RunOptions, run_job
from codectok.pipelines.tokenize import TokenizeJob, TokenizeOptions

CLIP_SECONDS = (2.0, 10.0)
BATCH = 16


def write_corpus(folder: Path, audio: np.ndarray, rate: int, suffix: str) -> list[Path]:
    """Clips of 2 to 10 s."""
    generator = np.random.default_rng(0)
    paths: list[Path] = []
    position = 0
    while position < len(audio):
        length = round(generator.uniform(*CLIP_SECONDS) * rate)
        paths.append(folder / f"{len(paths):05d}{suffix}")
        soundfile.write(paths[-1], audio[position : position + length], rate)
        position += length
    return paths


class PaddedClips(Dataset[torch.Tensor]):
    """Files as a training loop would load them."""

    def __init__(self, paths: list[Path], rate: int) -> None:
        self.paths, self.rate = paths, rate

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.from_numpy(read_audio(self.paths[number], self.rate))


def pad(clips: list[torch.Tensor]) -> torch.Tensor:
    """A rectangle."""
    return torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)


def encoder_alone(codec: Codec, clips: list[np.ndarray]) -> None:
    """No files."""
    for _ in codec.encode_clips(([clip] for clip in clips), codec.sample_rate):
        pass


def loop(codec: Codec, paths: list[Path]) -> None:
    """One file after the other."""
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            codes = codec.encode(read_audio(path, codec.sample_rate), codec.sample_rate)
            np.save(Path(folder) / f"{path.stem}.npy", codes.numpy())


def padded(codec: Codec, paths: list[Path]) -> None:
    """Every batch as long as its longest clip."""
    with tempfile.TemporaryDirectory() as folder:
        loader = DataLoader(PaddedClips(paths, codec.sample_rate), BATCH, collate_fn=pad)
        for number, batch in enumerate(loader):
            codes = codec.encode_batch(list(batch), codec.sample_rate)
            np.save(Path(folder) / f"{number}.npy", torch.stack(codes).numpy())


def job(codec_folder: Path, source: Path, device: str, engine: EngineName, workers: int | None = None) -> None:
    """The whole job, into a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        options = TokenizeOptions(str(codec_folder), device=device, part_seconds=300.0)
        run_job(TokenizeJob(options), [str(source)], Path(folder) / "out", RunOptions(engine, workers))


def main() -> None:
    """Print one table for each kind of source."""
    made = common.parser("Tokenizing a corpus end to end.")
    made.set_defaults(codec="nano", seconds=1200.0)
    options = made.parse_args()
    torch.set_num_threads(1)
    codec = common.load(options.codec, options.device)
    report = common.Report()
    report.console.print(f"{options.codec}, {common.machine(codec.device)}")
    audio = common.audio_of(options.audio, options.seconds, codec.sample_rate)
    with tempfile.TemporaryDirectory() as folder:
        codec_folder = Path(folder) / "codec"
        codec.save_pretrained(codec_folder)
        ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        try:
            for suffix in (".flac", ".mp3"):
                source = Path(folder) / suffix[1:]
                source.mkdir()
                paths = write_corpus(source, audio, codec.sample_rate, suffix)
                clips = [read_audio(path, codec.sample_rate) for path in paths]
                runs: dict[str, Callable[[], None]] = {
                    "encoder alone, 1 thread": lambda clips=clips: encoder_alone(codec, clips),
                    "loop: encode and numpy.save": lambda paths=paths: loop(codec, paths),
                    "DataLoader, padded batches": lambda paths=paths: padded(codec, paths),
                    "job, this process": lambda source=source: job(codec_folder, source, options.device, "local"),
                    "job, 1 worker": lambda source=source: job(codec_folder, source, options.device, "ray", 1),
                    "job, all workers": lambda source=source: job(codec_folder, source, options.device, "ray"),
                }
                title = f"{options.seconds:,.0f} s in {len(paths)} clips, {suffix[1:].upper()}"
                base = "encoder alone, 1 thread"
                report.console.print(common.rates_table(title, runs, options.seconds, base, options.rounds))
        finally:
            ray.shutdown()
    if options.save:
        report.save(f"tokenize-{codec.config.name}-{codec.device.type}")


if __name__ == "__main__":
    main()
