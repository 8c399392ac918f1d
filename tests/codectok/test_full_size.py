"""The full-size codec: a 1.6 GB checkpoint is imported within 8 GB of memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PREDICTED_SIZE = 1_624_853_260  # bytes of the tensors in the published checkpoint
MEMORY_LIMIT = 8 << 30

IMPORT = """
import json, resource, sys
from pathlib import Path
import numpy as np
import torch
from codectok import Codec
source, target = map(Path, sys.argv[1:])
codec = Codec.from_distilcodec(source, step=204000, device="cpu")
codec.save_pretrained(target)
waveform = np.random.default_rng(0).normal(0, 0.1, 24000).astype("float32")
codes = codec.encode(waveform, 24000)
fingerprint = codec.fingerprint
del codec
again = Codec.from_pretrained(target, device="cpu")
print(json.dumps({
    "same": again.fingerprint == fingerprint and torch.equal(again.encode(waveform, 24000), codes),
    "frames": len(codes),
    "different_codes": len(codes.unique()),
    "wave": len(again.decode(codes)),
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""


@pytest.mark.slow
def test_full_size_checkpoint_round_trips_within_8_gb(tmp_path: Path) -> None:
    script = ROOT / "tests" / "helpers" / "distilcodec_checkpoint.py"
    subprocess.run([sys.executable, script, tmp_path / "distilcodec"], check=True)
    size = (tmp_path / "distilcodec" / "g_00204000").stat().st_size
    assert abs(size - PREDICTED_SIZE) < 1_000_000
    result = subprocess.run(
        [sys.executable, "-c", IMPORT, tmp_path / "distilcodec", tmp_path / "codec"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["same"]
    assert (found["frames"], found["wave"]) == (93, 93 * 256)
    assert found["different_codes"] > 1
    assert found["peak"] < MEMORY_LIMIT, f"{found['peak'] / 2**30:.1f} GiB"
