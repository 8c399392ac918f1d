"""Tests of MP3 files whose headers, tags and damage must not cost audio in silence."""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import soundfile

from codectok.audio.files import stream_audio
from codectok.audio.framing.detect import layout_of
from codectok.audio.framing.layout import Layout
from codectok.audio.framing.mpeg.frames import HEADER, format_at, frame_length
from codectok.audio.framing.mpeg.layout import layout_of_mp3, layout_of_mpeg
from codectok.audio.framing.mpeg.walk import Run, walk
from codectok.audio.framing.window import Window
from codectok.audio.notes import DecodingNotes
from codectok.errors import AudioError

SECONDS = 3.2
RNG = np.random.default_rng(0)


def tone(seconds: float, sample_rate: int, channels: int = 1) -> np.ndarray:
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    waves = [0.2 * np.sin(2 * np.pi * (220 + 110 * channel) * time) * np.sin(2 * time) for channel in range(channels)]
    noise = np.random.default_rng(1).normal(0, 0.01, (len(time), channels))
    return (np.stack(waves, axis=1) + noise).astype(np.float32)


@functools.cache
def mp3(sample_rate: int = 24_000, channels: int = 1, constant: bool = False) -> bytes:
    """A file that begins with a length frame."""
    buffer = io.BytesIO()
    mode = "CONSTANT" if constant else "VARIABLE"
    with soundfile.SoundFile(
        buffer, "w", sample_rate, channels, format="MP3", bitrate_mode=mode, compression_level=0.5
    ) as file:
        file.write(tone(SECONDS, sample_rate, channels))
    return buffer.getvalue()


def bare(data: bytes) -> bytes:
    """The file without its length frame."""
    return data[frames(data)[1] :]


def frames(data: bytes) -> list[int]:
    """Offsets of all frames, and of the end of the last one."""
    read = Window(io.BytesIO(data), 0, len(data))
    (run,) = (piece for piece in walk(read, len(data)) if isinstance(piece, Run))
    places = [run.start]
    while places[-1] < run.end:
        frame_format = format_at(read, places[-1])
        assert frame_format is not None
        places.append(places[-1] + frame_length(read, places[-1], frame_format))
    return places


def layout(data: bytes) -> Layout:
    found = layout_of(io.BytesIO(data))
    assert found is not None
    return found


def decoded(data: bytes, sample_rate: int = 24_000) -> tuple[np.ndarray, AudioError | None, int]:
    """Samples before the first error, the error, and the number of unused bytes."""
    blocks, error, notes = [np.zeros(0, np.float32)], None, DecodingNotes()
    try:
        blocks += stream_audio(data, sample_rate, "a.mp3", notes)
    except AudioError as raised:
        error = raised
    return np.concatenate(blocks), error, notes.unused_bytes


def whole(data: bytes, sample_rate: int = 24_000) -> np.ndarray:
    samples, error, unused = decoded(data, sample_rate)
    assert (error, unused) == (None, 0)
    return samples


def with_count(data: bytes, n_frames: int, n_bytes: int | None = None) -> bytes:
    """The file with another number of frames in its length frame."""
    place = max(data.find(b"Xing"), data.find(b"Info")) + 8
    claims = n_frames.to_bytes(4, "big") + (
        data[place + 4 : place + 8] if n_bytes is None else n_bytes.to_bytes(4, "big")
    )
    return data[:place] + claims + data[place + 8 :]


def id3v2(content: bytes, footer: bool = False, size: int | None = None) -> bytes:
    length = len(content) if size is None else size
    numbers = bytes([length >> 21 & 127, length >> 14 & 127, length >> 7 & 127, length & 127])
    end = b"3DI\x04\0\x10" + numbers if footer else b""
    return b"ID3\x04\0" + (b"\x10" if footer else b"\0") + numbers + content + end


def ape(header: bool = True) -> bytes:
    items = b"\x05\0\0\0\0\0\0\0Title\0words"
    size = (len(items) + 32).to_bytes(4, "little") + (1).to_bytes(4, "little")
    begin = b"APETAGEX\xd0\x07\0\0" + size + (0xA000_0000).to_bytes(4, "little") + bytes(8)
    return (
        (begin if header else b"")
        + items
        + b"APETAGEX\xd0\x07\0\0"
        + size
        + (0x8000_0000).to_bytes(4, "little")
        + bytes(8)
    )


PICTURE = b"APIC" + RNG.bytes(9_000) + b"\xff\xfb\x90\x64" * 50 + RNG.bytes(3_000)
ID3V1 = b"TAG" + b"x" * 125
LYRICS = b"LYRICSBEGININD0000200" + b"000021LYRICS200"


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("sample_rate", "channels"), [(8_000, 1), (22_050, 2), (24_000, 1), (44_100, 2), (48_000, 1)])
def test_sound_file_is_one_stream_with_the_samples_of_its_decoder(
    sample_rate: int, channels: int, constant: bool
) -> None:
    data = mp3(sample_rate, channels, constant)
    (stream,) = layout(data).streams
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        expected = file.read(dtype="float32", always_2d=True)
    assert stream.n_samples == len(expected) and not stream.patches and not stream.piped
    # The last bits depend on the sizes of the blocks that are asked of the decoder.
    np.testing.assert_allclose(whole(data, sample_rate), expected.mean(axis=1, dtype=np.float32), atol=1e-5)
    assert abs(len(expected) / sample_rate - SECONDS) < 0.1


