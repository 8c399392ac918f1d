"""Files that become shorter while their layout is read."""

from __future__ import annotations

import io
import os

import pytest

from codectok.audio.framing.detect import layout_of
from codectok.audio.framing.window import WINDOW

from .test_joined import file_of

MOST_READS = 1000


class ShortenedFile(io.BytesIO):
    """A file that states more bytes than it has."""

    n_reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.n_reads += 1
        assert self.n_reads < MOST_READS, "the reader hangs"
        return super().read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return super().seek(offset, whence) + (2 * WINDOW if whence == os.SEEK_END else 0)


@pytest.mark.parametrize("container", ["MP3", "FLAC", "OGG"])
def test_shortened_file_is_an_error(container: str) -> None:
    with pytest.raises(EOFError, match="shorter"):
        layout_of(ShortenedFile(file_of(container)))
