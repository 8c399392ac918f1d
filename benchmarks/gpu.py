"""Runs all that needs a GPU: its tests, and the speed and memory of encoding, decoding, a job and training.

Usage: python benchmarks/gpu.py [--codec distilcodec-v1] [--device cuda] [--seconds 330] [--only STEP ...] [--save]

Every step is a process with a limit of time, so that one that fails or hangs leaves the others their share. The job
reads FLAC files from tars with one core; its last table says where its time went. Takes less than six minutes, and
returns 1 if a step failed.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
import torch

from codectok.device import resolve_device

HERE = Path(__file__).parent
# Steps after it are skipped if less time is left.
LEAST_SECONDS = 10.0
CLIPS_IN_TAR = 100
RATE = 24_000


@dataclass(frozen=True)
class Step:
    """A process of the benchmark.

    Attributes:
        name: name for `--only` and titles.
        command: arguments after `python`.
        seconds: longest time.
    """

    name: str
    command: tuple[str, ...]
    seconds: float


def steps(options: argparse.Namespace, folder: Path) -> list[Step]:
    """List the steps in the order of their importance."""
    device, codec = options.device, options.codec
    made = ("--codec", codec, "--device", device)
    small = ("--codec", "nano", "--device", device)
    # The command loads a codec from a folder, so that an untrained preset is saved before.
    saved = codec if Path(codec).is_dir() else str(folder / "codec")
    places = (str(folder / "tars"), str(folder / "table"))
    job = ("-m", "codectok", "tokenize", *places, "--engine", "local", "--codec", saved, "--device", device)
    train = (str(HERE / "train.py"), "--device", device, "--rounds", "3", "--only-ours")
    return [
        Step("tests", ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"), 100),
        Step("encode", (str(HERE / "encode.py"), *made, "--rounds", "3", "--seconds", str(options.audio)), 70),
        Step("decode", (str(HERE / "decode.py"), *made, "--rounds", "1", "--seconds", str(options.audio / 12)), 50),
        Step("job", (*job, "--dtype", "bfloat16"), 60),
        Step("small codec", (str(HERE / "encode.py"), *small, "--seconds", str(options.audio)), 40),
        Step("train small", (*train, "--config", "small"), 40),
        Step("train student", (*train, "--config", "student"), 40),
    ]


def write_tars(folder: Path, seconds: float) -> None:
    """Write FLAC files of noise of 2 to 10 s to tars in `folder`."""
    import soundfile

    folder.mkdir(parents=True)
    audio = np.random.default_rng(0).normal(0, 0.1, round(min(seconds, 600.0) * RATE)).astype(np.float32)
    flac: list[bytes] = []
    for clip in common.clips_of(audio, RATE):
        target = io.BytesIO()
        soundfile.write(target, clip, RATE, format="FLAC", subtype="PCM_16")
        flac.append(target.getvalue())
    n_clips = round(seconds / (len(audio) / RATE) * len(flac))
    for first in range(0, n_clips, CLIPS_IN_TAR):
        with tarfile.open(folder / f"{first:06d}.tar", "w") as tar:
            for number in range(first, min(first + CLIPS_IN_TAR, n_clips)):
                member = tarfile.TarInfo(f"{number:06d}.flac")
                content = flac[number % len(flac)]
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def run(step: Step, seconds: float) -> tuple[str, bool]:
    """Run a step for at most `seconds`, print its output, and return it, and True if it succeeded."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path[1:]]), "COLUMNS": "118"}
    command = [sys.executable, *step.command]
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=HERE.parent, env=environment, timeout=seconds, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        output, end, good = done.stdout, f"exit code {done.returncode}", done.returncode == 0
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        end, good = "stopped at its limit", False
    text = f"\n== {step.name}\n{output.rstrip()}\n({end} after {time.monotonic() - started:.0f} s)"
    print(text, flush=True)
    return text, good


def main() -> int:
    parser = argparse.ArgumentParser(description="All tests and measurements of a GPU.")
    parser.add_argument(
        "--codec", default="distilcodec-v1", help="a preset (random weights), universal-small or a folder"
    )
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try this script")
    parser.add_argument("--audio", type=float, default=7200.0, help="seconds of audio to encode; a twelfth to decode")
    parser.add_argument("--seconds", type=float, default=330.0, help="longest time of all steps together")
    parser.add_argument("--only", nargs="*", default=[], help="names of steps")
    parser.add_argument("--save", action="store_true", help="also write the output to benchmarks/results")
    options = parser.parse_args()
    started = time.monotonic()
    device = resolve_device(options.device)
    texts, failed = [common.machine(device)], 0
    print(texts[0], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for step in steps(options, Path(folder)):
            left = options.seconds - (time.monotonic() - started)
            if options.only and step.name not in options.only:
                continue
            if left < LEAST_SECONDS:
                texts.append(f"\n== {step.name}\n(skipped: no time is left)")
                print(texts[-1], flush=True)
                failed += 1
                continue
            if step.name == "job":
                write_tars(Path(folder) / "tars", 6 * options.audio)
                if not Path(options.codec).is_dir():
                    common.load(options.codec, "cpu").save_pretrained(Path(folder) / "codec")
            text, good = run(step, min(step.seconds, left))
            texts.append(text)
            failed += not good
    if options.save:
        card = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        name = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")
        common.RESULTS.mkdir(exist_ok=True)
        (common.RESULTS / f"gpu-{name}.txt").write_text("\n".join(texts) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
