"""`verify --sources` reads sources again with ffmpeg and compares durations."""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from codectok.audio.ffmpeg import decoding as ffmpeg
from codectok.errors import InputError, VerificationError
from codectok.pipelines.verify.intervals import Interval, seconds_of, seconds_without, union, within
from codectok.pipelines.verify.sources import SourcesReport, verify_sources
from codectok.storage import open_storage
from tests.helpers.audio import tone
from tests.helpers.command_line import assert_refused, codectok, one_line
from tests.helpers.jobs import run, shard_job, tokenize_job
from tests.helpers.records import update_record
from tests.helpers.tars import write_tar

needs_ffmpeg = pytest.mark.skipif(not ffmpeg.is_installed(), reason="needs ffmpeg")
TAR = "shard-000000.tar"


def wav(seconds: float, rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(seconds, rate), rate, format="WAV")
    return buffer.getvalue()


def write(folder: Path, **seconds: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, duration in seconds.items():
        (folder / f"{name}.wav").write_bytes(wav(duration))
    return folder


def again(output: Path, share: float = 1.0, seed: int = 0) -> SourcesReport:
    return verify_sources(open_storage(output), share, seed)


def rewrite(output: Path, change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> None:
    """Change the members of the first tar, and make its record agree."""
    members = []
    with tarfile.open(output / TAR) as tar:
        for member in tar:
            opened = tar.extractfile(member)
            assert opened is not None
            members.append((member.name, opened.read()))
    update_record(output, write_tar(output / TAR, change(members)))


@needs_ffmpeg
def test_missing_source_is_unread(tmp_path: Path) -> None:
    write(tmp_path / "in", a=3, b=3)
    (tmp_path / "in.jsonl").write_text('{"path": "in/a.wav"}\n{"path": "in/b.wav"}\n{"path": "in/none.wav"}\n')
    run(shard_job(), tmp_path / "in.jsonl", tmp_path / "out")
    (tmp_path / "in" / "b.wav").unlink()
    report = again(tmp_path / "out")
    assert (report.planned, report.compared) == (3, 1)
    (gone, absent) = report.unread
    assert gone.name == "in/in/b.wav" and "missing now" in gone.message
    assert absent.name == "in/in/none.wav" and "No such file" in absent.message


@needs_ffmpeg
def test_unusable_line_hides_no_loss(tmp_path: Path) -> None:
    write(tmp_path / "in", a=8)
    lines = [{"path": "in/a.wav"}, {"path": "in/a.wav", "start": 2.0, "duration": 0.0}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run(shard_job(max_seconds=4.0, segmenter="fixed"), tmp_path / "m.jsonl", tmp_path / "out")
    report = again(tmp_path / "out")
    report.check()
    assert not report.partly
    rewrite(tmp_path / "out", lambda members: members[:-2])
    with pytest.raises(VerificationError, match="differ"):
        again(tmp_path / "out").check()


def test_intervals_are_compared_like_sets_of_milliseconds() -> None:
    chance = random.Random(0)

    def some() -> list[Interval]:
        starts = [chance.randrange(100) for _ in range(chance.randrange(8))]
        return [Interval(start, start + chance.randrange(20)) for start in starts]

    def milliseconds(intervals: list[Interval]) -> set[int]:
        return {one for start, end in intervals for one in range(int(start), int(end))}

    for _ in range(300):
        first, second = some(), some()
        assert milliseconds(union(first)) == milliseconds(first)
        assert seconds_of(union(first)) == len(milliseconds(first))
        assert milliseconds(within(first, 20, 70)) == milliseconds(first) & set(range(20, 70))
        expected = len(milliseconds(first) - milliseconds(second))
        assert seconds_without(union(first), union(second)) == expected


@needs_ffmpeg
def test_sound_outputs_agree_with_ffmpeg(corpus: Path, tmp_path: Path) -> None:
    """Formats, damage and text files: nothing is different, and what ffmpeg cannot read is named."""
    run(shard_job(), corpus, tmp_path / "out")
    report = again(tmp_path / "out")
    report.check()
    assert report.planned == report.compared + len(report.unread)
    assert report.compared >= 6
    assert report.unread


@needs_ffmpeg
def test_containers_are_compared_clip_by_clip(codec_folder: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", a=2.5)
    write_tar(folder / "b.tar", [(f"{n}.wav", wav(2 + n / 4)) for n in range(5)] + [("5.wav", b"no audio")])
    audio = [{"bytes": wav(2 + n / 4), "path": None} for n in range(5)]
    pq.write_table(pa.table({"audio": pa.array(audio)}), folder / "c.parquet", row_group_size=2)
    for job in (shard_job(deduplicate=True), shard_job(segmenter="fixed"), tokenize_job(codec_folder)):
        output = tmp_path / f"out-{job.verb}-{len(list(tmp_path.iterdir()))}"
        run(job, folder, output)
        report = again(output)
        report.check()
        assert (report.planned, report.compared) == (12, 11)
        assert [one.name for one in report.unread] == ["in/b.tar/5.wav"]


@needs_ffmpeg
def test_shards_of_shards_are_compared(tmp_path: Path) -> None:
    run(shard_job(), write(tmp_path / "in", a=25.0, b=3.0), tmp_path / "first")
    run(shard_job(max_seconds=4.0), tmp_path / "first", tmp_path / "second")
    again(tmp_path / "second").check()
    rewrite(tmp_path / "second", lambda members: members[2:])
    assert [one.name for one in again(tmp_path / "second").different] == ["in/a.wav"]


@needs_ffmpeg
@pytest.mark.parametrize("first", [0, 2])
def test_missing_segment_is_found(first: int, tmp_path: Path) -> None:
    run(shard_job(), write(tmp_path / "in", a=25.0, b=3.0), tmp_path / "out")
    again(tmp_path / "out").check()
    rewrite(tmp_path / "out", lambda members: members[:first] + members[first + 2 :])
    report = again(tmp_path / "out")
    (found,) = report.different
    assert (found.name, found.ffmpeg_seconds) == ("in/a.wav", 25.0)
    with pytest.raises(VerificationError, match=rf"in/a\.wav has 25\.00 s by ffmpeg and {found.output_seconds:.2f} s"):
        report.check()


@needs_ffmpeg
def test_too_much_output_is_found(tmp_path: Path) -> None:
    run(shard_job(), write(tmp_path / "in", a=5.0, b=3.0), tmp_path / "out")

    def longer(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        name, data = members[-1]
        return [*members[:-1], (name, json.dumps(json.loads(data) | {"duration": 3.5}).encode())]

    rewrite(tmp_path / "out", longer)
    assert [one.name for one in again(tmp_path / "out").different] == ["in/b.wav"]


@needs_ffmpeg
def test_missing_row_of_a_table_is_found(codec_folder: Path, tmp_path: Path) -> None:
    run(tokenize_job(codec_folder), write(tmp_path / "in", a=2.5, b=3.0), tmp_path / "out")
    again(tmp_path / "out").check()
    path = tmp_path / "out" / "part-000000.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    update_record(tmp_path / "out", path)
    assert [one.name for one in again(tmp_path / "out").different] == ["in/a.wav"]


@needs_ffmpeg
def test_spans_of_a_manifest_are_compared_without_the_gaps(tmp_path: Path) -> None:
    write(tmp_path, a=20.0, b=4.0)
    spans = [(0.5, 3.0), (2.5, 6.0), (10.0, 13.0), (18.0, 25.0)]
    lines = [{"path": "a.wav", "start": start, "end": end, "text": f"{start}"} for start, end in spans]
    lines += [{"path": "b.wav", "start": 1.0}, {"path": "missing.wav"}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run(shard_job(), tmp_path / "m.jsonl", tmp_path / "out")
    report = again(tmp_path / "out")
    report.check()
    assert [one.name for one in report.unread] == ["m/missing.wav"]
    assert report.compared == 2
    assert report.seconds == pytest.approx(5.5 + 3.0 + 2.0 + 3.0)


@needs_ffmpeg
def test_spans_of_a_sample_in_a_tar_are_compared_alone(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_tar(folder / "audio_0.tar", [("a.wav", wav(12.0)), ("b.wav", wav(3.0))])
    spans = [("a.wav", 0.5, 2.5), ("a.wav", 6.0, 3.0), ("b.wav", 0.0, 3.0)]
    lines = [
        {"audio_filepath": name, "offset": start, "duration": length, "text": f"{start}", "shard_id": 0}
        for name, start, length in spans
    ]
    (folder / "tarred_audio_manifest.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = run(shard_job(), folder, tmp_path / "out")
    assert report.summary.total.rows == 3
    found = again(tmp_path / "out")
    found.check()
    assert found.compared == 3
    assert found.seconds == pytest.approx(2.5 + 3.0 + 3.0)


@needs_ffmpeg
def test_rejects_of_unknown_duration_limit_the_comparison(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", a=3.0)
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(40.0, 16_000), 16_000, format="FLAC")
    data = bytearray(buffer.getvalue())
    place = len(data) * 3 // 4
    data[place : place + 50] = bytes(50)
    (folder / "b.flac").write_bytes(data)
    run(shard_job(shard_seconds=3600.0), folder, tmp_path / "out")
    report = again(tmp_path / "out")
    report.check()
    assert [(one.name, bool(one.remark)) for one in report.partly] == [("in/b.flac", True)]
    rewrite(tmp_path / "out", lambda members: members[:2])
    assert [one.name for one in again(tmp_path / "out").different] == ["in/b.flac"]


@needs_ffmpeg
def test_share_is_random_by_seed_and_never_empty(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", **{f"f{n}": 2.5 for n in range(12)})
    write_tar(folder / "t.tar", [(f"{n}.wav", wav(2.5)) for n in range(12)])
    run(shard_job(shard_seconds=3600.0), folder, tmp_path / "out")
    for path in folder.glob("*.wav"):
        path.unlink()  # so that files are named as unread

    def chosen(share: float, seed: int) -> list[str]:
        return [one.name for one in again(tmp_path / "out", share, seed).unread]

    assert len(chosen(1.0, 0)) == 12
    assert chosen(0.25, 0) == chosen(0.25, 0)
    assert len(chosen(0.25, 0)) == 3
    assert len({tuple(chosen(0.25, seed)) for seed in range(4)}) > 1
    least = again(tmp_path / "out", 1e-9)
    assert (len(least.unread), least.compared, least.planned) == (1, 1, 24)


def test_impossible_requests_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(shard_job(), write(tmp_path / "in", a=2.5), tmp_path / "out")
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="share"):
            again(tmp_path / "out", share)
    with pytest.raises(InputError, match="not the output of `shard` or `tokenize`"):
        again(tmp_path / "in")
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: False)
    with pytest.raises(InputError, match="ffmpeg, which is not installed"):
        again(tmp_path / "out")


@needs_ffmpeg
def test_verify_sources_on_the_command_line(tmp_path: Path) -> None:
    run(shard_job(), write(tmp_path / "in", a=25.0, b=3.0), tmp_path / "out")
    done = codectok("verify", tmp_path / "out", "--sources")
    assert done.exit_code == 0, done.output
    assert "2 of 2, 28.0 s by ffmpeg as in the output" in one_line(done.stdout)
    shutil.rmtree(tmp_path / "in")
    done = codectok("verify", tmp_path / "out", "--sources", "--share", 0.5)
    assert done.exit_code == 0, done.output
    assert "0 of 2" in one_line(done.stdout) and "1 cannot be read" in one_line(done.stdout)
    assert_refused(codectok("verify", tmp_path / "out", "--sources", "--share", 0), "share")


@needs_ffmpeg
def test_ignored_files_are_not_reported(tmp_path: Path) -> None:
    write(tmp_path / "in", a=3.0)
    (tmp_path / "in" / "index.docbook").write_text("<para>no audio</para>\n" * 50)
    run(shard_job(), tmp_path / "in", tmp_path / "out")
    report = again(tmp_path / "out")
    report.check()
    assert (report.planned, report.compared, report.unread) == (1, 1, [])
