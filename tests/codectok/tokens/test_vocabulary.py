"""Ids and strings of codes in a language model's vocabulary."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from codectok import Codec, InputError
from codectok.config import CodecConfig, named_codec_config
from codectok.tokens.vocabulary import DEFAULT_OFFSET, SPECIAL_TOKENS, Vocabulary
from tests.helpers.tables import metadata

STUDENT = Vocabulary(32_768)
TEACHER = Vocabulary(16, n_groups=2, n_residuals=3, offset=100)


def test_student_ids_match_reference() -> None:
    assert STUDENT.offset == DEFAULT_OFFSET == 152_064
    assert STUDENT.token(152_064) == "<|g0r0_152064|>"
    assert STUDENT.token(184_831) == "<|g0r0_184831|>"
    special = {name: STUDENT.id_of(name) for name in SPECIAL_TOKENS}
    assert special == {
        "<|beginofaudio|>": 184_832,
        "<|endofaudio|>": 184_833,
        "<|sil|>": 184_834,
        "<|inter_audio_begin|>": 184_835,
        "<|inter_audio_end|>": 184_836,
        "<|cot_begin|>": 184_837,
        "<|cot_end|>": 184_838,
        "<|unused600|>": 184_839,
    }
    assert STUDENT.end == 184_840
    np.testing.assert_array_equal(STUDENT.ids_of(np.array([[0], [1401], [32_767]])), [152_064, 153_465, 184_831])


def test_codebooks_have_separate_id_ranges() -> None:
    frame = TEACHER.ids_of(np.zeros((1, 6), np.uint16))
    assert frame.tolist() == [100, 116, 132, 148, 164, 180]
    assert [TEACHER.token(int(i)) for i in frame] == [
        "<|g0r0_100|>",
        "<|g0r1_116|>",
        "<|g0r2_132|>",
        "<|g1r0_148|>",
        "<|g1r1_164|>",
        "<|g1r2_180|>",
    ]
    every = np.arange(16).repeat(6).reshape(16, 6)
    assert sorted(TEACHER.ids_of(every).tolist()) == list(range(100, 196))


@pytest.mark.parametrize("vocabulary", [STUDENT, TEACHER, Vocabulary(7, n_groups=3, offset=0)], ids=str)
def test_codes_ids_and_strings_round_trip(vocabulary: Vocabulary) -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(vocabulary.codebook_size, size=(500, vocabulary.n_codebooks), dtype=np.int64)
    ids = vocabulary.ids_of(codes)
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(vocabulary.codes_of(ids), codes)
    np.testing.assert_array_equal(vocabulary.codes_of(ids.astype(np.int32)), codes)
    assert [vocabulary.id_of(vocabulary.token(i)) for i in ids.tolist()] == ids.tolist()
    tokens = list(vocabulary.tokens())
    assert len(set(tokens)) == len(tokens) == vocabulary.end - vocabulary.offset
    assert [vocabulary.id_of(token) for token in tokens] == list(range(vocabulary.offset, vocabulary.end))
    assert tokens[-8:] == list(SPECIAL_TOKENS)
    assert vocabulary.codes_of(np.zeros(0, np.int64)).shape == (0, vocabulary.n_codebooks)


def test_unsigned_codes_do_not_overflow() -> None:
    assert STUDENT.ids_of(np.array([[32_767]], np.uint16)).tolist() == [184_831]


@pytest.mark.parametrize("code", [-1, 16])
def test_code_outside_codebook_is_refused(code: int) -> None:
    codes = np.zeros((2, 6), np.int64)
    codes[1, 3] = code
    with pytest.raises(InputError, match=f"{code} at place 9"):
        TEACHER.ids_of(codes)


def test_invalid_ids_and_codes_are_refused() -> None:
    frame = TEACHER.ids_of(np.zeros((2, 6), np.int64))
    with pytest.raises(InputError, match="whole frames"):
        TEACHER.codes_of(frame[:-1])
    with pytest.raises(InputError, match="at place 0 is not the id of a code"):
        TEACHER.codes_of(np.array([99, *frame[1:]]))
    with pytest.raises(InputError, match="196 at place 5"):
        TEACHER.codes_of(np.array([*frame[:5], TEACHER.id_of("<|beginofaudio|>")]))
    swapped = frame.copy()
    swapped[7], swapped[8] = frame[8], frame[7]
    with pytest.raises(InputError, match="132 at place 7 is not a code of the codebook g0r1"):
        TEACHER.codes_of(swapped)
    with pytest.raises(InputError, match="shape"):
        TEACHER.ids_of(np.zeros(6, np.int64))
    with pytest.raises(InputError, match="integers"):
        TEACHER.ids_of(np.zeros((1, 6)))


@pytest.mark.parametrize("token_id", [99, 204, -1])
def test_id_outside_vocabulary_has_no_string(token_id: int) -> None:
    with pytest.raises(InputError, match="not an audio token"):
        TEACHER.token(token_id)


@pytest.mark.parametrize(
    "token", ["<|g0r0_99|>", "<|g0r1_100|>", "<|g00r0_100|>", "<|g0r0_0100|>", "<|g1r2_196|>", "<|endoftext|>", ""]
)
def test_string_of_another_vocabulary_has_no_id(token: str) -> None:
    with pytest.raises(InputError, match="not an audio token"):
        TEACHER.id_of(token)


def test_invalid_vocabulary_is_refused() -> None:
    for arguments in ({"codebook_size": 0}, {"codebook_size": 4, "n_groups": 0}):
        with pytest.raises(InputError, match="at least one"):
            Vocabulary(**arguments)  # type: ignore[arg-type]
    for offset in (-1, 2**31 - 10):
        with pytest.raises(InputError, match="impossible"):
            Vocabulary(4, offset=offset)


def test_vocabulary_groups_codebooks_of_codec() -> None:
    nano = named_codec_config("nano").model_dump()
    nano["quantizer"] |= {"n_groups": 2, "n_residuals": 3, "codebook_size": 64}
    codec = Codec.from_config(CodecConfig.model_validate(nano))
    assert Vocabulary.for_codec(codec.describe(), 500) == Vocabulary(64, 2, 3, 500)
    single = metadata(codebook_size=32_768, n_codebooks=1)
    assert Vocabulary.for_codec(single) == STUDENT
    with pytest.raises(InputError, match="grouping of the 2 codebooks"):
        Vocabulary.for_codec(metadata(n_codebooks=2))


def test_tokens_are_in_order_of_ids() -> None:
    assert list(itertools.islice(TEACHER.tokens(), 15, 17)) == ["<|g0r0_115|>", "<|g0r1_116|>"]
