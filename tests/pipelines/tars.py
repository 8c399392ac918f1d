"""Reading tars of segments as any user of webdataset would."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import webdataset

from codectok.shards import Sample


def read_samples(path: Path) -> Iterator[tuple[Sample, np.ndarray]]:
    for sample in webdataset.WebDataset(str(path), shardshuffle=False):
        audio, rate = soundfile.read(io.BytesIO(sample["flac"]), dtype="float32")
        description = Sample.model_validate_json(sample["json"])
        assert (rate, len(audio)) == (description.sample_rate, description.n_samples)
        yield description, audio
