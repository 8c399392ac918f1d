"""ViSQOL, in its modes for audio and speech."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from .base import Metric, Pair, Quantity, UndefinedMetricError
from .conditions import WIDE_BAND_RATE, is_silent, require_rate, require_seconds

SHORTEST = 1.0  # s; the mode for audio compares patches of 0.6 s after the first 0.3 s
RATES = {"audio": 48_000, "speech": 16_000}
WORST = 1.0  # for clips without similarity


class VisqolAudio(Metric):
    """ViSQOL 3 (Chinen et al. 2020) in the mode for audio, at 48 kHz."""

    quantities = (Quantity("visqol_audio", "higher", "ViSQOL at 48 kHz, quality of audio from 1 to 4.73"),)
    packages: ClassVar[Mapping[str, str]] = {"visqol": "visqol-python", "numba": "numba"}

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return `visqol_audio`; 1 for a silent reconstruction, undefined below 1 s or 16 kHz."""
        return {"visqol_audio": _visqol(pair, "audio")}


class VisqolSpeech(Metric):
    """ViSQOL 3 (Chinen et al. 2020) in the mode for speech, at 16 kHz, with the polynomial mapping up to 5."""

    quantities = (Quantity("visqol_speech", "higher", "ViSQOL at 16 kHz, quality of speech from 1 to 5"),)
    packages: ClassVar[Mapping[str, str]] = {"visqol": "visqol-python", "numba": "numba"}

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return `visqol_speech`; 1 for a silent reconstruction, undefined below 1 s or 16 kHz, or without speech."""
        return {"visqol_speech": _visqol(pair, "speech")}


def _visqol(pair: Pair, mode: Literal["audio", "speech"]) -> float:
    require_rate(pair, WIDE_BAND_RATE)
    require_seconds(pair, SHORTEST)
    if is_silent(pair.reconstruction):
        return WORST
    import numba

    rate = RATES[mode]
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        found = _package(mode).measure_from_arrays(pair.original.at(rate), pair.reconstruction.at(rate), rate)
    except IndexError:
        # The package has no other answer to a list of no patches.
        raise UndefinedMetricError("the original holds no active speech") from None
    finally:
        numba.set_num_threads(threads)
    return float(found.moslqo)


@functools.cache
def _package(mode: str) -> Any:
    from visqol.api import VisqolApi

    # It logs, for example, that patches at the end of a clip are left out.
    logging.getLogger("visqol").setLevel(logging.ERROR)

    api = VisqolApi()
    # The other mapping of speech needs a runtime of TFLite; figures must not depend on what else is installed.
    api.create(mode=mode, use_lattice_model=False)
    return api
