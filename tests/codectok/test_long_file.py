"""Memory does not grow with the length of a recording (three hours)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

SAMPLE_RATE = 44_100
HOURS = 3
MEMORY_LIMIT = 500_000_000  # the samples alone take two gigabytes as floats

ENCODE_AND_DECODE = """
import json, sys
from pathlib import Path
from codectok import Codec
from codectok.audio.files import audio_info, write_audio
from codectok.tokens.clips import Clip, encode_clips

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

source, short, target = map(Path, sys.argv[1:])
codec = Codec.from_config("nano", device="cpu")
for name in (short, source):
    if name == source:
        before = peak()
    (_, row), = encode_clips(codec.clip_encoder, [Clip("id", name, "dataset", str(name))])
encoded = peak()
write_audio(target, codec.decode_stream(row.codes), codec.sample_rate)
print(json.dumps({
    "n_samples": row.n_samples, "frames": len(row.codes), "decoded": audio_info(target).n_samples,
    "encode": encoded - before, "decode": peak() - before,
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_three_hours_need_little_memory(tmp_path: Path) -> None:
    block = (np.random.default_rng(0).normal(0, 3000, 60 * SAMPLE_RATE)).astype(np.int16)
    soundfile.write(tmp_path / "short.wav", block, SAMPLE_RATE)
    with soundfile.SoundFile(tmp_path / "long.wav", "w", SAMPLE_RATE, 1, "PCM_16") as file:
        for minute in range(HOURS * 60):
            file.write(np.roll(block, 997 * minute))
    result = subprocess.run(
        [sys.executable, "-c", ENCODE_AND_DECODE, tmp_path / "long.wav", tmp_path / "short.wav", tmp_path / "out.wav"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = json.loads(result.stdout)
    assert found["n_samples"] == HOURS * 3600 * 24_000
    assert found["frames"] == found["n_samples"] // 256
    assert found["decoded"] == found["frames"] * 256
    assert found["encode"] < MEMORY_LIMIT
    assert found["decode"] < MEMORY_LIMIT
