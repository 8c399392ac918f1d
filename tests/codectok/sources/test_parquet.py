"""Parquet files as sources: the choice of the audio column, its forms, files that rows name, memory."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from codectok.audio.files import read_audio
from codectok.errors import CodectokError, InputError
from codectok.pipelines.engine.planning.plan import load_plan
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.shard.job import ShardJob
from codectok.sources.clip import Clip
from codectok.sources.clips import clips_of
from codectok.sources.parquet.content import is_audio
from codectok.sources.rejects import ERRORS, Reject
from codectok.sources.source import Source
from codectok.sources.unused import Unused
from codectok.storage import open_storage
from tests.helpers.audio import tone
from tests.helpers.jobs import LOCAL, rejects, run, shard_job
from tests.helpers.tars import all_samples

FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
RATE = 16_000
PNG, JPEG, NPY = b"\x89PNG\r\n" + bytes(90), b"\xff\xd8\xff\xe0" + bytes(90), b"\x93NUMPY" + bytes(90)


def sound(frequency: float = 300.0, form: str = "WAV", seconds: float = 2.5) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(seconds, RATE, frequency), RATE, format=form)
    return buffer.getvalue()


def files(*values: bytes | None, path: str | None = "a.wav") -> pa.Array:
    return pa.array([{"bytes": value, "path": path} for value in values], FILE)


def write(path: Path, features: dict[str, Any] | None = None, **columns: Any) -> Source:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return Source("d", str(path.parent), path.name, "parquet", path.stat().st_size)


def clips(source: Source) -> list[Clip]:
    found = list(clips_of(source))
    assert not [one for one in found if isinstance(one, Reject)], found
    return [one for one in found if isinstance(one, Clip)]


def unused(source: Source) -> list[str]:
    return [one.name for one in clips_of(source) if isinstance(one, Unused)]


def refused(source: Source) -> str:
    (found,) = [one for one in clips_of(source) if not isinstance(one, Unused)]
    assert isinstance(found, Reject), found
    assert found.reason in ERRORS
    return found.message


WANTED, OTHER = sound(300), sound(700)
COLUMNS: dict[str, dict[str, Any]] = {
    "an image before it": {"image": files(PNG, path="a.png"), "audio": files(WANTED)},
    "binary named wav": {"wav": pa.array([WANTED])},
    "large binary": {"speech_bytes": pa.array([WANTED], pa.large_binary())},
    "binary view": {"audio": pa.array([WANTED], pa.binary_view())},
    "fixed-size binary": {"audio": pa.array([WANTED], pa.binary(len(WANTED)))},
    "dictionary": {"audio": pa.array([WANTED]).dictionary_encode()},
    "camel case": {"questionAudio": files(WANTED), "text": ["a"]},
    "content of a struct": {"picture": files(JPEG), "data": files(WANTED, path=None)},
    "content of bytes": {"id": pa.array([b"0123456789abcdef"], pa.binary(16)), "content": pa.array([WANTED])},
    "content after null": {"data": pa.array([None, WANTED])},
    "audio before other names": {"reference_audio": files(OTHER), "audio": files(WANTED)},
    "audio's image": {"audio": files(WANTED), "audio_image": files(PNG), "spectrogram": pa.array([NPY])},
    "bytes before paths": {"file": ["/nowhere/a.flac"], "audio_path": ["/nowhere/a.flac"], "data": pa.array([WANTED])},
    "struct in a struct": {"sample": pa.array([{"audio": {"bytes": WANTED, "path": "a.wav"}, "text": "inner"}])},
}


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS)
def test_audio_column_is_found_by_type_name_and_content(columns: dict[str, Any], tmp_path: Path) -> None:
    found = [one for one in clips_of(write(tmp_path / "a.parquet", **columns)) if isinstance(one, Clip)]
    assert [clip.audio for clip in found] == [WANTED]


def test_labels_of_one_name_are_all_kept(tmp_path: Path) -> None:
    sample = pa.array([{"audio": {"bytes": WANTED, "path": "a.wav"}, "text": "inner", "mood": "calm"}])
    columns = {"sample": sample, "text": pa.array(["outer"])}
    for number, names in enumerate((("sample", "text"), ("text", "sample"))):
        (clip,) = clips(write(tmp_path / f"{number}.parquet", **{name: columns[name] for name in names}))
        assert clip.span.text == "outer"
        assert json.loads(clip.span.extra or "") == {"mood": "calm", "sample.text": "inner"}


def test_feature_decides_before_names(tmp_path: Path) -> None:
    audio, image = {"_type": "Audio", "sampling_rate": None}, {"_type": "Image"}
    source = write(tmp_path / "a.parquet", {"sound": image, "x": audio}, sound=files(PNG), x=files(WANTED))
    assert [clip.audio for clip in clips(source)] == [WANTED]
    assert unused(source) == ["sound"]
    several = write(tmp_path / "b.parquet", {"x": audio, "y": audio}, x=files(WANTED), y=files(OTHER))
    assert "'x' and 'y'" in refused(several)
    image_only = write(tmp_path / "c.parquet", {"audio": image}, audio=files(PNG))
    assert [one.kind for one in clips_of(image_only) if isinstance(one, Unused)] == ["ignored_files"]


@pytest.mark.parametrize("names", [("question_audio", "answer_audio"), ("wav", "flac"), ("prompt", "response")])
def test_ambiguous_columns_are_refused_by_name(names: tuple[str, str], tmp_path: Path) -> None:
    first, second = names
    source = write(tmp_path / "a.parquet", **{first: files(WANTED), second: files(OTHER)}, text=["words"])
    assert f"'{first}' and '{second}'" in refused(source)
    assert "--audio-column" in refused(source)
    for name, data in ((first, WANTED), (second, OTHER)):
        chosen = replace(source, audio_column=name)
        assert [clip.audio for clip in clips(chosen)] == [data]
        assert unused(chosen) == [second if name == first else first]
    assert f"{first}, {second}" in refused(replace(source, audio_column="other"))


def test_lists_of_audio_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", audio=pa.array([[{"bytes": WANTED, "path": "a.wav"}]]))
    assert "lists of audio" in refused(source)


def test_job_refuses_ambiguous_files_before_it_starts(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / "in" / f"{number}.parquet", question_audio=files(WANTED), answer_audio=files(OTHER))
    with pytest.raises(InputError, match="'question_audio' and 'answer_audio'"):
        run(shard_job(), tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="'other'"):
        run(shard_job(audio_column="other"), tmp_path / "in", tmp_path / "out")
    job = shard_job(audio_column="answer_audio", deduplicate=True)
    report = run(job, tmp_path / "in", tmp_path / "out")
    assert (report.summary.total.rows, report.summary.total.rejects) == (1, {"duplicate": 11})
    (audio,) = [audio for _, audio in all_samples(tmp_path / "out")]
    np.testing.assert_allclose(audio, read_audio(OTHER, 24_000), atol=2 / 32_768)
    assert report.summary.total.unused["columns"]["question_audio"].count == 12
    with pytest.raises(InputError, match="audio-column was answer_audio and is not given"):
        run(shard_job(deduplicate=True), tmp_path / "in", tmp_path / "out")


def test_plan_without_audio_column_has_no_such_option(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.parquet", audio=files(WANTED))
    assert "audio_column" not in ShardJob(shard_job().settings).options()
    run(shard_job(), tmp_path / "in", tmp_path / "out")
    plan = load_plan(open_storage(tmp_path / "out"), {})
    assert plan is not None
    assert plan.unit(0).sources[0].audio_column is None


def test_single_ambiguous_file_costs_only_itself(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.parquet", wav=files(WANTED), flac=files(OTHER))
    write(tmp_path / "in" / "b.parquet", audio=files(WANTED))
    write(tmp_path / "in" / "c.parquet", text=["words"], label=[1])
    report = run(shard_job(), tmp_path / "in", tmp_path / "out")
    total = report.summary.total
    assert (total.rows, total.errors, total.ignored) == (1, 1, 1)
    assert "'wav' and 'flac'" in str(rejects(tmp_path / "out")[0]["message"])
    entry = total.unused["ignored_files"][".parquet"]
    assert (entry.count, entry.example) == (1, "c.parquet (no audio in its columns text, label)")


def test_ranges_of_a_file_report_it_once(tmp_path: Path) -> None:
    for columns in ({"text": ["a"]}, {"wav": files(WANTED), "flac": files(OTHER)}):
        source = write(tmp_path / "a.parquet", **columns)
        assert source.size is not None
        ranges = [replace(source, first_byte=first, last_byte=first + 100) for first in range(0, source.size, 100)]
        assert len([one for part in ranges for one in clips_of(part)]) == 1


CHANNEL = tone(2.5, RATE).astype(np.float64)
DECODED: dict[str, tuple[dict[str, Any], np.ndarray]] = {
    "float64": ({"audio": pa.array([{"path": "a.mp3", "array": CHANNEL, "sampling_rate": RATE}])}, CHANNEL),
    "float32": (
        {"audio": pa.array([{"array": CHANNEL.astype("f4"), "sampling_rate": RATE}])},
        CHANNEL,
    ),
    "int16": (
        {"audio": pa.array([{"array": np.int16(CHANNEL * 32_768), "sampling_rate": RATE}])},
        np.asarray(np.int16(CHANNEL * 32_768) / 32_768),
    ),
    "rate in a column": ({"speech": pa.array([CHANNEL.tolist()]), "sample_rate": [RATE]}, CHANNEL),
    "large list, float rate": (
        {"speech": pa.array([CHANNEL], pa.large_list(pa.float32())), "sampling_rate": [float(RATE)]},
        CHANNEL,
    ),
    "fixed-size list": (
        {"waveform": pa.array([CHANNEL], pa.list_(pa.float32(), len(CHANNEL))), "sr": [RATE]},
        CHANNEL,
    ),
    "channels first": (
        {"audio": pa.array([{"array": [CHANNEL.tolist(), (CHANNEL / 2).tolist()], "sampling_rate": RATE}])},
        CHANNEL * 0.75,
    ),
    "channels last": (
        {"audio": pa.array([{"array": np.stack([CHANNEL, CHANNEL / 2], 1).tolist(), "sampling_rate": RATE}])},
        CHANNEL * 0.75,
    ),
}


@pytest.mark.parametrize(("columns", "expected"), DECODED.values(), ids=DECODED)
def test_decoded_samples_are_read_at_their_rate(columns: dict[str, Any], expected: np.ndarray, tmp_path: Path) -> None:
    (clip,) = clips(write(tmp_path / "a.parquet", **columns, text=["words"]))
    assert clip.span.text == "words"
    np.testing.assert_array_equal(read_audio(clip.audio, RATE), expected.astype(np.float32))


def test_rate_of_feature_is_used(tmp_path: Path) -> None:
    features = {"speech": {"_type": "Audio", "sampling_rate": RATE}}
    (clip,) = clips(write(tmp_path / "a.parquet", features, speech=pa.array([CHANNEL.tolist()])))
    assert isinstance(clip.audio, bytes)
    assert soundfile.info(io.BytesIO(clip.audio)).samplerate == RATE


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"array": CHANNEL.tolist()}, "no sampling rate"),
        ({"array": CHANNEL.tolist(), "sampling_rate": 0}, "impossible sampling rate of 0"),
        ({"array": [1, 2, 3], "sampling_rate": RATE}, "int64"),
        ({"array": [[0.0, 0.1], [0.0]], "sampling_rate": RATE}, "different lengths"),
        ({"array": None, "sampling_rate": RATE}, "no samples"),
        (None, "is null"),
    ],
)
def test_unusable_samples_are_errors(value: Any, message: str, tmp_path: Path) -> None:
    kind = pa.struct([("array", pa.list_(pa.float64())), ("sampling_rate", pa.int64())])
    column = pa.array([value], kind) if value is None or value["array"] is None else pa.array([value])
    assert message in refused(write(tmp_path / "a.parquet", audio=column))


def test_samples_that_are_not_finite_are_rejected_as_such(tmp_path: Path) -> None:
    rows = [{"array": [0.1] * 50_000 + [value] + [0.1] * 50_000, "sampling_rate": RATE} for value in (None, 1e300)]
    rows.append({"array": CHANNEL.tolist(), "sampling_rate": RATE})
    write(tmp_path / "in" / "a.parquet", audio=pa.array(rows))
    run(shard_job(), tmp_path / "in", tmp_path / "out")
    assert {(row["source"], row["reason"]) for row in rejects(tmp_path / "out")} == {
        ("a.parquet/0", "not_finite"),
        ("a.parquet/1", "not_finite"),
    }


def test_files_that_rows_name_are_found_beside_the_file_or_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "data" / "clips").mkdir(parents=True)
    (tmp_path / "data" / "clips" / "beside.wav").write_bytes(WANTED)
    (tmp_path / "top.wav").write_bytes(OTHER)
    (tmp_path.parent / "outside.wav").write_bytes(OTHER)
    absolute = str(tmp_path / "top.wav")
    paths = [
        "clips/beside.wav",
        "top.wav",
        absolute,
        "clips/missing.wav",
        "../../outside.wav",
        "s3://bucket/a.wav",
        None,
    ]
    for column in (pa.array([{"bytes": None, "path": path} for path in paths], FILE), pa.array(paths)):
        write(tmp_path / "data" / "a.parquet", audio=column)
        found = list(clips_of(Source("d", str(tmp_path), "data/a.parquet", "parquet")))
        assert [one.audio for one in found[:3] if isinstance(one, Clip)] == [
            tmp_path / "data" / "clips" / "beside.wav",
            tmp_path / "top.wav",
            tmp_path / "top.wav",
        ]
        messages = [one.message for one in found[3:] if isinstance(one, Reject) and one.reason == "unreadable"]
        assert len(messages) == 4
        assert f"{tmp_path}/data/clips/missing.wav or {tmp_path}/clips/missing.wav" in messages[0]
        assert "leads out of" in messages[1]
        assert "is not fetched" in messages[2]
        assert "no audio" in messages[3]


def test_rows_without_audio_fail_a_job(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.parquet", audio=files(*[WANTED, None] * 4, path=None))
    report = run(shard_job(), tmp_path / "in", tmp_path / "out")
    assert (report.summary.total.rows, report.summary.total.errors) == (4, 4)


def test_metadata_of_a_folder_is_not_a_list_of_sources(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(WANTED)
    (one,) = clips_of(write(tmp_path / "metadata.parquet", file_name=["a.wav"], text=["words"]))
    assert isinstance(one, Unused)
    (clip,) = clips(write(tmp_path / "list.parquet", file_name=["a.wav"], text=["words"]))
    assert (clip.audio, clip.span.text) == (tmp_path / "a.wav", "words")


def test_damaged_row_group_costs_only_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"audio": files(*[sound(300 + n) for n in range(9)]), "n": list(range(9))})
    pq.write_table(table, path, row_group_size=3, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    data[middle : middle + 64] = bytes(64)
    path.write_bytes(data)
    found = list(clips_of(Source("d", str(tmp_path), "a.parquet", "parquet")))
    (reject,) = [one for one in found if isinstance(one, Reject)]
    assert "Rows 3 to 5" in reject.message
    assert [one.source for one in found if isinstance(one, Clip)] == [f"a.parquet/{n}.wav" for n in (0, 1, 2, 6, 7, 8)]


FORMS = ["WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF", "W64", "RF64", "AU", "VOC", "NIST", "SVX"]


@pytest.mark.parametrize("form", FORMS)
def test_audio_is_known_by_its_first_bytes(form: str) -> None:
    assert is_audio(sound(form=form)) is True


def test_signatures_of_compressed_audio_are_known() -> None:
    assert is_audio(b"TTA1" + bytes(90)) is True
    assert is_audio(b"#!SILK_V3" + bytes(90)) is True


OTHERS = [
    PNG, JPEG, NPY, b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 ", b"%PDF-1.7", b"PK\x03\x04", b"BM\0\0", b"\x80\x04\0", b"<html>",
    b"MAC addresses", b"the wide sea", b'{"text": "w"}',
]  # fmt: skip


@pytest.mark.parametrize("data", OTHERS)
def test_other_formats_are_not_audio(data: bytes) -> None:
    assert is_audio(data, "a.wav") is False


MEMORY = """
import resource, sys
from codectok.sources.clip import Clip
from codectok.sources.clips import clips_of
from codectok.sources.source import Source

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

