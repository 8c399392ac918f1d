from __future__ import annotations

import io
import os

import pytest

from codectok.audio.framing.layout import Stream
from codectok.audio.framing.view import StreamView

DATA = bytes(range(200))
STREAMS = {
    "whole": (Stream(0, 200), DATA),
    "range": (Stream(10, 20), DATA[10:20]),
    "patches": (Stream(10, 20, ((8, b"abc"), (19, b"xyz"))), b"c" + DATA[11:19] + b"x"),
    "head": (Stream(10, 20, head=b"head"), b"head" + DATA[10:20]),
    "holes": (
        Stream(10, 100, ((49, b"ab"),), holes=((20, 30), (40, 50))),
        DATA[10:20] + DATA[30:40] + b"b" + DATA[51:100],
    ),
    "all": (Stream(10, 100, head=b"head", holes=((10, 12), (99, 100))), b"head" + DATA[12:99]),
}


@pytest.mark.parametrize("name", STREAMS)
def test_view_shows_the_bytes_of_a_stream(name: str) -> None:
    stream, expected = STREAMS[name]
    view = io.BufferedReader(StreamView(io.BytesIO(DATA), stream), 16)
    assert view.read() == expected
    assert view.seek(0, os.SEEK_END) == len(expected)
    for first in range(len(expected)):
        view.seek(first)
        assert view.read(7) == expected[first : first + 7]


@pytest.mark.parametrize("name", STREAMS)
def test_shifted_stream_shows_the_same_bytes(name: str) -> None:
    stream, expected = STREAMS[name]
    view = io.BufferedReader(StreamView(io.BytesIO(b"before" + DATA), stream.shifted(6)))
    assert view.read() == expected
