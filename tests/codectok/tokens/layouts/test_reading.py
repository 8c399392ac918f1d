"""Codes written as text and ids and read back, also from damaged text."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from codectok import InputError
from codectok.tokens.layouts.layout import TokenLayout
from codectok.tokens.layouts.loading import load_layout
from codectok.tokens.layouts.orders import PADDING, arrange
from codectok.tokens.layouts.reading import read_ids, read_text, text_of
from codectok.tokens.vocabulary import Vocabulary

MARKS: dict[str, Any] = {
    "special_tokens": ("<begin>", "<end>", "<pad>", "<other>"),
    "begin_audio": "<begin>",
    "end_audio": "<end>",
    "padding": "<pad>",
}
KINDS: dict[str, dict[str, Any]] = {
    "template": {"kind": "template", "token": "<g{group}r{residual}:{code}>"},
    "open template": {"kind": "template", "token": "c{codebook}_{code}"},
    "numbers": {"kind": "template", "token": "{number};", "first_number": 5},
    "characters": {"kind": "characters", "first_character": 0xF0000},
    "ids": {"kind": "ids", "first_id": 500, "token": "<{id}>", "slot_stride": 40},
    "marks before": {"kind": "ids", "first_id": 500, "token": "<{id}>", "special_tokens_place": "before"},
}
ORDERS = [("flat", 1), ("delayed", 1), ("delayed", 3), ("parallel", 1)]


def vocabulary_of(kind: str, order: str, delay: int, n_groups: int, n_residuals: int, size: int = 33) -> Vocabulary:
    layout = TokenLayout.model_validate({"name": "mine", "order": order, "delay": delay} | MARKS | KINDS[kind])
    return Vocabulary(size, n_groups, n_residuals, 500, layout)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("order", "delay"), ORDERS)
def test_reading_inverts_writing(kind: str, order: str, delay: int) -> None:
    generator = np.random.default_rng(len(kind))
    for n_groups, n_residuals in [(1, 1), (1, 2), (2, 1), (1, 3), (2, 2), (1, 5), (2, 3), (7, 1), (2, 4)]:
        vocabulary = vocabulary_of(kind, order, delay, n_groups, n_residuals)
        for n_frames in (0, 1, 2, 17):
            codes = generator.integers(33, size=(n_frames, vocabulary.n_codebooks))
            ids = vocabulary.ids_of(codes)
            np.testing.assert_array_equal(vocabulary.codes_of(ids), codes)
            np.testing.assert_array_equal(read_ids(ids, vocabulary, strict=True).codes, codes)
            for structure in (False, True):
                text = text_of(codes, vocabulary, structure)
                np.testing.assert_array_equal(read_text(text, vocabulary, strict=True).codes, codes)
        tokens = list(vocabulary.tokens())
        assert len(set(tokens)) == len(tokens) == vocabulary.end - vocabulary.first
        assert [vocabulary.id_of(token) for token in tokens] == list(range(vocabulary.first, vocabulary.end))


def test_orders_of_two_codebooks() -> None:
    codes = np.array([[0, 1], [2, 3], [4, 5]])
    values = {"name": "mine", **MARKS, **KINDS["template"]}
    written = {
        order: arrange(codes, TokenLayout.model_validate(values | {"order": order}), PADDING).tolist()
        for order in ("flat", "delayed", "parallel")
    }
    assert written == {
        "flat": [0, 1, 2, 3, 4, 5],
        "delayed": [0, PADDING, 2, 1, 4, 3, PADDING, 5],
        "parallel": [0, 2, 4, 1, 3, 5],
    }


def test_special_tokens_may_begin_like_codes_and_codes_like_them() -> None:
    values = {"name": "mine", "kind": "template", "token": "<a{code}", "begin_audio": "<a", "end_audio": "<a1>"}
    layout = TokenLayout.model_validate({**values, "special_tokens": ("<a", "<a1>")})
    vocabulary = Vocabulary(20, offset=500, layout=layout)
    codes = np.array([[1], [11], [0], [1]])
    assert text_of(codes, vocabulary, True) == "<a<a1<a11<a0<a1<a1>"
    np.testing.assert_array_equal(read_text(text_of(codes, vocabulary, True), vocabulary, strict=True).codes, codes)


def test_unknown_codes_of_parallel_columns_keep_their_places() -> None:
    vocabulary = vocabulary_of("open template", "parallel", 1, 1, 2)
    tokens = ["c0_1", "c0_2", "c0_3", "c1_11", "c1_12", "c1_13"]
    for lost, frames in ((0, [[2, 12], [3, 13]]), (2, [[1, 11], [2, 12]]), (3, [[2, 12], [3, 13]])):
        reading = read_text("".join([*tokens[:lost], "c1_99", *tokens[lost + 1 :]]), vocabulary)
        assert reading.codes.tolist() == frames, lost
        assert [problem.kind for problem in reading.problems] == ["unknown"]


def test_problems_have_positions() -> None:
    vocabulary = Vocabulary(100, layout=load_layout("llasa"))
    text = "<|s_1|>oh<|s_100|> <|s_07|><|s_2|><|TEXT_GENERATION_END|><|s_99999999999999999999|>"
    reading = read_text(text, vocabulary)
    assert reading.codes.tolist() == [[1], [2]]
    found = [(problem.position, problem.kind) for problem in reading.problems]
    places = [text.index(part) for part in ("oh", "<|s_100", "<|s_07", "<|TEXT", "<|s_9999")]
    assert found == [(place, "unknown") for place in places]
    assert "'oh'" in reading.problems[0].message
    with pytest.raises(InputError, match=r"character 7: 'oh' .* \(4 further problems\)\.$"):
        read_text(text, vocabulary, strict=True)


def test_codes_are_read_between_marks() -> None:
    vocabulary = Vocabulary(100, layout=load_layout("llasa"))
    begin, end = "<|SPEECH_GENERATION_START|>", "<|SPEECH_GENERATION_END|>"
    assert read_text(f"user: hello{begin}<|s_1|>{end}<|eot_id|>", vocabulary, strict=True).codes.tolist() == [[1]]
    assert read_text(f"<|s_1|>{end}", vocabulary, strict=True).codes.tolist() == [[1]]
    cut = read_text(f"{begin}<|s_1|>", vocabulary)
    assert cut.codes.tolist() == [[1]]
    assert [(problem.kind, problem.position) for problem in cut.problems] == [("missing", len(begin) + 7)]
    outside = read_text(f"<|s_3|>{begin}<|s_1|>{end}<|s_4|>", vocabulary)
    assert outside.codes.tolist() == [[1]]
    assert [problem.kind for problem in outside.problems] == ["misplaced", "misplaced"]
    assert [problem.position for problem in outside.problems] == [0, 7 + len(begin) + 7 + len(end)]
    ids = [vocabulary.id_of(token) for token in (begin, "<|s_1|>")]
    assert [(p.position, p.kind) for p in read_ids([*ids, 5], vocabulary).problems] == [(2, "unknown"), (3, "missing")]


def test_special_ids_of_a_tokenizer_are_read() -> None:
    vocabulary = Vocabulary(10, layout=load_layout("llasa"))
    ids = [7, vocabulary.offset, 9]
    special = {"<|SPEECH_GENERATION_START|>": 7, "<|SPEECH_GENERATION_END|>": 9, "<|other|>": vocabulary.offset}
    assert read_ids(ids, vocabulary, True, special).codes.tolist() == [[0]]


@pytest.mark.parametrize(("order", "delay"), ORDERS)
def test_every_token_left_out_is_noticed(order: str, delay: int) -> None:
    vocabulary = vocabulary_of("template", order, delay, 1, 3)
    codes = np.random.default_rng(3).integers(33, size=(6, 3))
    ids = vocabulary.ids_of(codes).tolist()
    padding = vocabulary.id_of("<pad>")
    for place in range(len(ids)):
        reading = read_ids(ids[:place] + ids[place + 1 :], vocabulary)
        assert reading.problems, place
        assert all(0 <= problem.position < len(ids) for problem in reading.problems)
        if order == "flat":  # the other frames stay whole
            np.testing.assert_array_equal(reading.codes, np.delete(codes, place // 3, 0))
        if ids[place] != padding:
            unknown = read_ids([*ids[:place], 1, *ids[place + 1 :]], vocabulary)
            assert (place, "unknown") in [(problem.position, problem.kind) for problem in unknown.problems]


@pytest.mark.parametrize(("order", "delay"), ORDERS)
def test_unknown_code_removes_its_frame(order: str, delay: int) -> None:
    vocabulary = vocabulary_of("ids", order, delay, 1, 4)
    codes = np.random.default_rng(4).integers(33, size=(9, 4))
    ids = vocabulary.ids_of(codes)
    wrong = int(vocabulary.ids_of(codes).tolist().index(500 + 40 * 2 + int(codes[5, 2])))
    frame = next(n for n, row in enumerate(codes) if row[2] == codes[5, 2])
    ids[wrong] = 500 + 40 * 2 + 35  # between the codes of two codebooks
    reading = read_ids(ids, vocabulary)
    np.testing.assert_array_equal(reading.codes, np.delete(codes, frame, 0))
    assert [(problem.position, problem.kind) for problem in reading.problems] == [(wrong, "unknown")]
    with pytest.raises(InputError, match=f"at token {wrong}: The id 615 is"):
        read_ids(ids, vocabulary, strict=True)


def test_any_text_is_read_without_errors() -> None:
    """Positions lie in the text, and all codes are valid."""
    chance = random.Random(5)
    for kind in KINDS:
        for order, delay in ORDERS:
            vocabulary = vocabulary_of(kind, order, delay, 2, 2)
            pieces = [
                *vocabulary.tokens(),
                "text ",
                "<",
                ">",
                "1",
                "<g0r0:99>",
                "<g9r9:1>",
                "c1_",
                "\U000ffffd",
                "<501>",
            ]
            for _ in range(20):
                text = "".join(chance.choices(pieces, k=chance.randrange(40)))
                reading = read_text(text, vocabulary)
                assert reading.codes.shape[1] == 4
                assert ((reading.codes >= 0) & (reading.codes < 33)).all()
                assert all(0 <= problem.position <= len(text) for problem in reading.problems)
                ids = [chance.randrange(480, 700) for _ in range(30)]
                assert ((found := read_ids(ids, vocabulary).codes) < 33).all() and (found >= 0).all()
