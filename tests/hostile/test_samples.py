"""Hostile samples in tars, Parquet files and folders: each becomes a reject, and its neighbours stay as they are."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from codectok.audio import decoding
from codectok.codec import Codec
from codectok.errors import CodectokError
from codectok.pipelines.engine.job import Job
from codectok.tokens.table import read_rows
from tests.helpers.audio import tone
from tests.helpers.command_line import codectok, one_line
from tests.helpers.jobs import rejects, run, shard_job, tokenize_job
from tests.helpers.tars import all_samples

RATE, SECONDS = 24_000, 2.5
VERBS = ("shard", pytest.param("tokenize", marks=pytest.mark.slow))


def sound(number: int = 0) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(SECONDS, RATE, 200 + 60 * number), RATE, format="FLAC")
    return buffer.getvalue()


GOOD = [sound(number) for number in range(3)]


@pytest.fixture(params=VERBS)
def job(request: pytest.FixtureRequest, codec_folder: Path) -> Job:
    return shard_job() if request.param == "shard" else tokenize_job(codec_folder)


def kept(job: Job, output: Path) -> list[tuple[str, bytes]]:
    """Source and contents of each row or segment of the output."""
    if job.verb == "shard":
        return sorted((sample.source, audio.tobytes()) for sample, audio in all_samples(output))
    return sorted((row.source, row.codes.tobytes()) for row in read_rows(output))


def check(
    job: Job, hostile: Path, sound: Path, tmp_path: Path, reason: str | tuple[str, ...], n_rejects: int = 1
) -> str:
    """Check that good samples of `hostile` are kept as those of `sound`, and return the message of the first reject."""
    run(job, hostile, tmp_path / "out")
    run(job, sound, tmp_path / "clean")
    assert kept(job, tmp_path / "out") == kept(job, tmp_path / "clean")
    rows = rejects(tmp_path / "out")
    reasons = (reason,) if isinstance(reason, str) else reason
    assert rows and all(row["reason"] in reasons for row in rows), rows
    assert n_rejects == 0 or len(rows) == n_rejects, rows
    assert not rejects(tmp_path / "clean")
    return str(rows[0]["message"])


# --- tars ---------------------------------------------------------------------------------------------------------


def member(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf() + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def with_size(name: str, size: int, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> bytes:
    """A member whose header states `size`, whatever its contents."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    return bytes(block) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


END = bytes(2 * tarfile.BLOCKSIZE)


def write(path: Path, *parts: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(parts))
    return path


def good_members(*numbers: int) -> list[bytes]:
    return [member(f"g{number}.flac", GOOD[number]) for number in numbers]


def between(hostile: bytes, tmp_path: Path) -> tuple[Path, Path]:
    """A tar with `hostile` between good samples, and one without it."""
    return (
        write(tmp_path / "in" / "t.tar", *good_members(0), hostile, *good_members(1, 2), END),
        write(tmp_path / "sound" / "t.tar", *good_members(0, 1, 2), END),
    )


CLAIMS = [1 << 62, (1 << 63) - 1, 1 << 70, 1 << 40, (1 << 29) + 1]


@pytest.mark.parametrize("size", CLAIMS)
def test_member_that_states_more_than_the_tar_holds_is_rejected_alone(job: Job, size: int, tmp_path: Path) -> None:
    check(job, *between(with_size("bad.flac", size, GOOD[0]), tmp_path), tmp_path, ("unreadable", "too_large"))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("size", [1 << 62, 1 << 33, -512])
def test_extended_header_of_an_absurd_length_costs_no_neighbour(kind: bytes, size: int, tmp_path: Path) -> None:
    check(shard_job(), *between(with_size("bad", size, b"x", kind), tmp_path), tmp_path, "unreadable")


def test_negative_size_of_a_member_costs_no_neighbour(job: Job, tmp_path: Path) -> None:
    check(job, *between(with_size("bad.flac", -1024), tmp_path), tmp_path, "unreadable")


def test_chain_of_extended_headers_ends(tmp_path: Path) -> None:
    """Each header that extends another one is a level of recursion in `tarfile`."""
    header = with_size("x", 512, b"15 comment=abc\n".ljust(512, b"\0"), tarfile.XHDTYPE)
    check(shard_job(), *between(header * 3000, tmp_path), tmp_path, "unreadable", n_rejects=0)


