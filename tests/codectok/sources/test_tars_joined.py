"""Tars that are joined, damaged, or hold links."""

from __future__ import annotations

import gzip
import io
import itertools
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectok.audio.files import read_audio
from codectok.sources.clip import Clip
from codectok.sources.clips import clips_of
from codectok.sources.rejects import Reject
from codectok.sources.source import Source
from codectok.sources.unused import Unused
from tests.helpers.audio import tone

Member = tuple[str, bytes | str]  # name, and contents or the target of a hard link


def wav(frequency: float, seconds: float = 0.2, audio_format: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(seconds, 16_000, frequency), 16_000, format=audio_format)
    return buffer.getvalue()


def tar(members: Sequence[Member], kind: bytes = tarfile.LNKTYPE, tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = kind, data
                file.addfile(info)
            else:
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def found(path: Path, data: bytes, **fields: int | None) -> list[Clip | Reject | Unused | None]:
    path.write_bytes(data)
    source = Source("d", str(path.parent), path.name, "tar", size=len(data))
    return list(clips_of(replace(source, **fields)))  # type: ignore[arg-type]


def audio(clips: Sequence[object]) -> Mapping[str, bytes]:
    assert all(isinstance(clip, Clip) for clip in clips)
    pairs = [(clip.source, clip.audio) for clip in clips if isinstance(clip, Clip)]
    assert len({clip.id for clip in clips if isinstance(clip, Clip)}) == len(pairs)
    return {name: data for name, data in pairs if isinstance(data, bytes)}


A = [(f"a{i}.wav", wav(200 + 20 * i)) for i in range(3)]
B = [(f"b{i}.wav", wav(400 + 20 * i)) for i in range(3)]


@pytest.mark.parametrize("padding", [0, 512, 20_000 // 512 * 512])
@pytest.mark.parametrize("compressed", [False, True])
def test_joined_tars_are_read(padding: int, compressed: bool, tmp_path: Path) -> None:
    parts = [tar(A) + bytes(padding), tar(B)]
    data = b"".join(map(gzip.compress, parts)) if compressed else b"".join(parts)
    clips = found(tmp_path / "x.tar", data)
    assert audio(clips) == {f"x.tar/{name}": content for name, content in [*A, *B]}


def test_same_keys_in_joined_tars_are_different_clips(tmp_path: Path) -> None:
    clips = found(tmp_path / "x.tar", tar([("k.wav", wav(200))]) + tar([("k.wav", wav(500))]))
    assert [clip.audio for clip in clips if isinstance(clip, Clip)] == [wav(200), wav(500)]
    assert len({clip.id for clip in clips if isinstance(clip, Clip)}) == 2


@pytest.mark.parametrize("n_ranges", [2, 3, 7])
def test_ranges_of_joined_tars_share_the_samples(n_ranges: int, tmp_path: Path) -> None:
    data = tar(A) + tar(B) + b"junk" * 300
    whole = found(tmp_path / "x.tar", data)
    borders = [len(data) * i // n_ranges for i in range(n_ranges + 1)]
    parts = [
        entry
        for first, last in itertools.pairwise(borders)
        for entry in found(tmp_path / "x.tar", data, first_byte=first, last_byte=last)
    ]
    assert parts == whole
    assert len(whole) == 7


def test_bytes_behind_a_tar_are_counted(tmp_path: Path) -> None:
    *clips, unused = found(tmp_path / "x.tar", tar(A) + b"not a tar" * 100)
    assert len(audio(clips)) == 3
    assert isinstance(unused, Unused)
    assert (unused.kind, unused.count, unused.example) == ("trailing_bytes", 900, "x.tar")


def test_junk_between_joined_tars_is_counted(tmp_path: Path) -> None:
    clips = found(tmp_path / "x.tar", tar(A) + b"?" * 1024 + tar(B))
    assert [entry.count for entry in clips if isinstance(entry, Unused)] == [1024]
    assert len(audio([entry for entry in clips if not isinstance(entry, Unused)])) == 6


def test_members_behind_a_damaged_header_are_read(tmp_path: Path) -> None:
    data = bytearray(tar(A))
    second = data.index(b"a1.wav")
    data[second : second + 512] = b"\xaa" * 512
    clips = found(tmp_path / "x.tar", bytes(data))
    rejects = [entry for entry in clips if isinstance(entry, Reject)]
    assert list(audio([entry for entry in clips if isinstance(entry, Clip)])) == ["x.tar/a0.wav", "x.tar/a2.wav"]
    assert [reject.reason for reject in rejects] == ["unreadable"]
    assert str(second) in rejects[0].message.replace(",", "")


@pytest.mark.parametrize("cut", [512 * 30, 512 * 20 + 100, 700])
def test_cut_off_tar_is_rejected_after_its_samples(cut: int, tmp_path: Path) -> None:
    whole = tar(A)
    data = whole[: min(cut, whole.index(b"a2.wav") + 512)]
    *clips, reject = found(tmp_path / "x.tar", data)
    assert isinstance(reject, Reject)
    assert reject.reason == "unreadable"
    assert all(content in dict(A).values() for content in audio(clips).values())


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
@pytest.mark.parametrize("compressed", [False, True])
def test_links_are_read_as_their_targets(kind: bytes, compressed: bool, tmp_path: Path) -> None:
    folder = "" if kind == tarfile.LNKTYPE else "../"
    data = tar([("x/k0.wav", wav(200)), ("y/k1.wav", f"{folder}x/k0.wav"), ("y/k2.wav", f"{folder}y/k1.wav")], kind)
    clips = found(tmp_path / "x.tar", gzip.compress(data) if compressed else data)
    assert list(audio(clips).values()) == [wav(200)] * 3


def test_symbolic_links_to_later_members_are_read(tmp_path: Path) -> None:
    clips = found(tmp_path / "x.tar", tar([("k1.wav", "k9.wav"), ("k9.wav", wav(300))], tarfile.SYMTYPE))
    assert list(audio(clips).values()) == [wav(300)] * 2


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside.wav", "missing.wav", "k1.wav"])
def test_links_without_target_are_rejected(target: str, tmp_path: Path) -> None:
    (tmp_path / "outside.wav").write_bytes(wav(100))
    for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        first, reject = found(tmp_path / "x.tar", tar([("k0.wav", wav(200)), ("k1.wav", target)], kind))
        assert isinstance(first, Clip)
        assert isinstance(reject, Reject)
        assert (reject.source, reject.reason) == ("x.tar/k1", "unreadable")


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read(tar_format: int, tmp_path: Path) -> None:
    name = "folder/" * 40 + "é" * 90
    (clip,) = found(tmp_path / "x.tar", tar([(f"{name}.wav", wav(200))], tar_format=tar_format))
    assert isinstance(clip, Clip)
    assert clip.audio == wav(200)


def test_same_member_twice_is_not_lost(tmp_path: Path) -> None:
    first, reject = found(tmp_path / "x.tar", tar([("k.wav", wav(200)), ("k.wav", wav(300))]))
    assert isinstance(first, Clip)
    assert first.audio == wav(200)
    assert isinstance(reject, Reject)


@pytest.mark.parametrize(
    ("suffix", "audio_format"), [("sph", "NIST"), ("audio", "FLAC"), ("bin", "OGG"), ("txt", "AU")]
)
def test_members_are_audio_by_content(suffix: str, audio_format: str, tmp_path: Path) -> None:
    data = wav(200, 1.0, audio_format)
    (clip,) = found(tmp_path / "x.tar", tar([(f"k.{suffix}", data), ("k.json", b'{"text": "words"}')]))
    assert isinstance(clip, Clip)
    assert clip.span.text == "words"
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    np.testing.assert_array_equal(read_audio(clip.audio, 16_000), expected)
