"""Fuzzes the readers of audio files: damages small files of each format, and compares durations with ffmpeg's.

Each damaged file must be read whole, or up to an error that says where; nothing may be lost without an error. A file
counts as `lost` if codectok reads less than ffmpeg does by more than a codec's frame and reports nothing, as `more` if
it reads more than ffmpeg, and as `crashed` if anything but an error of ours, or a dead process, ends the reading.

    python benchmarks/fuzz_audio.py --mutations 2000 --formats wav,flac,mp3-vbr
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console
from rich.table import Table

from codectok.audio.decoding import decoded_streams
from codectok.audio.ffmpeg.decoding import INSTALL, program
from codectok.audio.notes import DecodingNotes
from codectok.errors import AudioError

RATE = 24_000
SECONDS = 3.0
# A frame of AAC at 8 kHz lasts 0.13 s, and decoders may differ by its priming.
TOLERANCE_SECONDS = 0.15
SLOW_SECONDS = 10.0

# Formats that libsndfile writes: name, and the arguments of `soundfile.write`.
SNDFILE = {
    "wav": ("WAV", "PCM_16"),
    "wav-float": ("WAV", "FLOAT"),
    "wav-ulaw": ("WAV", "ULAW"),
    "wav-ima": ("WAV", "IMA_ADPCM"),
    "wav-ms": ("WAV", "MS_ADPCM"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "voc": ("VOC", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "nist": ("NIST", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
# Formats that ffmpeg writes: name, suffix, and its options.
FFMPEG = {
    "mp3-vbr": (".mp3", "-c:a libmp3lame -q:a 4"),
    "mp3-bare": (".mp3", "-c:a libmp3lame -b:a 64k -write_xing 0 -id3v2_version 0"),
    "mp2": (".mp2", "-ar 24000 -b:a 64k"),
    "m4a": (".m4a", "-c:a aac"),
    "m4a-start": (".m4a", "-c:a aac -movflags +faststart"),
    "alac": (".m4a", "-c:a alac"),
    "adts": (".aac", "-c:a aac"),
    "webm": (".webm", "-c:a libopus"),
    "mka": (".mka", "-c:a flac"),
    "wma": (".wma", "-c:a wmav2"),
    "ac3": (".ac3", "-c:a ac3 -ar 32000"),
    "flac-pipe": (".flac", "-c:a flac -f flac pipe:1"),
}
LIES = (0, 1, 1000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEADER_BYTES = 200

Mutation = Callable[[random.Random, bytes, bytes], bytes]


def flip_bits(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Flip 1 to 64 bits anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 8, 64])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Cut the file off."""
    return data[: rng.randrange(1, len(data))]