def test_long_number_in_an_extended_header_takes_no_time(tmp_path: Path) -> None:
    size = 200_000
    header = with_size("x", size, b"1" * size, tarfile.XHDTYPE)
    check(shard_job(), *between(header, tmp_path), tmp_path, "unreadable")


def test_sparse_member_of_holes_is_rejected_by_its_size(job: Job, tmp_path: Path) -> None:
    records = b"".join(
        f"{len(text) + 3} {text}\n".encode()
        for text in ("GNU.sparse.size=1099511627776", "GNU.sparse.offset=0", "GNU.sparse.numbytes=0")
    )
    header = with_size("x", len(records), records, tarfile.XHDTYPE)
    check(job, *between(header + member("bad.flac", b""), tmp_path), tmp_path, ("too_large", "empty", "unreadable"))


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_false_size_in_a_compressed_tar_is_rejected_alone(mode: str, tmp_path: Path) -> None:
    hostile, clean = between(with_size("bad.flac", 1 << 40, GOOD[0]), tmp_path)
    packed = {"gz": "gzip", "bz2": "bz2", "xz": "lzma"}[mode]
    compress: Callable[[bytes], bytes] = __import__(packed).compress
    check(
        shard_job(), write(tmp_path / "packed" / "t.tar", compress(hostile.read_bytes())), clean, tmp_path, "too_large"
    )


TEXTS: dict[str, tuple[str, bytes]] = {
    "deep": ("bad.json", b'{"a": ' * 100_000),
    "deep and valid": ("bad.json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "digits": ("bad.json", b'{"a": ' + b"9" * 10_000 + b"}"),
    "surrogate in text": ("bad.json", rb'{"text": "\ud800"}'),
    "surrogate in speaker": ("bad.json", rb'{"speaker": "a\udfff"}'),
    "surrogate in id": ("bad.json", rb'{"id": "a\udc80"}'),
    "list": ("bad.json", b"[1]"),
    "latin": ("bad.txt", "\u00e9".encode("latin-1")),
    "long": ("bad.json", b'{"text": "' + b"a" * (1 << 24) + b'"}'),
}


@pytest.mark.parametrize("name", TEXTS)
def test_sample_with_texts_that_cannot_be_read_is_rejected_alone(job: Job, name: str, tmp_path: Path) -> None:
    hostile = member("bad.flac", GOOD[0]) + member(*TEXTS[name])
    check(job, *between(hostile, tmp_path), tmp_path, ("unreadable", "unsupported", "too_large"))


