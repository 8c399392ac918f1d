"""Framing of FLAC files."""

from __future__ import annotations

import io
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectok.audio.files import audio_info
from codectok.audio.framing.flac.frames import frame_ends, frame_header
from codectok.audio.framing.flac.layout import layout_of_flac
from tests.helpers.audio import tone
from tests.helpers.framing import decode, plain
from tests.helpers.jobs import rejects, run, shard_job
from tests.helpers.tars import all_samples

RATE = 16_000
FRAME = 4096
N = 45_000  # 10 full frames and a short one
ALL_ONES = (1 << 36) - 1


@lru_cache
def flac(n: int = N, rate: int = RATE, channels: int = 1, subtype: str = "PCM_16", seed: int = 0) -> bytes:
    """FLAC file of a tone."""
    buffer = io.BytesIO()
    samples = np.stack([tone(n / rate, rate, 200.0 + 50 * channel, seed) for channel in range(channels)], axis=1)
    soundfile.write(buffer, samples, rate, format="FLAC", subtype=subtype)
    return buffer.getvalue()


def with_info(data: bytes, rate: int | None = None, total: int | None = None) -> bytes:
    """Change the rate or the total number of samples in STREAMINFO."""
    fields = int.from_bytes(data[18:26], "big")
    if rate is not None:
        fields = fields & ((1 << 44) - 1) | rate << 44
    if total is not None:
        fields = fields >> 36 << 36 | total
    return data[:18] + fields.to_bytes(8, "big") + data[26:]


def frame_offsets(data: bytes) -> list[int]:
    """Offset of each frame."""
    offsets, number = [], 0
    for at in range(42, len(data)):
        if data[at] == 0xFF and (header := frame_header(data[at : at + 16])) and header.number == number:
            offsets.append(at)
            number += 1
    return offsets


def assert_kept(data: bytes, whole: bytes, damaged_frame: int, total: float = N / RATE) -> None:
    """Check that all samples before a damaged frame are kept, to within a frame, and that the rest is rejected."""
    decoded, samples = decode(data), plain(whole)
    kept = decoded.samples if decoded.streams else samples[:0]
    assert max(0, damaged_frame - 1) * FRAME < max(1, len(kept)) <= damaged_frame * FRAME or damaged_frame == 0
    np.testing.assert_array_equal(kept, samples[: len(kept)])
    assert decoded.error is not None and decoded.error.reason == "decode_error"
    assert decoded.rejected == pytest.approx(total - len(kept) / RATE)


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_sound_file_is_read_without_patches(channels: int, subtype: str) -> None:
    data = flac(channels=channels, subtype=subtype)
    layout = layout_of_flac(io.BytesIO(data))
    assert layout is not None and layout.damage is None and layout.unused_bytes == 0
    assert [(s.start, s.end, s.patches, s.n_samples) for s in layout.streams] == [(0, len(data), (), N)]
    np.testing.assert_array_equal(decode(data).samples, plain(data))


@pytest.mark.parametrize("total", [0, 1, FRAME, N - 1, N + 1, 10 * N, ALL_ONES])
@pytest.mark.parametrize("n", [1, 600, N])
def test_wrong_total_is_counted_by_frames(total: int, n: int) -> None:
    data = flac(n)
    decoded = decode(with_info(data, total=total))
    assert decoded.error is None
    np.testing.assert_array_equal(decoded.samples, plain(data))


@pytest.mark.parametrize("total", [0, 1, ALL_ONES])
def test_unknown_total_of_full_frames_is_counted(total: int) -> None:
    data = flac(3 * FRAME)
    assert len(decode(with_info(data, total=total)).samples) == 3 * FRAME


def test_info_counts_unknown_total(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(with_info(flac(), total=0))
    assert (audio_info(path).n_samples, audio_info(path).damage) == (N, None)


@pytest.mark.parametrize("rate", [1, 8_000, 48_000, 655_350])
def test_wrong_rate_is_that_of_frames(rate: int) -> None:
    decoded = decode(with_info(flac(), rate=rate))
    assert (decoded.rates, decoded.error, len(decoded.samples)) == ([RATE], None, N)


@pytest.mark.parametrize("total", [N, 0])
@pytest.mark.parametrize("missing", [1, 2, 500])
@pytest.mark.parametrize("frame", [0, 1, 5, 10])
def test_cut_off_file_keeps_whole_frames(frame: int, missing: int, total: int) -> None:
    data = flac()
    ends = [*frame_offsets(data), len(data)]
    cut = with_info(data[: ends[frame + 1] - missing], total=total)
    assert_kept(cut, data, frame, (total or min(N, (frame + 1) * FRAME)) / RATE)


@pytest.mark.parametrize("frame", [1, 5, 10])
def test_cut_between_frames_is_noticed(frame: int) -> None:
    data = flac()
    assert_kept(data[: frame_offsets(data)[frame]], data, frame)


@pytest.mark.parametrize("offset", [0, 2, 4, 5, 40, 400])
@pytest.mark.parametrize("frame", [0, 1, 5, 9, 10])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_flipped_bit_ends_the_audio(frame: int, offset: int, subtype: str) -> None:
    data = flac(subtype=subtype)
    at = frame_offsets(data)[frame] + offset
    assert_kept(data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :], data, frame)