list(clips_of(Source("d", sys.argv[1], "small.parquet", "parquet")))
before = peak()
count = 0
for clip in clips_of(Source("d", sys.argv[1], "large.parquet", "parquet")):
    count += len(clip.audio) if isinstance(clip, Clip) else 0
print(count, peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss differs")
def test_memory_depends_on_the_size_of_a_row(tmp_path: Path) -> None:
    row_bytes, n_rows = 4 << 20, 20
    write(tmp_path / "small.parquet", audio=files(WANTED), image=files(PNG))
    schema = pa.schema([("audio", FILE), ("image", FILE)])
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(tmp_path / "large.parquet", schema, use_dictionary=False, write_batch_size=1) as writer:
        rows = [files(rng.bytes(row_bytes)) for _ in range(n_rows)]
        writer.write_table(pa.table([pa.chunked_array(rows), pa.chunked_array(rows)], schema=schema))
    assert pq.ParquetFile(tmp_path / "large.parquet").num_row_groups == 1
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    count, used = map(int, result.stdout.split())
    assert count == row_bytes * n_rows
    assert used < 8 * row_bytes


def test_parquet_at_url_finds_files_beside_it(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    buffer = io.BytesIO()
    pq.write_table(pa.table({"audio": files(None, None, path="clips/a.wav")}), buffer)
    memory.pipe_file("/bucket/data/a.parquet", buffer.getvalue())
    memory.pipe_file("/bucket/clips/a.wav", WANTED)
    found = clips(Source("d", "memory://bucket", "data/a.parquet", "parquet"))
    assert [clip.audio for clip in found] == [WANTED, WANTED]
    with pytest.raises(CodectokError, match="2 unreadable"):  # the root is the folder of the file
        run_job(shard_job(), ["memory://bucket/data/a.parquet"], tmp_path / "out", LOCAL)
