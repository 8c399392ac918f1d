"""Layouts that come with codectok, compared with strings and ids written by hand from the public formats."""

from __future__ import annotations

import numpy as np
import pytest

from codectok import InputError
from codectok.codecs.packages.snac import Flattening
from codectok.tokens.layouts.loading import PRESETS, load_layout, preset_of_token
from codectok.tokens.layouts.reading import read_ids, read_text, text_of
from codectok.tokens.vocabulary import DEFAULT_OFFSET, SPECIAL_TOKENS, Vocabulary

MIMI_FRAMES = np.array([[0, 1, 2, 3, 4, 5, 6, 7], [2047, 0, 100, 0, 0, 0, 0, 2047]])
WRITTEN = {
    "unitts": (
        32_768,
        [[0], [1401], [32_767]],
        "<|beginofaudio|><|g0r0_152064|><|g0r0_153465|><|g0r0_184831|><|endofaudio|>",
    ),
    "llasa": (
        65_536,
        [[0], [12345], [65_535]],
        "<|SPEECH_GENERATION_START|><|s_0|><|s_12345|><|s_65535|><|SPEECH_GENERATION_END|>",
    ),
    "neutts": (
        65_536,
        [[7], [65_535], [0], [7]],
        "<|SPEECH_GENERATION_START|><|speech_7|><|speech_65535|><|speech_0|><|speech_7|><|SPEECH_GENERATION_END|>",
    ),
    "spark": (
        8192,
        [[0], [8191], [42]],
        "<|start_semantic_token|><|bicodec_semantic_0|><|bicodec_semantic_8191|><|bicodec_semantic_42|>"
        "<|end_semantic_token|>",
    ),
    "apertus": (
        4096,
        [[0], [4095], [9]],
        "<|audio_start|><|audio token 0|><|audio token 4095|><|audio token 9|><|audio_end|>",
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_preset_writes_strings_of_format(name: str) -> None:
    size, frames, text = WRITTEN[name]
    vocabulary = Vocabulary(size, layout=load_layout(name))
    codes = np.array(frames)
    assert text_of(codes, vocabulary, structure=True) == text
    reading = read_text(f"a prompt {text}", vocabulary, strict=True)
    np.testing.assert_array_equal(reading.codes, codes)


def test_orpheus_frame_has_seven_slots_of_snac_levels() -> None:
    """A frame is: 1st level, 2nd, 3rd, 3rd, 2nd, 3rd, 3rd; each slot has 4,096 ids from 128,266 on."""
    import torch

    levels = [torch.tensor([[5]]), torch.tensor([[10, 20]]), torch.tensor([[1, 2, 3, 4]])]
    frames = Flattening([4, 2, 1]).flatten(levels)[0].numpy()
    vocabulary = Vocabulary(4096, 7, 1, 128_266, load_layout("orpheus"))
    ids = [
        128_266 + 5,
        128_266 + 4096 + 10,
        128_266 + 8192 + 1,
        128_266 + 12_288 + 2,
        128_266 + 16_384 + 20,
        128_266 + 20_480 + 3,
        128_266 + 24_576 + 4,
    ]
    assert vocabulary.ids_of(frames).tolist() == ids
    # The number in a string counts from the first of the ten marks.
    assert text_of(frames, vocabulary, structure=True) == (
        "<custom_token_1><custom_token_15><custom_token_4116><custom_token_8203><custom_token_12300>"
        "<custom_token_16414><custom_token_20493><custom_token_24590><custom_token_2>"
    )
    start_of_speech, end_of_speech = 128_257, 128_258
    assert [vocabulary.id_of(f"<custom_token_{n}>") for n in (0, 1, 2, 9, 10)] == [
        128_256,
        start_of_speech,
        end_of_speech,
        128_265,
        128_266,
    ]
    reading = read_ids([128_000, 17, start_of_speech, *ids, end_of_speech], vocabulary, strict=True)
    np.testing.assert_array_equal(reading.codes, frames)
    assert (vocabulary.first, vocabulary.end) == (128_256, 128_266 + 7 * 4096)


def test_soda_writes_a_character_for_each_code_of_mimi() -> None:
    vocabulary = Vocabulary(2048, 1, 8, layout=load_layout("soda"))
    text = "".join(map(chr, [0xE000, 0xE801, 0xF002, 0xF803, 0x10004, 0x10805, 0x11006, 0x11807]))
    text += "".join(map(chr, [0xE7FF, 0xE800, 0xF064, 0xF800, 0x10000, 0x10800, 0x11000, 0x11FFF]))
    assert text_of(MIMI_FRAMES, vocabulary, structure=True) == f"<|audio_start|>{text}<|audio_end|>"
    np.testing.assert_array_equal(read_text(text, vocabulary, strict=True).codes, MIMI_FRAMES)


def test_marks_stand_before_codes_of_llasa() -> None:
    vocabulary = Vocabulary(65_536, offset=128_264, layout=load_layout("llasa"))
    assert vocabulary.id_of("<|TEXT_GENERATION_START|>") == 128_256
    assert vocabulary.id_of("<|SPEECH_GENERATION_END|>") == 128_261
    assert vocabulary.id_of("<|s_0|>") == 128_264
    assert vocabulary.end == 128_264 + 65_536 == 193_800


def test_default_layout_is_that_of_unitts() -> None:
    vocabulary = Vocabulary(64)
    assert vocabulary.layout == load_layout("unitts")
    assert vocabulary.special_tokens == SPECIAL_TOKENS
    assert vocabulary.first == vocabulary.offset == DEFAULT_OFFSET


@pytest.mark.parametrize(
    ("name", "size", "n_codebooks", "message"),
    [
        ("llasa", 1024, 8, "writes codes of all codebooks alike"),
        ("orpheus", 4096, 1, "7 codebooks, but this codec has 1"),
        ("orpheus", 8192, 7, "4,096 ids for each codebook"),
        ("soda", 32_768, 1, "16,384 characters"),
        ("soda", 2048, 9, r"U\+E000 to U\+11FFF, but this codec has 18,432 codes"),
    ],
)
def test_layout_refuses_codecs_that_do_not_fit(name: str, size: int, n_codebooks: int, message: str) -> None:
    layout = load_layout(name)
    with pytest.raises(InputError, match=message):
        Vocabulary(size, n_codebooks, offset=layout.first_id or DEFAULT_OFFSET, layout=layout)


def test_ids_of_layout_cannot_be_moved() -> None:
    with pytest.raises(InputError, match="128266"):
        Vocabulary(4096, 7, offset=1000, layout=load_layout("orpheus"))


def test_presets_recognize_their_tokens() -> None:
    tokens = ["<|g0r0_5|>", "<|s_5|>", "<|speech_5|>", "<|bicodec_semantic_5|>", "<|audio token 5|>"]
    assert [preset_of_token(token) for token in [*tokens, "<custom_token_10>", "\ue000"]] == list(PRESETS)
    for token in ("<custom_token_9>", "<|s_05|>", "<|s_|>", "<|s_5|> ", "word", ""):
        assert preset_of_token(token) is None