LABELS = {
    "surrogate in value": rb'{"mood": "a\ud800b"}',
    "surrogate in name": rb'{"mo\ud800od": "sad"}',
    "deep label": b'{"mood": ' + b"[" * 900 + b"]" * 900 + b"}",
    "infinite": b'{"mood": Infinity, "size": 1e999}',
    "integer": b'{"size": ' + b"9" * 4000 + b"}",
    "nul": rb'{"mood": "a\u0000b"}',
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_that_cannot_be_kept_do_not_cost_the_sample(job: Job, name: str, tmp_path: Path) -> None:
    hostile = write(
        tmp_path / "in" / "t.tar", *good_members(0), member("g1.flac", GOOD[1]), member("g1.json", LABELS[name]),
        *good_members(2), END,
    )  # fmt: skip
    clean = write(tmp_path / "sound" / "t.tar", *good_members(0, 1, 2), END)
    run(job, hostile, tmp_path / "out")
    run(job, clean, tmp_path / "clean")
    assert kept(job, tmp_path / "out") == kept(job, tmp_path / "clean")
    assert not rejects(tmp_path / "out")


OWN: dict[str, dict[str, Any]] = {
    "start": {"start": float("inf")},
    "not a number": {"start": float("nan")},
    "negative": {"start": -1e300},
    "deep": {"extra": {"a": json.loads("[" * 150 + "]" * 150)}},
}


@pytest.mark.parametrize("name", OWN)
def test_hostile_json_of_our_own_shards_is_rejected_alone(job: Job, name: str, tmp_path: Path) -> None:
    values = {"dataset": "d", "source": "s", "start": 0.0, "duration": 1.0, "sample_rate": 1, "n_samples": 1}
    hostile = member("bad.flac", GOOD[0]) + member("bad.json", json.dumps(values | OWN[name]).encode())
    check(job, *between(hostile, tmp_path), tmp_path, ("unreadable", "unsupported"))


def test_names_of_any_bytes_and_lengths_are_written(job: Job, tmp_path: Path) -> None:
    names = [
        "b\udcff.flac",
        "b\udced\udca0\udc80.flac",
        "x" * 5000 + ".flac",
        "b\x01\x7f.flac",
        "b.\udcff",
        "../../b.flac",
    ]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for number, name in enumerate([*names, "good.flac", "good.\udcfe"]):
            info = tarfile.TarInfo(name)
            data = GOOD[number % 3] if name.startswith("good") else b"no audio " * 99
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    run(job, write(tmp_path / "in" / "t.tar", buffer.getvalue()), tmp_path / "out")
    assert len(kept(job, tmp_path / "out")) == 1
    assert len(rejects(tmp_path / "out")) == len(names)


# --- Parquet ------------------------------------------------------------------------------------------------------


def table_with(tmp_path: Path, audio: pa.Array, *options: str, **others: pa.Array) -> Path:
    path = tmp_path / "in" / "p.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"audio": audio, **others}), path, row_group_size=8)
    return path


def structs(values: list[Any], kind: pa.DataType) -> pa.Array:
    return pa.array(
        [{"bytes": value, "path": None} for value in values], pa.struct([("bytes", kind), ("path", pa.string())])
    )


@pytest.mark.parametrize(
    "audio",
    [
        structs([1, 2, 3], pa.int64()),
        structs([1.5, None, 3.0], pa.float64()),
        structs([True, False, None], pa.bool_()),
        structs([["a"], [], None], pa.list_(pa.string())),
        structs(["YQ==", "", None], pa.string()),
        structs([1, 2, 3], pa.timestamp("us")),
        pa.array([{"path": 7}], pa.struct([("path", pa.int32())])),
        pa.array([1, 2, 3]),
        pa.array([None, None, None]),
        pa.array(["/nowhere.flac", "x\0y.flac", "../../etc/passwd.flac"]),
        pa.array([{"array": ["a"], "sampling_rate": 1}]),
        pa.array([{"array": [0.0] * 9, "sampling_rate": 10**18}] * 3),
        pa.array([[1e300, float("nan"), None]] * 3, pa.list_(pa.float64())),
        pa.array([[[1.0], [1.0, 2.0]]]),
    ],
    ids=str,
)  # fmt: skip
def test_parquet_with_an_audio_column_of_another_type_costs_no_neighbour(
    job: Job, audio: pa.Array, tmp_path: Path
) -> None:
    path = table_with(tmp_path, audio)
    write(path.parent / "good.flac", GOOD[0])
    run(job, path.parent, tmp_path / "out")
    assert [source for source, _ in kept(job, tmp_path / "out")] == ["good.flac"]
    assert all(row["reason"] != "unexpected_error" for row in rejects(tmp_path / "out")), rejects(tmp_path / "out")


@pytest.mark.parametrize("option", ["audio", "other"])
def test_audio_column_of_another_type_that_is_named_is_one_sentence(option: str, tmp_path: Path) -> None:
    path = table_with(tmp_path, pa.array([1, 2, 3]), other=pa.array(["a", "b", "c"]))
    result = codectok("shard", path, tmp_path / "out", "--engine", "local", "--audio-column", option)
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    assert one_line(result.stderr).startswith("Error: ")


def test_rows_of_parquet_are_rejected_one_by_one(job: Job, tmp_path: Path) -> None:
    """Labels that Python cannot hold cost their row only."""
    times = pa.array([0, 2**62, 0], pa.timestamp("ms"))
    audio = pa.array(GOOD, pa.binary())
    path = table_with(tmp_path, audio, when=times)
    run(job, path, tmp_path / "out")
    assert len(kept(job, tmp_path / "out")) >= 2
    assert len(kept(job, tmp_path / "out")) + len(rejects(tmp_path / "out")) == 3


def test_text_of_parquet_that_is_not_utf8_costs_its_row_only(job: Job, tmp_path: Path) -> None:
    offsets = pa.py_buffer(np.array([0, 1, 3, 4], np.int32).tobytes())
    texts = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"a\xff\xfec")])
    path = table_with(tmp_path, pa.array(GOOD, pa.binary()), text=texts)
    run(job, path, tmp_path / "out")
    assert [source for source, _ in kept(job, tmp_path / "out")] == ["p.parquet/0", "p.parquet/2"]
    (row,) = rejects(tmp_path / "out")
    assert (row["source"], row["reason"]) == ("p.parquet/1", "unreadable")


