"""Members beside the audio of a tar's sample: which of them are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from codectok.sources.clip import Clip
from codectok.sources.clips import clips_of
from codectok.sources.rejects import Reject
from codectok.sources.unused import Unused
from tests.helpers.tars import write_tar

from .test_containers import flac, source


def clip_and_unused(folder: Path, **members: bytes) -> tuple[Clip | Reject, dict[str, int]]:
    named = [(f"set/k.{name.replace('_', '.')}", data) for name, data in members.items()]
    clip, *unused = clips_of(source(write_tar(folder / "a.tar", [("set/k.flac", flac(1)), *named])))
    assert isinstance(clip, Clip | Reject)
    return clip, {one.name: one.count for one in unused if isinstance(one, Unused) and one.kind == "members"}


@pytest.mark.parametrize(
    ("members", "text", "unused"),
    [
        ({"normalized_txt": b"words", "original_txt": b"Words."}, "words", {"original.txt"}),
        ({"lab": b"words"}, "words", set()),
        ({"trans_txt": b"words\n"}, "words", set()),
        ({"txt": b"words", "normalized_txt": b"w", "cls": b"3"}, "words", {"normalized.txt", "cls"}),
        ({"metadata_json": b'{"text": "words"}'}, "words", set()),
        ({"json": b'{"text": "words"}', "other_json": b"[1]"}, "words", {"other.json"}),
        ({"json": b'{"text": ["words"]}'}, "words", set()),
        ({"lab": b"0 5000 sil\n5000 9000 w\n"}, None, {"lab"}),
        ({"txt": b" \n", "json": b'{"transcript": "words"}'}, "words", set()),
        ({"TXT": b"words"}, "words", set()),
        ({"json": b""}, None, set()),
    ],
)
def test_last_suffix_decides(members: dict[str, bytes], text: str | None, unused: set[str], tmp_path: Path) -> None:
    clip, left = clip_and_unused(tmp_path, **members)
    assert isinstance(clip, Clip)
    assert clip.span.text == text
    assert left == dict.fromkeys(unused, 1)


def test_text_file_is_preferred_to_the_json(tmp_path: Path) -> None:
    clip, _ = clip_and_unused(tmp_path, txt=b"words", json=b'{"text": "Words.", "sentence": "words", "speaker": "ann"}')
    assert isinstance(clip, Clip)
    assert (clip.span.text, clip.span.labels.speaker) == ("words", "ann")
    assert clip.span.extra == '{"json_text": "Words."}'


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "unreadable"),
        (b"[1]", "unreadable"),
        (b'"text"', "unreadable"),
        (b"\xff", "unreadable"),
        (b"[" * 100_000, "unreadable"),
        (b'{"text": ["a", "b"]}', "unsupported"),
        (b'{"text": {"de": "a"}}', "unsupported"),
    ],
)
def test_json_that_cannot_be_used_is_a_reject(data: bytes, reason: str, tmp_path: Path) -> None:
    found, _ = clip_and_unused(tmp_path, json=data)
    assert isinstance(found, Reject)
    assert (found.source, found.reason) == ("a.tar/set/k", reason)


def test_unused_members_are_counted_once_for_a_tar(tmp_path: Path) -> None:
    members = [
        (f"{n}.{end}", data) for n in range(3) for end, data in (("flac", flac(1)), ("txt", b"w"), ("cls", b"1"))
    ]
    found = list(clips_of(source(write_tar(tmp_path / "a.tar", members))))
    assert [type(one) for one in found] == [Clip, Clip, Clip, Unused]
    assert found[-1] == Unused("members", "cls", 3, "a.tar/0.cls")
