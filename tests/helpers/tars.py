"""Writes tars, and reads shards with webdataset."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import webdataset

from codectok.shards import Sample, read_manifest
from codectok.storage import LocalStorage


def read_samples(path: Path) -> Iterator[tuple[Sample, np.ndarray]]:
    for sample in webdataset.WebDataset(str(path), shardshuffle=False):
        audio, rate = soundfile.read(io.BytesIO(sample["flac"]), dtype="float32")
        description = Sample.model_validate_json(sample["json"])
        assert (rate, len(audio)) == (description.sample_rate, description.n_samples)
        yield description, audio


def all_samples(folder: Path) -> list[tuple[Sample, np.ndarray]]:
    """Return the samples of all tars in the output of a job."""
    return [
        sample for entry in read_manifest(LocalStorage(folder)).shards for sample in read_samples(folder / entry.name)
    ]


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: Literal["w", "w:gz"] = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path
