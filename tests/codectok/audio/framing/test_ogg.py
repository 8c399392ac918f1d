"""Framing of Ogg files."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
import soundfile

from codectok.audio.decoding import decoded_streams
from codectok.audio.framing.ogg.codecs import OpusTimer
from codectok.audio.framing.ogg.layout import layout_of_ogg
from codectok.audio.framing.ogg.pages import FIRST, LAST, Page, page_crc, pages_from
from codectok.audio.framing.window import Window
from codectok.audio.notes import DecodingNotes
from tests.helpers.audio import tone
from tests.helpers.framing import decode, plain

RATE = 24_000
SECONDS = 5.0
N = 120_000
CODECS = ["VORBIS", "OPUS"]
PADDING = 0.02  # seconds at most, that encoders add and the last granule position leaves out


@lru_cache
def ogg(codec: str, seconds: float = SECONDS, rate: int = RATE, channels: int = 1, seed: int = 0) -> bytes:
    """Ogg file of a tone."""
    buffer = io.BytesIO()
    samples = np.stack([tone(seconds, rate, 200.0 + 50 * channel, seed) for channel in range(channels)], axis=1)
    soundfile.write(buffer, samples, rate, format="OGG", subtype=codec)
    return buffer.getvalue()


@lru_cache
def pages(data: bytes) -> list[Page]:
    """All pages of a file."""
    return list(pages_from(Window(io.BytesIO(data)), 0))


def with_pages(
    data: bytes,
    chosen: slice,
    granule: Callable[[int], int] | None = None,
    serial: int | None = None,
    flags: int | None = None,
) -> bytes:
    """Change the headers of the chosen pages, with right CRCs."""
    changed = bytearray(data)
    for page in pages(data)[chosen]:
        header = bytearray(data[page.start : page.end])
        if granule is not None:
            header[6:14] = granule(page.granule).to_bytes(8, "little", signed=True)
        if serial is not None:
            header[14:18] = serial.to_bytes(4, "little")
        if flags is not None:
            header[5] = flags
        header[22:26] = page_crc(bytes(header))
        changed[page.start : page.end] = header
    return bytes(changed)


def kept_before(codec: str, page: int) -> int:
    """Samples that the audio pages before `page` hold, by its granule positions."""
    granule = max((page.granule for page in pages(ogg(codec))[:page]), default=0)
    return granule if codec == "VORBIS" else max(0, granule - 312) // 2


def assert_kept(data: bytes, codec: str, page: int, total: float | None = SECONDS) -> None:
    """Check that the pages before a damaged one are kept, and that the rest is rejected with its duration."""
    decoded, samples = decode(data), plain(ogg(codec))
    kept = kept_before(codec, page)
    assert decoded.error is not None and decoded.error.reason == "decode_error"
    assert sum(map(len, decoded.streams)) == kept
    if kept:
        np.testing.assert_array_equal(decoded.samples, samples[:kept])
    rejected = None if total is None else pytest.approx(total - kept / RATE, abs=PADDING)
    assert decoded.rejected == rejected


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("seconds", [0.001, 0.5, SECONDS])
def test_sound_file_is_read_without_patches(seconds: float, channels: int, codec: str) -> None:
    data = ogg(codec, seconds, channels=channels)
    layout = layout_of_ogg(io.BytesIO(data))
    assert layout is not None and layout.damage is None and layout.unused_bytes == 0
    assert [(stream.start, stream.end, stream.patches) for stream in layout.streams] == [(0, len(data), ())]
    np.testing.assert_array_equal(decode(data).samples, plain(data))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("between", [b"", bytes(3000), b"TAG" + bytes(125)])
def test_chained_streams_follow_one_another(codec: str, between: bytes) -> None:
    files = [ogg(codec), ogg(codec, 1.0, 16_000, seed=1), ogg("VORBIS", 0.5, 8_000, 2)]
    decoded = decode(between.join(files))
    assert (decoded.rates, decoded.error) == ([RATE, 16_000, 8_000], None)
    for samples, data in zip(decoded.streams, files, strict=True):
        np.testing.assert_array_equal(samples, plain(data))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("page", [2, 4, -1])
def test_flipped_bit_ends_the_audio_at_its_page(page: int, codec: str) -> None:
    data = ogg(codec)
    page %= len(pages(data))
    for offset in (0, 14, 18, 100):
        at = pages(data)[page].start + offset
        in_header = offset < 20  # a last page without its header says no position
        total = None if page == len(pages(data)) - 1 and in_header else SECONDS
        assert_kept(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], codec, page, total)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("first", "behind"), [(3, 4), (3, 5), (4, 5)])
def test_missing_pages_move_nothing(first: int, behind: int, codec: str) -> None:
    data = ogg(codec)
    cut = data[: pages(data)[first].start] + data[pages(data)[behind].start :]
    assert_kept(cut, codec, first)
    start, end = pages(data)[first].start + 500, pages(data)[behind].start + 500
    assert_kept(data[:start] + data[end:], codec, first)
    assert_kept(data[:start] + bytes(end - start) + data[end:], codec, first)
    assert_kept(data[:start] + bytes(3000) + data[start:], codec, first)


@pytest.mark.parametrize("codec", CODECS)
def test_bytes_between_pages_are_unused(codec: str) -> None:
    data = ogg(codec)
    at = pages(data)[4].start
    decoded = decode(data[:at] + bytes(3000) + data[at:])
    assert (decoded.error, decoded.unused_bytes) == (None, 3000)
    np.testing.assert_array_equal(decoded.samples, plain(data))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("page", [2, 4, -1])
def test_cut_off_file_is_noticed(page: int, codec: str) -> None:
    data = ogg(codec)
    page %= len(pages(data))
    # The header of a page that is cut off says where it ends.
    end = pages(data)[page].granule / RATE if codec == "VORBIS" else (pages(data)[page].granule - 312) / 48_000
    assert_kept(data[: pages(data)[page].end - 1], codec, page, end)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("page", [3, 4, -1])
def test_end_between_pages_without_a_mark_is_noted(page: int, codec: str) -> None:
    """Some writers mark no end; a file that is cut off hardly ever ends between two pages."""
    data = ogg(codec)
    page %= len(pages(data))
    part, notes = data[: pages(data)[page].start], DecodingNotes()
    decoded = [block for stream in decoded_streams(part, "a.ogg", notes) for block in stream.blocks]
    assert sum(map(len, decoded)) == kept_before(codec, page)
    assert notes.unmarked_ends == 1
    notes = DecodingNotes()
    assert sum(len(block) for stream in decoded_streams(data, "a.ogg", notes) for block in stream.blocks) > 0
    assert notes.unmarked_ends == 0


@pytest.mark.parametrize("codec", CODECS)
def test_padding_of_last_page_shows_the_end(codec: str) -> None:
    decoded = decode(with_pages(ogg(codec), slice(-1, None), flags=0))
    assert decoded.error is None
    np.testing.assert_array_equal(decoded.samples, plain(ogg(codec)))


@pytest.mark.parametrize("codec", CODECS)
def test_damage_before_another_stream_rejects_both(codec: str) -> None:
    data = ogg(codec)
    at = pages(data)[4].start + 100
    decoded = decode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] + ogg(codec, 2.0, 16_000))
    assert decoded.seconds + (decoded.rejected or 0) == pytest.approx(SECONDS + 2.0, abs=PADDING)
    assert sum(map(len, decoded.streams)) == kept_before(codec, 4)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("granule", [0, -1, 1000, 1 << 62])
@pytest.mark.parametrize("chosen", [slice(2, 3), slice(4, -1), slice(-1, None), slice(2, None)], ids=str)
def test_wrong_granule_positions_change_nothing(chosen: slice, granule: int, codec: str) -> None:
    data = ogg(codec)
    decoded = decode(with_pages(data, chosen, lambda _: granule))
    assert decoded.error is None
    np.testing.assert_array_equal(decoded.samples[:N], plain(data))
    assert len(decoded.samples) <= N + (PADDING * RATE if chosen.stop is None else 0)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("jump", [-20_000, 1_000_000])
@pytest.mark.parametrize("first", [3, 5])
def test_jump_of_granule_positions_changes_nothing(first: int, jump: int, codec: str) -> None:
    decoded = decode(with_pages(ogg(codec), slice(first, None), lambda granule: granule + jump))
    assert decoded.error is None
    np.testing.assert_array_equal(decoded.samples[:N], plain(ogg(codec)))
    assert len(decoded.samples) <= N + PADDING * RATE


@pytest.mark.parametrize("codec", CODECS)
def test_live_stream_starts_at_its_first_sample(codec: str) -> None:
    data = ogg(codec)
    live = data[: pages(data)[2].start] + data[pages(data)[4].start :]
    decoded = decode(live)
    assert decoded.error is None
    samples, whole = decoded.samples, plain(data)
    assert len(samples) == pytest.approx(N - kept_before(codec, 4), abs=1100)
    # A decoder of Opus needs a second to find its state.
    np.testing.assert_allclose(samples[RATE:], whole[RATE - len(samples) :], atol=0.05)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("chosen", [slice(2, None), slice(5, None), slice(4, 5)], ids=str)
def test_changed_serial_number_loses_nothing(chosen: slice, codec: str) -> None:
    decoded = decode(with_pages(ogg(codec), chosen, serial=7))
    assert decoded.error is None
    np.testing.assert_array_equal(decoded.samples, plain(ogg(codec)))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("chosen", [slice(4, 5), slice(2, None)], ids=str)
def test_early_end_mark_loses_nothing(chosen: slice, codec: str) -> None:
    decoded = decode(with_pages(ogg(codec), chosen, flags=LAST))
    assert decoded.error is None
    np.testing.assert_array_equal(decoded.samples, plain(ogg(codec)))


def test_multiplexed_streams_are_left_to_other_decoders() -> None:
    first, second = ogg("VORBIS"), with_pages(ogg("OPUS"), slice(None), serial=7)
    start = pages(second)[0].end
    multiplexed = second[:start] + first + second[start:]
    assert layout_of_ogg(io.BytesIO(multiplexed)) is None
    foreign = with_pages(ogg("OPUS"), slice(0, 1)).replace(b"OpusHead", b"Speex   ")
    assert layout_of_ogg(io.BytesIO(foreign)) is None


def test_stream_of_another_codec_behind_is_rejected() -> None:
    foreign = bytearray(ogg("OPUS"))
    foreign[28:36] = b"Speex   "
    foreign = bytearray(with_pages(bytes(foreign), slice(0, 1), flags=FIRST))
    decoded = decode(ogg("VORBIS") + bytes(foreign))
    assert len(decoded.samples) == N and decoded.error is not None and decoded.rejected is None


@pytest.mark.parametrize(("behind", "unused"), [(b"TAG" + bytes(125), 0), (bytes(5000), 0), (b"unknown" * 100, 700)])
@pytest.mark.parametrize("codec", CODECS)
def test_bytes_behind_are_not_audio(codec: str, behind: bytes, unused: int) -> None:
    decoded = decode(ogg(codec) + behind)
    assert (len(decoded.samples), decoded.error, decoded.unused_bytes) == (N, None, unused)


@pytest.mark.parametrize(
    ("packet", "samples"),
    [(b"\x00", 480), (b"\x18", 2880), (b"\x60", 480), (b"\x80", 120), (b"\xf9", 1920), (b"\xfb\x03", 2880), (b"", 0)],
)
def test_opus_packets_are_timed_by_their_first_bytes(packet: bytes, samples: int) -> None:
    assert OpusTimer().duration(packet) == samples
