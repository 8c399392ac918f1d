"""Sizes that files state, and contents that expand: bounded memory, a reject with a reason, and sound neighbours."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from codectok.errors import AudioError, InputError
from codectok.sources import decompression
from codectok.sources.decompression import Decompressed
from tests.helpers.audio import tone
from tests.helpers.command_line import assert_refused, codectok
from tests.helpers.evaluation import QUICK
from tests.helpers.jobs import rejects, run, shard_job, tokenize_job
from tests.helpers.tars import all_samples, write_tar

RATE, MB = 24_000, 1 << 20
LIMIT, MOST_MB = 8 * MB, 90
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def sound(seconds: float = 2.5, number: int = 0) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(seconds, RATE, 200 + 60 * number), RATE, format="FLAC")
    return buffer.getvalue()


def memory_of(name: str) -> int:
    """A figure of the memory of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) // 1024


def check(source: Path, output: Path, reason: str, kept: int = 2, most_mb: int = MOST_MB) -> None:
    """Shard with a limit of `LIMIT`, and check what is kept, the reason of rejects, and the memory that it takes."""
    pa.default_memory_pool().release_unused()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = memory_of("VmRSS")
    run(shard_job(max_file_bytes=LIMIT), source, output)
    assert memory_of("VmHWM") - before < most_mb
    assert len(all_samples(output)) == kept
    rows = rejects(output)
    assert rows and {row["reason"] for row in rows} == {reason}, rows