def join(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Append the file, or another one, whole."""
    return data + rng.choice([data, other])


def lie(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Replace four bytes of the header by a number that no writer means."""
    place = rng.randrange(0, min(HEADER_BYTES, len(data) - 4))
    order = "big" if rng.random() < 0.5 else "little"
    return data[:place] + rng.choice(LIES).to_bytes(4, order) + data[place + 4 :]


def clear(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Replace some bytes inside by zeros."""
    place, length = rng.randrange(len(data)), rng.choice([4, 100, 4096])
    return data[:place] + bytes(min(length, len(data) - place)) + data[place + length :]


def insert(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Insert random bytes."""
    place = rng.randrange(len(data))
    return data[:place] + rng.randbytes(rng.choice([1, 10, 1000])) + data[place:]


def remove(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Remove some bytes inside."""
    place = rng.randrange(len(data))
    return data[:place] + data[place + rng.choice([1, 10, 1000]) :]


def append(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Append random bytes, zeros, or the tag of an MP3."""
    return data + rng.choice([rng.randbytes(3000), bytes(3000), b"TAG" + bytes(125)])


MUTATIONS: tuple[Mutation, ...] = (flip_bits, flip_bits, truncate, join, lie, lie, clear, insert, remove, append)


@dataclass(frozen=True)
class Outcome:
    """Result of one damaged file: its verdict, and a line for the user if it is a finding."""

    verdict: str
    finding: str | None = None


def sound(seconds: float, frequency: float) -> np.ndarray:
    """A tone that swells and never repeats, float32 [n]."""
    t = np.arange(round(seconds * RATE)) / RATE
    swell = 0.55 + 0.45 * np.sin(2 * np.pi * 0.7 * t)
    return (0.2 * swell * sum(np.sin(2 * np.pi * frequency * k * t) / k for k in range(1, 8))).astype(np.float32)


def encoded(name: str, samples: np.ndarray, folder: Path) -> bytes:
    """Bytes of a file of the format `name`."""
    if name in SNDFILE:
        container, encoding = SNDFILE[name]
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, RATE, format=container, subtype=encoding)
        return buffer.getvalue()
    suffix, options = FFMPEG[name]
    soundfile.write(folder / "source.wav", samples, RATE)
    target = folder / f"target{suffix}"
    piped = "pipe:1" in options
    command = [_ffmpeg(), "-v", "error", "-y", "-i", str(folder / "source.wav"), *options.split()]
    done = subprocess.run([*command, *([] if piped else [str(target)])], check=True, capture_output=True)
    return done.stdout if piped else target.read_bytes()


def _ffmpeg() -> str:
    found = program()
    if found is None:
        sys.exit(f"This needs ffmpeg: {INSTALL}.")
    return found


def duration_by_ffmpeg(path: Path) -> float | None:
    """Seconds of audio that ffmpeg decodes; None if it refuses the file."""
    command = [_ffmpeg(), "-nostdin", "-v", "error", "-i", str(path), "-map", "0:a:0", "-f", "s16le", "-ac", "1"]
    done = subprocess.run([*command, "-ar", "8000", "-"], capture_output=True, timeout=60)
    return len(done.stdout) / 2 / 8000 or None


def duration_by_codectok(path: Path) -> tuple[float, AudioError | None]:
    """Seconds of audio that codectok decodes, and the error that ended it."""
    seconds = 0.0
    try:
        for stream in decoded_streams(path, path.name, DecodingNotes()):
            for block in stream.blocks:
                seconds += len(block) / stream.sample_rate
    except AudioError as error:
        return seconds, error
    return seconds, None


def judge(path: Path, described: str, joined: bool) -> Outcome:
    """Read a damaged file with both decoders; of files that were `joined` and are sound, the duration is known."""
    started = time.monotonic()
    try:
        seconds, error = duration_by_codectok(path)
    except Exception as failure:  # a finding, whatever it is
        return Outcome("crashed", f"{described}: {type(failure).__name__}: {failure}")
    if time.monotonic() - started > SLOW_SECONDS:
        return Outcome("slow", f"{described}: {time.monotonic() - started:.0f} s")
    if joined and error is None and any(abs(seconds - n * SECONDS) < TOLERANCE_SECONDS for n in (2, 3)):
        return Outcome("equal")  # ffmpeg often stops at the end of the first file
    theirs = duration_by_ffmpeg(path)
    if error is not None:
        beyond = seconds > (theirs or 0.0) + TOLERANCE_SECONDS and theirs is not None
        note = f"{described}: kept {seconds:.2f} s, ffmpeg reads {theirs} s ({error})"
        return Outcome("more", note) if beyond else Outcome("kept in part" if seconds else "rejected")
    if theirs is None or seconds > theirs + TOLERANCE_SECONDS:
        return Outcome("more", f"{described}: kept {seconds:.2f} s, ffmpeg reads {theirs} s")
    if seconds < theirs - TOLERANCE_SECONDS:
        return Outcome("lost", f"{described}: kept {seconds:.2f} s, ffmpeg reads {theirs:.2f} s, and no error")
    return Outcome("equal")


def run(name: str, seed: int, first: int, last: int, at: Synchronized[int], results: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    """Fuzz mutations `first` to `last` of a format, in a process of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data, other = (encoded(name, sound(SECONDS * k, 200 * k), folder) for k in (1, 2))
        for number in range(first, last):
            at.value = number
            rng = random.Random(f"{seed}/{name}/{number}")
            mutation = rng.choice(MUTATIONS)
            path = folder / f"damaged-{number}"
            path.write_bytes(mutation(rng, data, other))
            results.put((number, judge(path, f"{name} #{number} {mutation.__name__}", mutation is join)))
            path.unlink()
    at.value = last


def fuzz(name: str, seed: int, mutations: int, only: int | None) -> list[Outcome]:
    """All outcomes of a format; a process that dies is a finding, and the next one goes on behind it."""
    outcomes: list[Outcome] = []
    first, last = (0, mutations) if only is None else (only, only + 1)
    while first < last:
        at = multiprocessing.Value("l", first)
        results: multiprocessing.Queue[tuple[int, Outcome]] = multiprocessing.Queue()
        process = multiprocessing.Process(target=run, args=(name, seed, first, last, at, results))
        process.start()
        while process.is_alive() or not results.empty():
            try:
                outcomes.append(results.get(timeout=0.2)[1])
            except Exception:  # queue.Empty: the process still works
                continue
        process.join()
        if process.exitcode:
            outcomes.append(Outcome("crashed", f"{name} #{at.value}: the process died ({process.exitcode})"))
            at.value += 1
        first = at.value
    return outcomes


def main() -> None:
    """Fuzz the chosen formats, print findings and a table, and fail if audio is lost or a reader crashes."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--formats", default=",".join([*SNDFILE, *FFMPEG]), help="comma-separated names")
    options.add_argument("--mutations", type=int, default=200, help="damaged files of each format")
    options.add_argument("--only", type=int, help="number of one mutation, to repeat a finding")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--shown", type=int, default=10, help="findings to print for each format and verdict")
    chosen = options.parse_args()
    verdicts = ("equal", "kept in part", "rejected", "more", "lost", "slow", "crashed")
    table = Table("format", *verdicts, title=f"{chosen.mutations} damaged files a format, seed {chosen.seed}")
    failed = False
    console = Console(width=160 if not sys.stdout.isatty() else None)
    for name in chosen.formats.split(","):
        outcomes = fuzz(name, chosen.seed, chosen.mutations, chosen.only)
        counts = Counter(outcome.verdict for outcome in outcomes)
        for verdict in verdicts:
            found = [outcome.finding for outcome in outcomes if outcome.verdict == verdict and outcome.finding]
            for finding in found[: chosen.shown]:
                console.print(f"{verdict}: {re.sub(r'[^ -~]', '?', finding)}", markup=False)
        table.add_row(name, *(str(counts[verdict]) for verdict in verdicts))
        failed = failed or any(counts[verdict] for verdict in ("lost", "slow", "crashed"))
    console.print(table)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