def test_stream_without_a_length_frame_is_read_to_its_end() -> None:
    data = bare(mp3())
    assert len(whole(data)) == 576 * (len(frames(data)) - 1) == layout(data).streams[0].n_samples


KINDS = [mp3(), bare(mp3()), mp3(24_000, 2), bare(mp3(24_000, 2)), mp3(44_100), bare(mp3(44_100, 2, True))]


@pytest.mark.parametrize("gap", [b"", ID3V1 + id3v2(PICTURE), bytes(3_000), ape() + ID3V1])
def test_joined_files_are_decoded_one_after_another(gap: bytes) -> None:
    for first, second in itertools.permutations(KINDS, 2):
        expected = np.concatenate([whole(first), whole(second)])
        found = whole(first + gap + second)
        assert abs(len(found) - len(expected)) <= 1200
        if second in KINDS[::2]:  # its length frame begins a stream
            assert np.array_equal(found, expected)


@pytest.mark.parametrize("claim", [0, 1, 60, 0xFFFF_FFFF])
@pytest.mark.parametrize("behind", [b"", bare(mp3())])
def test_wrong_number_of_frames_costs_nothing(claim: int, behind: bytes) -> None:
    expected = whole(mp3())
    found = whole(with_count(mp3(), claim) + behind)
    n_samples = len(expected) + (len(whole(behind)) if behind else 0)
    assert n_samples <= len(found) <= n_samples + 2 * 576
    assert np.array_equal(found[: len(expected)], expected)


def test_number_of_frames_that_is_too_high_is_damage_only_if_bytes_are_missing() -> None:
    data = mp3()
    n_frames = len(frames(data)) - 2
    assert np.array_equal(whole(with_count(data, n_frames + 100)), whole(data))  # the number of bytes is right
    samples, error, _ = decoded(with_count(data, n_frames + 100, 2 * len(data)))
    assert error is not None and error.reason == "decode_error"
    assert error.seconds == pytest.approx(SECONDS + 100 * 0.024 - len(samples) / 24_000, abs=0.03)
    assert np.array_equal(whole(with_count(data, n_frames + 1, 0)), whole(data))  # it counts itself


@pytest.mark.parametrize("data", KINDS[:2])
def test_tags_and_padding_in_any_order_change_nothing(data: bytes) -> None:
    before = [
        b"",
        id3v2(PICTURE),
        id3v2(PICTURE, footer=True) + id3v2(b"x"),
        bytes(777),
        id3v2(b"x") + bytes(100),
        ape(),
    ]
    behind = [
        b"",
        ID3V1,
        ape() + ID3V1,
        ape(header=False),
        LYRICS + ID3V1,
        id3v2(PICTURE),
        bytes(5_000),
        ID3V1 + bytes(9),
    ]
    expected = whole(data)
    for first, last in itertools.product(before, behind):
        assert np.array_equal(whole(first + data + last), expected)


@pytest.mark.parametrize("size", [0, 5, 700, 12_500, 40_000, 1 << 27])
def test_size_of_a_tag_is_a_claim(size: int) -> None:
    for data in KINDS[:2]:
        samples, error, _ = decoded(id3v2(PICTURE, size=size) + data)
        assert error is None and np.array_equal(samples, whole(data))


def test_tag_inside_a_stream_is_passed_over() -> None:
    data = bare(mp3())
    middle = frames(data)[70]
    found = whole(data[:middle] + id3v2(b"PRIV" + bytes(60)) + data[middle:])
    assert len(found) == len(whole(data))
    wrong = np.flatnonzero(np.abs(found - whole(data)) > 1e-5)  # the decoder begins again behind the tag
    assert 69 * 576 <= wrong.min() <= wrong.max() < 72 * 576


@pytest.mark.parametrize("cut", [1, 3, 50, 1_000, 5_001, 9_999])
def test_file_may_begin_inside_a_frame(cut: int) -> None:
    data = bare(mp3())
    kept = sum(place >= cut for place in frames(data)) - 1
    found, expected = whole(data[cut:]), whole(data)
    assert len(found) == kept * 576
    # At first the decoder lacks bytes of earlier frames.
    np.testing.assert_allclose(found[20 * 576 :], expected[len(expected) - len(found) + 20 * 576 :], atol=1e-5)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9, 0.999])
def test_cut_off_file_says_how_much_is_missing(share: float) -> None:
    data = mp3()
    expected = whole(data)
    for part in (data[: int(share * len(data))], data[: frames(data)[int(share * 130)]]):
        samples, error, unused = decoded(part)
        assert error is not None and error.reason == "decode_error" and error.seconds is not None and unused == 0
        assert len(samples) + round(error.seconds * 24_000) == len(expected)
        assert np.array_equal(samples, expected[: len(samples)])
    samples = whole(bare(data)[: int(share * len(data))])  # without a claim nothing is known to be missing
    assert np.array_equal(samples, whole(bare(data))[: len(samples)])