def hostile_tar(path: Path, size: int, mode: str = "") -> Path:
    """A tar with a member of `size` zeros between two good ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, f"w:{mode}") as tar:  # type: ignore[call-overload]
        for name, data in (("a.flac", sound()), ("bad.wav", b""), ("c.flac", sound(number=1))):
            info = tarfile.TarInfo(name)
            info.size = len(data) or size
            tar.addfile(info, io.BytesIO(data) if data else _Zeros())
    return path


class _Zeros(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        return bytes(size)


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_member_that_expands_beyond_the_limit_is_rejected_alone(mode: str, tmp_path: Path) -> None:
    check(hostile_tar(tmp_path / "t.tar", 100 * MB, mode), tmp_path / "out", "too_large")


def test_tar_that_expands_without_measure_keeps_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompression, "FREE_EXPANSION", 8 * MB)
    run(shard_job(), hostile_tar(tmp_path / "t.tar", 200 * MB, "bz2"), tmp_path / "out")
    assert len(all_samples(tmp_path / "out")) == 1
    assert {row["reason"] for row in rejects(tmp_path / "out")} <= {"too_large", "unreadable"}


def test_sample_of_many_members_is_bounded_by_their_sum(tmp_path: Path) -> None:
    members = [(f"bad.{number}", bytes(4 * MB)) for number in range(8)]
    write_tar(tmp_path / "t.tar", [("a.flac", sound()), ("bad.flac", sound()), *members, ("c.flac", sound(number=1))])
    run(shard_job(max_file_bytes=16 * MB), tmp_path / "t.tar", tmp_path / "out")
    assert len(all_samples(tmp_path / "out")) == 2
    (row,) = rejects(tmp_path / "out")
    assert (row["source"], row["reason"]) == ("t.tar/bad", "too_large")


def parquet(path: Path, values: Sequence[bytes | None], **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"audio": pa.array(values, pa.large_binary())}), path, **options)
    return path


def test_value_of_parquet_that_expands_is_rejected_with_its_row_group(tmp_path: Path) -> None:
    values = [sound(), bytes(100 * MB), sound(number=1)]
    parquet(tmp_path / "p.parquet", values, row_group_size=1, compression="zstd", use_dictionary=False)
    check(tmp_path / "p.parquet", tmp_path / "out", "too_large")


@pytest.mark.slow
def test_values_of_parquet_that_share_a_dictionary_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    value = bytes(7 * MB)
    parquet(tmp_path / "p.parquet", [sound(), *[value] * 80, sound(number=1)], dictionary_pagesize_limit=1 << 30)
    check(tmp_path / "p.parquet", tmp_path / "out", "unreadable", most_mb=400)


def test_values_of_parquet_that_share_their_beginning_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    value = bytes(7 * MB)
    path = tmp_path / "p.parquet"
    table = pa.table({"audio": pa.array([sound(), *[value] * 80, sound(number=1)], pa.binary())})
    pq.write_table(
        table, path, use_dictionary=False, column_encoding={"audio": "DELTA_BYTE_ARRAY"}, data_page_size=1 << 30
    )
    check(path, tmp_path / "out", "unreadable", most_mb=400)


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int16()])
def test_list_of_parquet_that_expands_is_rejected(kind: pa.DataType, tmp_path: Path) -> None:
    zeros = pa.array(np.zeros(32 * MB, kind.to_pandas_dtype()), kind)
    audio = pa.LargeListArray.from_arrays(pa.array([0, len(zeros)]), zeros)
    path = tmp_path / "in" / "p.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"audio": audio, "sampling_rate": pa.array([RATE])}), path, compression="zstd")
    for number in range(2):
        (path.parent / f"g{number}.flac").write_bytes(sound(number=number))
    check(path.parent, tmp_path / "out", "too_large")


def test_page_that_states_gigabytes_costs_its_row_group(tmp_path: Path) -> None:
    """The uncompressed size of the second page is overwritten by the largest number of the format."""
    path = parquet(
        tmp_path / "p.parquet", [sound(), sound(number=2), sound(number=1)], row_group_size=1, compression="zstd"
    )
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data, place = bytearray(path.read_bytes()), chunk.dictionary_page_offset or chunk.data_page_offset
    assert data[place] == 0x15 and data[place + 2] == 0x15  # two numbers: the type, then the size
    end = place + 3
    while data[end] & 128:
        end += 1
    size = end + 1 - (place + 3)
    data[place + 3 : end + 1] = b"\xff" * (size - 1) + b"\x7f"
    path.write_bytes(data)
    run(shard_job(), path, tmp_path / "out")
    assert len(all_samples(tmp_path / "out")) == 2
    assert [row["source"] for row in rejects(tmp_path / "out")] == ["p.parquet/1"]


@pytest.mark.parametrize("verb", ["shard", "tokenize"])
def test_largest_file_is_an_option(verb: str, codec_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "large.flac").write_bytes(sound(20.0))
    (folder / "small.flac").write_bytes(sound(2.5))
    write_tar(folder / "t.tar", [("large.flac", sound(20.0)), ("small.flac", sound(2.5))])
    parquet(folder / "p.parquet", [sound(20.0), sound(2.5)])
    limit = len(sound(20.0)) - 1
    own = ["--codec", codec_folder, "--device", "cpu"] if verb == "tokenize" else []
    options = ["--engine", "local", "--max-rejects", "1", "--max-file-bytes", limit]
    result = codectok(verb, folder, tmp_path / "out", *own, *options)
    assert result.exit_code == 0, result.output
    found = {(str(row["source"]), row["reason"]) for row in rejects(tmp_path / "out")}
    assert found == {(name, "too_large") for name in ("large.flac", "t.tar/large", "p.parquet/0")}
    assert codectok(verb, folder, tmp_path / "out2", *own, "--max-file-bytes", "0").exit_code == 2


def test_longest_file_is_an_option(codec_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "long.flac").write_bytes(sound(20.0))
    (folder / "short.flac").write_bytes(sound(2.5))
    options = ["--engine", "local", "--max-file-seconds", "7.5"]
    assert codectok("shard", folder, tmp_path / "out", *options).exit_code == 0
    assert sum(sample.duration for sample, _ in all_samples(tmp_path / "out")) == 10
    result = codectok("tokenize", folder, tmp_path / "tokens", "--codec", codec_folder, "--device", "cpu", *options)
    assert result.exit_code == 0, result.output
    for output in ("out", "tokens"):
        (row,) = rejects(tmp_path / output)
        assert (row["source"], row["start"], row["reason"]) == ("long.flac", 7.5, "too_long")
    for seconds in ("0", "-1", "nan", "inf"):
        refused = codectok("shard", folder, tmp_path / "no", "--engine", "local", "--max-file-seconds", seconds)
        assert refused.exit_code == 2


def test_encode_and_evaluate_have_both_limits(codec_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "long.flac").write_bytes(sound(9.0))
    (folder / "short.flac").write_bytes(sound(2.5))
    codec = ["--codec", codec_folder, "--device", "cpu"]
    limits = {"too_large": ["--max-file-bytes", len(sound(9.0)) - 1], "too_long": ["--max-file-seconds", 5]}
    for reason, limit in limits.items():
        encoded = codectok("encode", folder, tmp_path / f"{reason}.npz", *codec, *limit)
        assert encoded.exit_code == 0, encoded.output
        assert "long.flac" in encoded.output
        out = tmp_path / reason
        measured = codectok("evaluate", folder, out, *codec, *limit, *QUICK, "--max-rejects", 1)
        assert measured.exit_code == 0, measured.output
        (row,) = rejects(out)
        assert (row["source"], row["reason"]) == ("long.flac", reason)


def test_limits_that_are_not_set_do_not_change_plans(codec_folder: Path) -> None:
    names = {"max_file_bytes", "max_file_seconds"}
    assert not names & shard_job().options().keys()
    assert not names & tokenize_job(codec_folder).options().keys()


BOMBS = {"one line": b"x" * (64 * MB), "many lines": b'{"path": "a.flac"}\n' * MB}


@pytest.mark.parametrize("name", BOMBS)
def test_manifest_that_expands_is_refused_in_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "FREE_EXPANSION", MB)
    path = tmp_path / "m.jsonl.gz"
    path.write_bytes(gzip.compress(BOMBS[name]))
    assert_refused(codectok("shard", path, tmp_path / "out", "--engine", "local"), "m.jsonl.gz")


def test_hostile_lines_of_a_manifest_are_rejected_alone(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(sound())
    lines = [
        "[" * 100_000,
        '{"path": ' * 100_000,
        '{"path": "a.flac", "size": ' + "9" * 10_000 + "}",
        r'{"path": "\ud800.flac"}',
        r'{"path": "a.flac", "text": "\udfff"}',
        '{"path": "a.flac", "duration": 1e400}',
        '{"path": ["a.flac", {"b": 1}]}',
        '{"path": "' + "a" * 70_000 + '.flac"}',
        '{"path": "a.flac", "start": ' + "9" * 400 + "}",
        '{"path": "a.flac", "supervisions": [[1], null, {"start": {}}]}',
        '{"path": "a.flac", "channel": ' + "9" * 100 + "}",
        '{"recording": {"sources": [5]}, "start": 0, "duration": 1, "id": 3}',
        '{"path": "a.flac", "deep": ' + "[" * 500 + "]" * 500 + "}",
        json.dumps({"path": "a.flac"}),
    ]
    (tmp_path / "m.jsonl").write_text("".join(line + "\n" for line in lines))
    run(shard_job(), tmp_path / "m.jsonl", tmp_path / "out")
    assert len(all_samples(tmp_path / "out")) >= 1
    assert all(row["reason"] != "unexpected_error" for row in rejects(tmp_path / "out")), rejects(tmp_path / "out")


def test_array_file_that_states_a_large_shape_is_refused(codec_folder: Path, tmp_path: Path) -> None:
    """`decode` reads arrays of `.npz`; the header of one states a shape of terabytes."""
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (4294967296, 128), }".ljust(117) + b"\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)
    import zipfile

    with zipfile.ZipFile(tmp_path / "c.npz", "w") as file:
        file.writestr("a.npy", array)
    result = codectok("decode", tmp_path / "c.npz", tmp_path / "out", "--codec", codec_folder, "--device", "cpu")
    assert result.exit_code in (1, 2) and "Traceback" not in result.output


# --- decompression --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", COMPRESS)
@pytest.mark.parametrize("joined", [1, 3])
def test_contents_are_those_of_the_standard_library(mode: str, joined: int) -> None:
    parts = [np.random.default_rng(number).bytes(300_001) + bytes(700_000) for number in range(joined)]
    packed, whole = b"".join(COMPRESS[mode](part) for part in parts), b"".join(parts)
    file = io.BufferedReader(Decompressed(io.BytesIO(packed), "x"), 1 << 16)
    assert file.read() == whole
    for place in (0, 5, len(whole) - 3, 400_000, len(whole)):
        file.seek(place)
        assert file.read(1000) == whole[place : place + 1000]


@pytest.mark.parametrize("mode", COMPRESS)
def test_damage_and_cuts_of_compressed_data_are_told(mode: str) -> None:
    packed = COMPRESS[mode](np.random.default_rng(0).bytes(500_000))
    with pytest.raises(EOFError):
        Decompressed(io.BytesIO(packed[:-20]), "x").readall()
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0xFF
    with pytest.raises((OSError, EOFError)):
        Decompressed(io.BytesIO(bytes(damaged)), "x").readall()


def test_expansion_without_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompression, "FREE_EXPANSION", MB)
    for compress in COMPRESS.values():
        with pytest.raises(AudioError, match="expands"):
            Decompressed(io.BytesIO(compress(bytes(32 * MB))), "x").seek(0, io.SEEK_END)
    with pytest.raises(InputError):
        Decompressed(io.BytesIO(gzip.compress(bytes(32 * MB))), "x").readall()
