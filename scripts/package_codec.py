"""Puts the codec of a training run into the package, with the records that its tests and documentation show.

    python scripts/package_codec.py run

It replaces the weights of `universal-small` by those of the run, in float16, the recorded tokens of a test, and the
reconstructions of the samples in the documentation.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import soundfile

from codectok import Codec
from codectok.checkpoints.built_in import FOLDER
from codectok.choices import DEFAULT_CODEC
from codectok.config import PRESETS
from codectok.train.run.checkpoint_codec import codec_of_checkpoint

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "docs" / "samples"
TOKENS = ROOT / "tests" / "data" / f"{DEFAULT_CODEC}.json"
RECORDED = "speech"


def main() -> None:
    """Replace weights, recorded tokens and reconstructions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("run", type=Path, help="folder of a training run or of a checkpoint")
    parser.add_argument("--origin", help="how it was trained, if the run does not say it all")
    arguments = parser.parse_args()
    replace_weights(arguments.run, arguments.origin)
    codec = Codec.from_pretrained(DEFAULT_CODEC, device="cpu")
    for path in sorted(SAMPLES.glob("*.flac")):
        if not path.stem.endswith(DEFAULT_CODEC):
            record(codec, path)
    sys.stdout.write(f"{codec.header.origin}, fingerprint {codec.fingerprint}\n")


def replace_weights(run: Path, origin: str | None) -> None:
    """Replace the weights in the package by those of `run`."""
    codec = codec_of_checkpoint(run)
    if origin is not None:
        codec.header = codec.header.model_copy(update={"origin": origin})
    if codec.config != PRESETS[DEFAULT_CODEC]:
        raise SystemExit(f"{run} has trained another codec than {DEFAULT_CODEC}, such as its teacher.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / DEFAULT_CODEC
        codec.save_pretrained(folder, "float16")
        shutil.copytree(folder, FOLDER / DEFAULT_CODEC, dirs_exist_ok=True)


def record(codec: Codec, path: Path) -> None:
    """Write the reconstruction of a sample, and the tokens of the one that a test encodes."""
    samples, rate = soundfile.read(path, dtype="float32")
    codes = codec.encode(samples, rate)
    n_samples = round(len(samples) * codec.sample_rate / rate)
    waveform = codec.decode(codes)[:n_samples]
    soundfile.write(path.with_stem(f"{path.stem}-{DEFAULT_CODEC}"), waveform, codec.sample_rate)
    if path.stem == RECORDED:
        tokens = {"fingerprint": codec.fingerprint, "codes": codes[:, 0].tolist()}
        TOKENS.write_text(json.dumps(tokens) + "\n")


if __name__ == "__main__":
    main()
