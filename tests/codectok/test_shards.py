from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webdataset

from codectok import InputError
from codectok.choices import AudioFormat
from codectok.keys import VALID_KEY, make_key
from codectok.shards import Sample, ShardWriter, index_path, read_index, read_manifest, write_index
from codectok.storage import LocalStorage
from tests.helpers.audio import tone


def write_shard(folder: Path, audio_format: AudioFormat = "flac") -> list[np.ndarray]:
    clips = [tone(seconds, 24_000, seed=n) for n, seconds in enumerate((2.0, 3.5, 2.2))]
    with ShardWriter(folder / "shard-000000.tar", audio_format) as writer:
        for number, clip in enumerate(clips):
            sample = Sample(
                dataset="d", source="ä.wav", start=0.0, duration=len(clip) / 24_000, sample_rate=24_000,
                n_samples=len(clip), text="héllo" if number else None,
            )  # fmt: skip
            writer.write(make_key("d", "ä.wav", number), clip, sample)
    index_path(folder, "shard-000000.tar").parent.mkdir(parents=True)
    write_index(index_path(folder, "shard-000000.tar"), writer.index)
    return clips


@pytest.mark.parametrize("audio_format", ["flac", "wav"])
def test_webdataset_reads_shard(audio_format: AudioFormat, tmp_path: Path) -> None:
    clips = write_shard(tmp_path, audio_format)
    samples = list(webdataset.WebDataset(str(tmp_path / "shard-000000.tar"), shardshuffle=False))
    assert len(samples) == len(clips)
    for sample, clip in zip(samples, clips, strict=True):
        audio, rate = soundfile.read(io.BytesIO(sample[audio_format]), dtype="float32")
        assert rate == 24_000
        np.testing.assert_allclose(audio, clip, atol=1 / 32_768)
        described = json.loads(sample["json"])
        assert described["n_samples"] == len(clip)
        assert described["source"] == "ä.wav"
    assert "text" not in json.loads(samples[0]["json"])
    assert json.loads(samples[1]["json"])["text"] == "héllo"


def test_index_points_at_audio(tmp_path: Path) -> None:
    clips = write_shard(tmp_path)
    data = (tmp_path / "shard-000000.tar").read_bytes()
    rows = read_index(LocalStorage(tmp_path), "shard-000000.tar").to_pylist()
    for row, clip in zip(rows, clips, strict=True):
        audio, _ = soundfile.read(io.BytesIO(data[row["offset"] : row["offset"] + row["size"]]), dtype="float32")
        assert len(audio) == row["n_samples"] == len(clip)


def test_equal_samples_write_equal_shards(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_shard(tmp_path / "a")
    write_shard(tmp_path / "b")
    shards = [(tmp_path / name / "shard-000000.tar").read_bytes() for name in "ab"]
    assert shards[0] == shards[1]


@pytest.mark.parametrize(
    "path", ["a/b.wav", "ü/日本.flac", "no suffix", "x" * 300 + ".wav", ".wav", "dots.in.name.mp3"]
)
def test_keys_are_valid_and_short(path: str) -> None:
    key = make_key("dätaset", path, 123)
    assert re.fullmatch(VALID_KEY, key)
    assert len(key) + len(".flac") <= 100  # the name field of a tar header


def test_keys_of_different_sources_differ() -> None:
    names = [("d", "a b.wav"), ("d", "a-b.wav"), ("d", "a/b.wav"), ("d", "a-b.flac"), ("e", "a b.wav")]
    assert len({make_key(dataset, path) for dataset, path in names}) == len(names)


def test_key_contains_file_name_without_suffix() -> None:
    assert make_key("d", "v1.0/some file.wav").startswith("d-v1-0-some-file_")
    assert make_key("d", "v1.0/file").startswith("d-v1-0-file_")


def test_missing_and_damaged_manifest_or_index_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no shards\.json"):
        read_manifest(LocalStorage(tmp_path))
    (tmp_path / "shards.json").write_text("{}")
    with pytest.raises(InputError, match="damaged"):
        read_manifest(LocalStorage(tmp_path))
    with pytest.raises(InputError, match="cannot be read"):
        read_index(LocalStorage(tmp_path), "shard-000000.tar")


@pytest.mark.parametrize("value", [-1, 2**63 - 1, "many"])
def test_manifest_with_an_impossible_number_of_samples_is_refused(value: object, tmp_path: Path) -> None:
    shard = {"name": "shard-000000.tar", "samples": value, "seconds": 1.0, "bytes": 1, "sha256": ""}
    manifest = {"format": "codectok.shards", "version": 1, "sample_rate": 24_000, "shards": [shard]}
    (tmp_path / "shards.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="is damaged"):
        read_manifest(LocalStorage(tmp_path))
