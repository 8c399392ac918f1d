"""`verify` finds damaged or forged shards, and names the first wrong place."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectok import InputError
from codectok.errors import VerificationError
from codectok.pipelines.verify.output import verify_output
from codectok.shards import IndexedSample, read_index, write_index
from codectok.storage import open_storage
from tests.helpers.jobs import LOCAL, run, shard_job
from tests.helpers.records import update_record

Members = list[tuple[tarfile.TarInfo, bytes]]
TAR = "shard-000000.tar"


@pytest.fixture(scope="module")
def made(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "out"
    run(shard_job(), corpus, folder)
    return folder


@pytest.fixture
def shards(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "out")


def rewrite(folder: Path, change: Callable[[Members], Members]) -> None:
    """Change the first tar, and make records and manifest agree with it."""
    path = folder / TAR
    with tarfile.open(path) as tar:
        members = []
        for member in tar:
            file_in_tar = tar.extractfile(member)
            assert file_in_tar is not None
            members.append((member, file_in_tar.read()))
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in change(members):
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    file = update_record(folder, path)
    manifest = json.loads((folder / "shards.json").read_text())
    manifest["shards"][0] |= {"bytes": file.bytes, "sha256": file.sha256}
    (folder / "shards.json").write_text(json.dumps(manifest))


def with_json(members: Members, **changes: object) -> Members:
    """Members with another description of the first sample."""
    member, data = members[1]
    return [members[0], (member, json.dumps(json.loads(data) | changes).encode()), *members[2:]]


def renamed(members: Members, key: str, count: int = 2) -> Members:
    for member, _ in members[:count]:
        member.name = key + "." + member.name.partition(".")[2]
    return members


def aged(members: Members) -> Members:
    members[0][0].mtime = 7
    return members


def with_audio(members: Members, samples: np.ndarray, rate: int = 24_000) -> Members:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC")
    return [(members[0][0], buffer.getvalue()), *members[1:]]


def second_key(members: Members) -> str:
    return members[2][0].name.partition(".")[0]


def test_output_of_job_verifies(made: Path) -> None:
    verified = verify_output(open_storage(made))
    assert verified.rows > 5
    assert verified.units is not None
    assert verified.files > verified.units


def test_fractional_limits_verify(corpus: Path, tmp_path: Path) -> None:
    job = shard_job(sample_rate=22_050, min_seconds=1.23456, max_seconds=5.55, segmenter="fixed")
    run(job, corpus, tmp_path / "out")
    assert verify_output(open_storage(tmp_path / "out")).rows > 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: with_json(m, n_samples=5), "its JSON says 5"),
        (lambda m: with_json(m, duration=4.0), "duration"),
        (lambda m: with_json(m, sample_rate=16_000), "is at 16000 Hz, not 24000 Hz"),
        (lambda m: [m[0], (m[1][0], b"{"), *m[2:]], "JSON of the sample .* is damaged"),
        (lambda m: renamed(m, "ü"), "characters"),
        (lambda m: renamed(m, second_key(m)), "index"),
        (lambda m: renamed(m, "other", count=1), "no JSON beside its audio"),
        (lambda m: [m[0], *m[2:]], "no JSON beside its audio"),
        (lambda m: m[1:], "does not begin with its audio"),
        (lambda m: m[:-1], "no JSON beside its audio"),
        (lambda m: m[2:], "index"),
        (lambda m: m[:-2], "samples of .* but shards.json says"),
        (aged, "plain file"),
        (lambda m: [(m[0][0], b"text"), *m[1:]], "cannot be decoded"),
        (lambda m: with_audio(m, np.zeros(100)), "has 100 samples"),
    ],
)
def test_wrong_sample_is_named(change: Callable[[Members], Members], words: str, shards: Path) -> None:
    rewrite(shards, change)
    with pytest.raises(VerificationError, match=words):
        verify_output(open_storage(shards))


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: corrupt(p / TAR), f"{TAR} has changed: its hash"),
        (lambda p: corrupt(p / "_codectok" / "index" / "shard-000001"), "shard-000001 has changed"),
        (lambda p: (p / TAR).unlink(), "units are not complete, the first 0"),
        (lambda p: (p / "_codectok" / "records" / "000001.json").unlink(), "units are not complete, the first 1"),
        (lambda p: (p / "shards.json").unlink(), r"shards\.json is missing"),
        (lambda p: (p / "extra.tar").touch(), r"extra\.tar belongs to no unit"),
        (lambda p: (p / "_codectok" / "index" / "shard-000009").touch(), "shard-000009 belongs to no unit"),
    ],
)
def test_damaged_folder_is_named(damage: Callable[[Path], None], words: str, shards: Path) -> None:
    damage(shards)
    with pytest.raises(VerificationError, match=words):
        verify_output(open_storage(shards))


def test_edited_manifest_is_found(shards: Path) -> None:
    manifest = json.loads((shards / "shards.json").read_text())
    for change, words in (
        (lambda shards: [*shards[:-1], shards[-1] | {"samples": 99}], "disagree about"),
        (lambda shards: shards[1:], f"does not name {TAR}"),
        (lambda shards: [*shards, shards[0] | {"name": "x.tar"}], r"names x\.tar"),
    ):
        (shards / "shards.json").write_text(json.dumps(manifest | {"shards": change(manifest["shards"])}))
        with pytest.raises(VerificationError, match=words):
            verify_output(open_storage(shards))


def test_unfinished_output_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no output of a job"):
        verify_output(open_storage(tmp_path))
    run(shard_job(), corpus, tmp_path / "out", replace(LOCAL, limit=1))
    with pytest.raises(VerificationError, match="run the same command again"):
        verify_output(open_storage(tmp_path / "out"))


def test_repeated_key_is_found(shards: Path) -> None:
    rewrite(shards, lambda members: renamed(members, second_key(members)))
    index_path = shards / "_codectok" / "index" / "shard-000000"
    rows = read_index(open_storage(shards), TAR).to_pylist()
    rows[0]["key"] = rows[1]["key"]
    write_index(index_path, [IndexedSample(**row) for row in rows])
    update_record(shards, index_path)
    with pytest.raises(VerificationError, match="same key"):
        verify_output(open_storage(shards))