@pytest.mark.parametrize("constant", [False, True])
def test_each_flipped_bit_of_a_header_is_damage_or_harmless(constant: bool) -> None:
    sound = (mp3(constant=constant), bare(mp3(constant=constant)))
    for data, bit, number in itertools.product(sound, range(11, 32), (30, 70)):
        expected = whole(data)
        place = frames(data)[number]
        flipped = bytearray(data)
        flipped[place + bit // 8] ^= 0x80 >> bit % 8
        samples, error, unused = decoded(bytes(flipped))
        assert unused == 0
        if error is None:
            assert len(samples) == len(expected)
            continue
        assert error.seconds is not None
        frame = 576
        assert abs(len(samples) + error.seconds * 24_000 - len(expected)) <= 2 * frame
        assert (number - 2) * frame - 1200 <= len(samples) <= (number + 1) * frame
        assert np.array_equal(samples, expected[: len(samples)])


def _damaged(data: bytes, place: int) -> Sequence[bytes]:
    middle = place + 37
    return (
        data[:middle] + bytes(900) + data[middle + 900 :],  # overwritten with zeros
        data[:middle] + RNG.bytes(900) + data[middle + 900 :],
        data[:middle] + RNG.bytes(900) + data[middle:],  # inserted
        data[:middle] + data[middle + 500 :],  # lost
        data[:place] + RNG.bytes(333) + data[place:],
    )


@pytest.mark.parametrize("data", KINDS[:2])
def test_what_follows_damage_is_rejected_with_its_duration(data: bytes) -> None:
    expected = whole(data)
    for damaged in _damaged(data, frames(data)[60]):
        samples, error, _ = decoded(damaged)
        assert error is not None and error.reason == "decode_error" and error.seconds is not None
        assert np.array_equal(samples, expected[: len(samples)]) and 58 * 576 - 1200 <= len(samples) <= 61 * 576
        rest = len(expected) - len(samples)
        assert rest - 16 * 576 <= error.seconds * 24_000 <= rest + 576  # damage may hide some frames


def test_file_behind_a_cut_off_one_is_kept_if_nothing_claims_more() -> None:
    cut, other = bare(mp3())[:5_000], mp3(44_100)
    samples = whole(cut + other)
    assert np.array_equal(samples, np.concatenate([whole(cut), whole(other)]))
    samples, error, _ = decoded(mp3()[:5_000] + other)
    assert error is not None and error.seconds is not None
    assert len(samples) + error.seconds * 24_000 == pytest.approx(len(whole(mp3())) + len(whole(other)), abs=2)


def test_junk_behind_complete_audio_is_counted_as_unused() -> None:
    junk = RNG.bytes(5_000)
    for data in KINDS[:2]:
        samples, error, unused = decoded(data + junk)
        assert error is None and unused == len(junk) and np.array_equal(samples, whole(data))
    samples, error, unused = decoded(mp3() + junk + mp3(44_100))
    assert error is None and unused == len(junk)
    assert np.array_equal(samples, np.concatenate([whole(mp3()), whole(mp3(44_100))]))


def test_bit_rate_of_free_format_is_found() -> None:
    frame = bytes([0xFF, 0xFB, 0x00, 0xC0]) + bytes(496)
    data = frame * 50
    assert len(whole(data, 44_100)) == 50 * 1152
    assert len(whole(data + mp3() + data, 44_100)) == 2 * 50 * 1152 + len(whole(mp3(), 44_100))


def test_range_of_a_file_is_laid_out_alone() -> None:
    data = mp3()
    inside = layout_of_mpeg(io.BytesIO(b"RIFF" + bytes(40) + data + data), 44, 44 + len(data))
    assert inside is not None and inside.streams == tuple(
        type(stream)(stream.start + 44, stream.end + 44, n_samples=stream.n_samples) for stream in layout(data).streams
    )


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"\xff\xfb\x90\x64", RNG.bytes(50_000), b"\xff\xfb" * 9_000, bytes(4_000), b"RIFF" + bare(mp3())],
)
def test_other_files_have_no_layout(data: bytes) -> None:
    assert layout_of_mp3(io.BytesIO(data)) is None


def test_length_frame_without_audio_is_empty_or_cut_off() -> None:
    only = mp3()[: frames(mp3())[1]]
    _, error, _ = decoded(with_count(only, 0))
    assert error is not None and error.reason == "empty"
    _, error, _ = decoded(only)
    assert error is not None and error.seconds == pytest.approx(len(whole(mp3())) / 24_000)


def test_mark_of_a_length_frame_inside_audio_does_not_split_it() -> None:
    data = bytearray(bare(mp3()))
    place = frames(bytes(data))[40]
    data[place + HEADER + 100 : place + HEADER + 104] = b"Xing"
    assert len(layout(bytes(data)).streams) == 1
