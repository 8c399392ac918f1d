"""Shapes and ranges of codes of other programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codectok.choices import CodeLayout
from codectok.errors import AudioError, InputError
from codectok.tokens.imports.shapes import CodeForm, array_of, reshaped
from codectok.tokens.vocabulary import Vocabulary

SIZE = 100
FRAMES = np.random.default_rng(0).integers(SIZE, size=(7, 4))


@pytest.mark.parametrize(
    ("values", "layout"),
    [
        (FRAMES, "auto"),
        (FRAMES.T, "auto"),
        (FRAMES[None], "auto"),
        (FRAMES.T[None], "auto"),
        (FRAMES.astype(np.uint8), "frames"),
        (np.asfortranarray(FRAMES), "frames"),
        (FRAMES.T, "codebooks"),
        (FRAMES.reshape(-1), "frames"),
        (FRAMES.T.reshape(-1), "codebooks"),
    ],
)
def test_orientation_follows_from_codebooks_or_option(values: np.ndarray, layout: CodeLayout) -> None:
    found = CodeForm(4, SIZE, layout).frames_of(values)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, FRAMES)


@pytest.mark.parametrize(
    ("values", "layout", "word"),
    [
        (FRAMES[:4], "auto", "cannot be told apart"),
        (FRAMES.reshape(-1), "auto", "order is unknown"),
        (FRAMES[:, :3], "auto", "4 codebooks"),
        (FRAMES[None, None], "auto", "4 codebooks"),
        (np.stack([FRAMES, FRAMES]), "auto", "4 codebooks"),
        (FRAMES.T, "frames", "contradicts"),
        (FRAMES, "codebooks", "contradicts"),
        (FRAMES.reshape(-1)[1:], "frames", "whole frames"),
        (FRAMES.astype(float), "auto", "not integers"),
        (FRAMES > 3, "auto", "not integers"),
        (np.array(3), "auto", "shape"),
        (FRAMES - 100, "auto", "code -"),
        (FRAMES + SIZE, "auto", "--offset"),
        (np.full((7, 4), 2**64 - 1, np.uint64), "auto", "code 18446744073709551615"),
    ],
)
def test_ambiguous_and_wrong_codes_are_refused(values: np.ndarray, layout: CodeLayout, word: str) -> None:
    with pytest.raises(AudioError, match=word) as raised:
        CodeForm(4, SIZE, layout).frames_of(values)
    assert raised.value.reason == "invalid_row"


def test_square_codes_are_read_by_option() -> None:
    square = FRAMES[:4]
    np.testing.assert_array_equal(CodeForm(4, SIZE, "frames").frames_of(square), square)
    np.testing.assert_array_equal(CodeForm(4, SIZE, "codebooks").frames_of(square), square.T)
    np.testing.assert_array_equal(CodeForm(1, SIZE).frames_of(np.array([[5]])), [[5]])


def test_offset_is_subtracted_as_exports_add_it() -> None:
    ids = Vocabulary(SIZE, 2, 2, offset=1000).ids_of(FRAMES)
    for values in (ids, ids.reshape(-1, 4), ids.reshape(-1, 4).T):
        np.testing.assert_array_equal(CodeForm(4, SIZE, offset=1000).frames_of(values), FRAMES)
    np.testing.assert_array_equal(CodeForm(4, SIZE).frames_of(ids, offset=1000), FRAMES)
    for wrong in (ids - 1, ids.reshape(-1, 4).T.reshape(-1), FRAMES, np.full(4, 2**64 - 1, np.uint64)):
        with pytest.raises(AudioError) as raised:
            CodeForm(4, SIZE, offset=1000).frames_of(wrong)
        assert raised.value.reason == "invalid_row"
    with pytest.raises(InputError, match="impossible"):
        CodeForm(4, SIZE, offset=2**31)


def test_lists_become_arrays() -> None:
    values: list[list[Any]] = [[1, 2], [[1, 2], [3, 4]], [[[1], [2]]], [], [[], []]]
    for value in values:
        np.testing.assert_array_equal(array_of(value), np.array(value, np.int64))
    for wrong in ([[1], [2, 3]], [[1], 2], [[[[1]]]], [1.0], [True], [None], "12", {"a": 1}, [2**63]):
        with pytest.raises(AudioError):
            array_of(wrong)
    with pytest.raises(AudioError, match="length"):
        reshaped(np.arange(3), 2, [np.array([1, 2])])