# --- the last line of defence ---------------------------------------------------------------------------------------


def folder_of_good(tmp_path: Path) -> Path:
    for number, data in enumerate(GOOD):
        write(tmp_path / "in" / f"g{number}.flac", data)
    return tmp_path / "in"


def test_unforeseen_exception_in_a_decoder_rejects_the_file(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = decoding.decoded_streams

    def faulty(source: Path | bytes, *arguments: Any) -> Any:
        if isinstance(source, Path) and source.name == "g1.flac":
            raise KeyError("unforeseen")
        return real(source, *arguments)

    monkeypatch.setattr("codectok.audio.files.decoded_streams", faulty)
    run(job, folder_of_good(tmp_path), tmp_path / "out")
    assert [source for source, _ in kept(job, tmp_path / "out")] == ["g0.flac", "g2.flac"]
    (row,) = rejects(tmp_path / "out")
    assert (row["source"], row["reason"]) == ("g1.flac", "unexpected_error")
    assert "KeyError" in str(row["message"]) and "report" in str(row["message"])


def test_unforeseen_exception_is_told_as_a_bug_in_the_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*arguments: Any) -> Any:
        raise ZeroDivisionError

    folder = folder_of_good(tmp_path)
    monkeypatch.setattr("codectok.audio.files.decoded_streams", faulty)
    result = codectok("shard", folder, tmp_path / "out", "--engine", "local", "--max-rejects", "1")
    assert result.exit_code == 1  # nothing was written
    assert "Traceback" not in result.output
    real = monkeypatch.undo
    real()
    (folder / "g9.flac").write_bytes(GOOD[0])
    once = iter([True])
    decoded = decoding.decoded_streams
    monkeypatch.setattr(
        "codectok.audio.files.decoded_streams", lambda *a: faulty() if next(once, False) else decoded(*a)
    )
    result = codectok("shard", folder, tmp_path / "out2", "--engine", "local", "--max-rejects", "1")
    assert result.exit_code == 0
    assert "bug of codectok" in one_line(result.output + result.stderr)
    assert "bug of codectok" in (tmp_path / "out2" / "_codectok" / "report.html").read_text()


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_faults_of_the_machine_are_no_rejects(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*arguments: Any) -> Any:
        raise error

    monkeypatch.setattr("codectok.audio.files.decoded_streams", faulty)
    monkeypatch.setattr("codectok.reading._has_memory", lambda: False)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else CodectokError):
        run(shard_job(), folder_of_good(tmp_path), tmp_path / "out")
    assert not rejects(tmp_path / "out")


def test_memory_that_only_the_file_lacks_is_a_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = decoding.decoded_streams

    def faulty(source: Path | bytes, *arguments: Any) -> Any:
        if isinstance(source, Path) and source.name == "g1.flac":
            np.zeros(1 << 50)
        return real(source, *arguments)

    monkeypatch.setattr("codectok.audio.files.decoded_streams", faulty)
    run(shard_job(), folder_of_good(tmp_path), tmp_path / "out")
    (row,) = rejects(tmp_path / "out")
    assert (row["source"], row["reason"]) == ("g1.flac", "too_large")


def test_faults_of_the_encoder_fail_the_unit(
    codec_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*arguments: Any, **options: Any) -> Any:
        raise IndexError("in the network")

    monkeypatch.setattr(Codec, "clip_encoder", property(faulty), raising=False)
    with pytest.raises((CodectokError, IndexError)):
        run(tokenize_job(codec_folder), folder_of_good(tmp_path), tmp_path / "out")
    assert not rejects(tmp_path / "out")


def test_faults_of_writing_fail_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*arguments: Any, **options: Any) -> Any:
        raise KeyError("while writing")

    monkeypatch.setattr("codectok.shards.ShardWriter.write", faulty)
    with pytest.raises(CodectokError, match="1 of 1 units failed"):
        run(shard_job(shard_seconds=100.0), folder_of_good(tmp_path), tmp_path / "out")
