"""Files of several formats that are joined to one."""

from __future__ import annotations

import io
import itertools

import pytest
import soundfile

from codectok.audio.files import read_audio
from codectok.audio.framing.detect import layout_of
from tests.helpers.audio import tone

RATE = 24_000
FORMATS = ("WAV", "MP3", "FLAC", "OGG", "AIFF", "AU", "CAF")


def file_of(container: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(2, RATE), RATE, format=container)
    return buffer.getvalue()


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(FORMATS, 2)))
def test_files_of_other_formats_are_decoded_in_turn(first: str, second: str) -> None:
    tag = b"ID3\x03\0\0\0\0\x01\0" + bytes(128) if second == "MP3" else b""
    samples = read_audio(file_of(first) + tag + file_of(second), RATE)
    assert len(samples) / RATE == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("container", FORMATS)
def test_text_and_tags_behind_a_file_begin_no_other_file(container: str) -> None:
    data = file_of(container) + b"<html>error</html>" * 9 + b"ID3\x03\0\0\0\0\x01\0" + bytes(128)
    layout = layout_of(io.BytesIO(data))
    assert layout is not None
    assert layout.next_file is None
    assert layout.damage is None
    assert len(read_audio(data, RATE)) / RATE == pytest.approx(2, abs=0.1)
