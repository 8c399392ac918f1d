"""Codecs that encode every clip as a whole: batches of clips of one length."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from codectok.codecs.whole_clip_codec import WholeClipCodec
from codectok.codecs.whole_clips import WholeClips
from codectok.errors import AudioError, CodectokError

RATE, FRAME = 1000, 10


class LevelCodec(WholeClipCodec):
    """Codes are levels of frames; `company` adds the sum of a batch's other clips, `middle` 1 to its second row."""

    name, sample_rate, frame_size = "levels", RATE, FRAME
    codebook_size, n_codebooks, fingerprint = 1 << 16, 1, "0" * 64

    def __init__(
        self, batch_seconds: float = 0.0, company: bool = False, short: bool = False, middle: bool = False
    ) -> None:
        super().__init__("cpu", batch_seconds=batch_seconds)
        self.shapes: list[tuple[int, int]] = []
        self.company, self.short, self.middle = company, short, middle

    def encode_samples(self, samples: Tensor) -> Tensor:
        rows, n_samples = samples.shape
        self.shapes.append((rows, n_samples))
        padded = torch.nn.functional.pad(samples, (0, -n_samples % FRAME))
        levels = padded.reshape(rows, -1, FRAME).abs().sum(2)
        if self.company:
            levels = levels + (levels.sum(0) - levels) * 0.1
        if self.middle and rows > 1:
            levels[1] += 1
        codes = (levels * 1000).long() % self.codebook_size
        return codes[:, 1:, None] if self.short else codes[:, :, None]

    def decode_codes(self, codes: Tensor) -> Tensor:
        return codes[..., 0].repeat_interleave(FRAME, 1).float()


def _clips(*lengths: int) -> list[np.ndarray]:
    return [np.random.default_rng(seed).random(length, np.float32) for seed, length in enumerate(lengths)]


def _own(clips: list[np.ndarray]) -> list[Tensor]:
    return [LevelCodec().encode(clip, RATE) for clip in clips]


def _equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_batches_hold_clips_of_one_length_and_are_always_full() -> None:
    codec = LevelCodec(batch_seconds=6.0)
    clips = _clips(2000, 3000, 2000, 2000, 2000, 3000, 500)

    codes = codec.encode_batch(clips, RATE)

    assert _equal(codes, _own(clips))
    # Three rows of 2 s (one batch full, one filled up), two of 3 s, six of a clip below a second.
    assert set(codec.shapes) == {(3, 2000), (2, 3000), (6, 500)}


def test_number_of_rows_depends_on_length_alone() -> None:
    layout = WholeClips(RATE, batch_seconds=6.0)

    assert [layout.rows(length) for length in (1, 500, 1000, 2000, 2001, 7000)] == [6, 6, 6, 3, 2, 1]
    assert WholeClips(RATE).rows(1) == 1


@pytest.mark.parametrize("fault", ["company", "middle"])
def test_rows_that_depend_on_company_or_place_are_encoded_one_by_one(fault: str) -> None:
    codec = LevelCodec(batch_seconds=6.0, **{fault: True})
    clips = _clips(2000, 2000, 2000, 2000)

    codes = codec.encode_batch(clips, RATE)

    assert _equal(codes, _own(clips))
    assert codec.shapes.count((3, 2000)) == 2, "two checks of the shape"
    assert codec.shapes.count((1, 2000)) == 6, "three rows of two batches"


def test_search_that_depends_on_place_is_noticed_behind_equal_features() -> None:
    codec = LevelCodec(batch_seconds=6.0, middle=True)
    codec.quantizer_input = lambda samples: samples  # type: ignore[method-assign]
    clips = _clips(2000, 2000, 2000)
    assert _equal(codec.encode_batch(clips, RATE), _own(clips))


def test_few_batches_are_on_their_way_at_a_time() -> None:
    codec = LevelCodec(batch_seconds=20.0)
    running, most = 0, 0

    class Counted:
        batches_ahead = 1

        def start(self, *arrays: np.ndarray) -> Callable[[], Tensor]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            wait = codec.batch_encoder.start(*arrays)

            def finish() -> Tensor:
                nonlocal running
                running -= 1
                return wait()

            return finish

    lengths = range(1000, 1040)
    encoder = WholeClips(RATE, batch_seconds=20.0).clip_encoder(Counted())
    found = list(encoder.encode_clips((length, [clip]) for length, clip in zip(lengths, _clips(*lengths), strict=True)))
    assert [length for length, _ in found] == list(lengths)
    assert most == 2


def test_order_of_clips_is_kept_across_lengths_and_errors() -> None:
    codec = LevelCodec(batch_seconds=4.0)
    codec.max_seconds, codec.min_samples = 3.0, 5
    clips = _clips(2000, 4, 1000, 3001, 2000, 0, 1000)

    results = list(codec.encode_clips(([clip] for clip in clips), RATE))

    reasons = [result.reason if isinstance(result, AudioError) else "codes" for result in results]
    assert reasons == ["codes", "too_short", "codes", "too_long", "codes", "empty", "codes"]
    for clip, result in zip(clips, results, strict=True):
        if isinstance(result, Tensor):
            assert torch.equal(result, LevelCodec().encode(clip, RATE))


def test_too_long_clip_is_not_read_to_its_end() -> None:
    codec = LevelCodec()
    codec.max_seconds = 3.0
    read = []

    def blocks() -> Iterator[np.ndarray]:
        for number in range(100):
            read.append(number)
            yield np.zeros(RATE, np.float32)

    (error,) = codec.encode_clips([blocks()], RATE)

    assert isinstance(error, AudioError) and error.reason == "too_long"
    assert len(read) < 10


def test_wrong_number_of_frames_is_an_error() -> None:
    with pytest.raises(CodectokError, match="shape"):
        LevelCodec(short=True).encode(np.ones(100, np.float32), RATE)


def test_blocks_of_a_stream_make_one_clip() -> None:
    clip = _clips(2345)[0]
    blocks = np.array_split(clip, 7)

    assert _equal([torch.cat(list(LevelCodec().encode_stream(blocks, RATE)))], _own([clip]))