@pytest.mark.parametrize("frames", [(0, 1), (1, 2), (3, 7), (9, 10)])
@pytest.mark.parametrize("shift", [0, 300])
def test_missing_frames_move_nothing(frames: tuple[int, int], shift: int) -> None:
    data = flac()
    offsets = frame_offsets(data)
    first, behind = offsets[frames[0]] + shift, offsets[frames[1]] + shift
    if frames[0] == 0 and shift == 0:
        return  # such a file is a piece of a longer recording
    assert_kept(data[:first] + data[behind:], data, frames[0])


def test_repeated_frames_are_rejected() -> None:
    data = flac()
    offsets = frame_offsets(data)
    assert_kept(data[: offsets[5]] + data[offsets[3] :], data, 5)


@pytest.mark.parametrize("claims_all", [True, False])
def test_piece_of_recording_starts_at_its_first_sample(claims_all: bool) -> None:
    data = flac()
    offsets = frame_offsets(data)
    piece = with_info(data[: offsets[0]], total=N if claims_all else 0) + data[offsets[4] :]
    decoded = decode(piece)
    assert decoded.error is None
    np.testing.assert_array_equal(decoded.samples, plain(data)[4 * FRAME :])


@pytest.mark.parametrize("between", [b"", b"TAG" + bytes(125), bytes(3000)])
@pytest.mark.parametrize("total", [N, 0])
def test_joined_files_follow_one_another(total: int, between: bytes) -> None:
    first, second = with_info(flac(), total=total), with_info(flac(20_000, 8_000, 2, seed=1), total=min(total, 20_000))
    decoded = decode(first + between + second + first)
    assert (decoded.rates, decoded.error, decoded.unused_bytes) == ([RATE, 8_000, RATE], None, 0)
    for samples, data in zip(decoded.streams, (flac(), flac(20_000, 8_000, 2, seed=1), flac()), strict=True):
        np.testing.assert_array_equal(samples, plain(data))


def test_cut_off_file_before_another_rejects_both() -> None:
    data, second = flac(), flac(20_000, 8_000)
    cut = data[: frame_offsets(data)[5] + 100]
    assert_kept(cut + second, data, 5, N / RATE + 2.5)
    at = frame_offsets(data)[5] + 100
    decoded = decode(data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :] + second)
    assert decoded.seconds + (decoded.rejected or 0) == pytest.approx(N / RATE + 2.5)


@pytest.mark.parametrize("behind", [b"", b"TAG" + bytes(125), bytes(5000), b"ID3\x04\0\0\0\0\0\x05" + bytes(5)])
def test_tags_and_zeros_are_not_audio(behind: bytes) -> None:
    id3 = b"ID3\x04\x00\x00" + bytes([0, 0, 2, 0]) + bytes(256)
    decoded = decode(id3 + with_info(flac(), total=0) + behind)
    assert (len(decoded.samples), decoded.error, decoded.unused_bytes) == (N, None, 0)


def test_unknown_bytes_behind_are_counted() -> None:
    decoded = decode(flac() + b"unknown" * 1000)
    assert (len(decoded.samples), decoded.error, decoded.unused_bytes) == (N, None, 7000)


def test_wrong_length_of_id3_tag_is_corrected() -> None:
    decoded = decode(b"ID3\x04\x00\x00" + bytes([0, 0, 1, 0]) + bytes(256) + flac())
    assert (decoded.error, len(decoded.samples)) == (None, N)


@pytest.mark.parametrize("claim", [0, 100, 5000, (1 << 24) - 1])
def test_wrong_length_of_metadata_block_is_corrected(claim: int) -> None:
    data = flac()
    picture = b"\x86" + claim.to_bytes(3, "big") + b"\xff\xd8" * 500
    broken = data[:4] + b"\x00" + data[5:42] + picture + data[frame_offsets(data)[0] :]
    np.testing.assert_array_equal(decode(broken).samples, plain(data))


def test_memory_does_not_follow_claims() -> None:
    data = with_info(flac(600), total=ALL_ONES - 1)
    assert len(decode(data).samples) == 600


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_piped_file_of_ffmpeg_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(flac())
    piped = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", tmp_path / "a.flac", "-f", "flac", "-"], check=True, capture_output=True
    ).stdout
    np.testing.assert_array_equal(decode(piped).samples, plain(flac()))


def test_shards_hold_all_samples_of_joined_and_damaged_files(tmp_path: Path) -> None:
    corpus = tmp_path / "in"
    corpus.mkdir()
    data = flac()
    (corpus / "joined.flac").write_bytes(with_info(data, total=0) + flac(seed=1))
    (corpus / "cut.flac").write_bytes(data[: frame_offsets(data)[5]])
    run(shard_job(min_seconds=0.1), corpus, tmp_path / "out")
    (row,) = rejects(tmp_path / "out")
    assert row["reason"] == "decode_error" and "cut.flac" in str(row["source"])
    kept = [len(samples) for sample, samples in all_samples(tmp_path / "out") if "joined" in str(sample)]
    assert sum(kept) == pytest.approx(2 * N / RATE * 24_000, abs=2)


@pytest.mark.parametrize("n_bytes", [0, 1, 2, 3, 5000, 70_000])
def test_ends_of_frames_are_where_the_crc_is_zero(n_bytes: int) -> None:
    data = np.random.default_rng(n_bytes).integers(0, 256, n_bytes, dtype=np.uint8).tobytes() + bytes(3)
    crc, expected = 0, []
    for offset, byte in enumerate(data, 1):
        crc ^= byte << 8
        for _ in range(8):
            crc = crc << 1 ^ (0x18005 if crc & 0x8000 else 0)
        expected += [offset] if crc == 0 else []
    assert frame_ends(data) == expected
