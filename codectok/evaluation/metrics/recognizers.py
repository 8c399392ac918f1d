"""Speech recognizers for word errors."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from codectok.errors import CodectokError, InputError, described

RATE = 16_000
# samples float32 [n] and their rate in Hz -> words.
Recognizer = Callable[[np.ndarray, int], str]


def load_recognizer(name: str) -> Recognizer:
    """Import a user's recognizer.

    Args:
        name: `module:callable`.

    Raises:
        InputError: it cannot be imported.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise InputError(f'A recognizer is given as "module:callable", not {name!r}.')
    try:
        found = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    except Exception as error:  # a module of the user may raise anything
        raise InputError(
            f"The recognizer {name} cannot be imported ({described(error)}); install it, or put its folder into"
            " PYTHONPATH."
        ) from None
    if not callable(found):
        raise InputError(f"The recognizer {name} is not callable.")

    def recognize(samples: np.ndarray, sample_rate: int) -> str:
        try:
            words = found(samples, sample_rate)
        except Exception as error:  # so may its function
            raise CodectokError(f"The recognizer {name} failed: {described(error)}.") from error
        if not isinstance(words, str):
            raise CodectokError(f"The recognizer {name} returned {type(words).__name__}; it must return str.")
        return words

    return recognize


def pocketsphinx(samples: np.ndarray, sample_rate: int) -> str:
    """Recognize English with the models of the package pocketsphinx; `sample_rate` must be 16,000."""
    decoder = _decoder()
    # Estimates of noise from earlier clips would change the words.
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw((np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return str(hypothesis.hypstr) if hypothesis else ""


@functools.cache
def _decoder() -> Any:
    from pocketsphinx import Decoder

    return Decoder(samprate=RATE, loglevel="FATAL")
