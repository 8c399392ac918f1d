"""Word and character errors match counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from codectok.errors import CodectokError, InputError
from codectok.evaluation.metrics.base import Pair, Signal, UndefinedMetricError
from codectok.evaluation.metrics.recognizers import load_recognizer, pocketsphinx
from codectok.evaluation.metrics.words import WordErrors, is_english, plain_words
from tests.helpers.audio import voice

RATE = 24_000
HERE = __name__


def by_level(samples: np.ndarray, sample_rate: int) -> str:
    """A recognizer that hears one word wrong in quiet clips, and everything in loud ones."""
    assert sample_rate == 16_000
    assert samples.dtype == np.float32
    return "The cat, SAT on a mat!" if np.abs(samples).max() > 0.1 else "the hat sat on mat"


def failing(samples: np.ndarray, sample_rate: int) -> str:
    raise RuntimeError("no model")


def tokens(samples: np.ndarray, sample_rate: int) -> list[str]:
    return ["the"]


def _pair(text: str | None = "The cat sat on a mat.", language: str | None = "en") -> Pair:
    clip = voice(1, RATE)
    return Pair(Signal(clip, RATE), Signal(0.1 * clip, RATE), text, language)


def test_errors_are_counts() -> None:
    pytest.importorskip("jiwer")
    found = WordErrors(f"{HERE}:by_level").measure(_pair())
    # One of six words is replaced, one is left out; 20 characters, of which one is replaced and two are left out.
    expected = {"wer": 2 / 6, "cer": 3 / 20, "wer_original": 0, "cer_original": 0}
    expected |= {"wer_difference": 2 / 6, "cer_difference": 3 / 20}
    assert found == pytest.approx(expected)


def test_silence_holds_no_words() -> None:
    pytest.importorskip("jiwer")
    pair = _pair()
    silent = Pair(pair.original, Signal(0 * pair.original.samples, RATE), pair.text, pair.language)
    found = WordErrors(f"{HERE}:by_level").measure(silent)
    assert (found["wer"], found["cer"], found["wer_original"]) == (1, 1, 0)


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert plain_words("Don\u2019t \u2014 STOP,  it\u00a0(now)!\n$5") == "dont stop it now 5"
    assert plain_words("\u4f60\u597d\u3002") == "\u4f60\u597d"
    assert plain_words("... \u00bf?") == ""


@pytest.mark.parametrize(
    ("text", "language", "reason"), [(None, "en", "unknown"), (" ?! ", "en", "no words"), ("Guten Tag", "de", "de")]
)
def test_errors_are_undefined_without_english_text(text: str | None, language: str, reason: str) -> None:
    pytest.importorskip("jiwer")
    with pytest.raises(UndefinedMetricError, match=reason):
        WordErrors().measure(_pair(text, language))


def test_recognizer_of_user_hears_all_languages() -> None:
    pytest.importorskip("jiwer")
    assert WordErrors(f"{HERE}:by_level").measure(_pair(language="de"))["wer_original"] == 0
    assert [is_english(one) for one in ("en", "en-US", "EN_gb", "eng", "English", None, " ")] == [True] * 7
    assert not any(is_english(one) for one in ("de", "enm", "zh-CN"))


@pytest.mark.parametrize(
    "name", ["", "json", "json:", ":dumps", "json:nothing", "nothing_of_this_name:f", "json:__doc__"]
)
def test_unusable_recognizers_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="recognizer"):
        load_recognizer(name)


@pytest.mark.parametrize(("name", "word"), [("failing", "no model"), ("tokens", "list")])
def test_failure_of_recognizer_is_named(name: str, word: str) -> None:
    pytest.importorskip("jiwer")
    with pytest.raises(CodectokError, match=word):
        WordErrors(f"{HERE}:{name}").measure(_pair())


@pytest.mark.slow
def test_pocketsphinx_does_not_depend_on_earlier_clips() -> None:
    pytest.importorskip("pocketsphinx")
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    first, second = voice(1, 16_000), voice(1, 16_000, pitch=220, seed=5)
    alone = [pocketsphinx(clip, 16_000) for clip in (first, second)]
    pocketsphinx(noise, 16_000)
    assert [pocketsphinx(clip, 16_000) for clip in (second, first)] == alone[::-1]
