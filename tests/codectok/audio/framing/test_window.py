"""Files that become shorter while their layout is read."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator

import pytest

from codectok.audio.framing.detect import layout_of
from codectok.audio.framing.window import WINDOW

from .test_joined import file_of

LIMIT_SECONDS = 20


class ShortenedFile(io.BytesIO):
    """A file that states more bytes than it has."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return super().seek(offset, whence) + (2 * WINDOW if whence == os.SEEK_END else 0)


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("container", ["MP3", "FLAC", "OGG"])
def test_shortened_file_is_an_error(container: str) -> None:
    with pytest.raises(EOFError, match="shorter"):
        layout_of(ShortenedFile(file_of(container)))
