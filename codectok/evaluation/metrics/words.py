"""Word and character errors of recognized speech."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import ClassVar

from .base import Metric, Pair, Quantity, Signal, UndefinedMetricError
from .conditions import SHORTEST_SPEECH, WIDE_BAND_RATE, is_silent, require_rate, require_seconds
from .recognizers import load_recognizer, pocketsphinx

APOSTROPHES = "'\u2019\u02bc"  # parts of words


class WordErrors(Metric):
    """Word and character error rates of a recognizer on both clips, in lower case without punctuation.

    Args:
        recognizer: `module:callable`; None for pocketsphinx, which knows English only.
    """

    quantities = (
        Quantity("wer", "lower", "word error rate of the reconstruction, errors by words of the text"),
        Quantity("cer", "lower", "character error rate of the reconstruction, errors by characters of the text"),
        Quantity("wer_original", "neither", "word error rate of the original"),
        Quantity("cer_original", "neither", "character error rate of the original"),
        Quantity("wer_difference", "lower", "word error rate of the reconstruction less that of the original"),
        Quantity("cer_difference", "lower", "character error rate of the reconstruction less that of the original"),
    )
    packages: ClassVar[Mapping[str, str]] = {"jiwer": "jiwer", "pocketsphinx": "pocketsphinx"}

    def __init__(self, recognizer: str | None = None) -> None:
        self._name = recognizer
        self._recognize = pocketsphinx if recognizer is None else load_recognizer(recognizer)

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return all rates; undefined without text, below 0.5 s or 16 kHz; silence holds no words.

        Raises:
            CodectokError: the user's recognizer failed.
        """
        text = self._text(pair)
        require_rate(pair, WIDE_BAND_RATE)
        require_seconds(pair, SHORTEST_SPEECH)
        import jiwer

        heard, original = self._transcript(pair.reconstruction), self._transcript(pair.original)
        wer, wer_original = (float(jiwer.wer(text, words)) for words in (heard, original))
        cer, cer_original = (float(jiwer.cer(text, words)) for words in (heard, original))
        return {
            "wer": wer,
            "cer": cer,
            "wer_original": wer_original,
            "cer_original": cer_original,
            "wer_difference": wer - wer_original,
            "cer_difference": cer - cer_original,
        }

    def _text(self, pair: Pair) -> str:
        if pair.text is None:
            raise UndefinedMetricError("the words of the original are unknown")
        if self._name is None and not is_english(pair.language):
            raise UndefinedMetricError(f"pocketsphinx knows English only, and the language is {pair.language}")
        text = plain_words(pair.text)
        if not text:
            raise UndefinedMetricError("the text of the original holds no words")
        return text

    def _transcript(self, signal: Signal) -> str:
        if is_silent(signal):
            return ""
        return signal.keep(
            ("transcript", self._name), lambda: plain_words(self._recognize(signal.at(WIDE_BAND_RATE), WIDE_BAND_RATE))
        )


def is_english(language: str | None) -> bool:
    """Return True for codes and names of English, such as "en-US", and for an unknown language."""
    if not language or language.isspace():
        return True
    return language.strip().lower().replace("_", "-").split("-")[0] in ("en", "eng", "english")


def plain_words(text: str) -> str:
    """Return `text` in lower case with single spaces, without punctuation and apostrophes."""
    kept = (
        "" if character in APOSTROPHES else " " if unicodedata.category(character)[0] in "PSZC" else character
        for character in unicodedata.normalize("NFKC", text).lower()
    )
    return " ".join("".join(kept).split())
