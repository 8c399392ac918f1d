"""Speech quality by DNSMOS P.835 (Reddy et al. 2022); needs the extra `eval`."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from codectok.audio.resample import resample
from codectok.errors import InputError

DNSMOS_RATE = 16_000


def check_installed() -> None:
    """Raise `InputError` if speechmos is not installed."""
    _package()


def overall_quality(samples: np.ndarray, sample_rate: int) -> float:
    """Return the overall score (1 to 5) of mono `samples` float32 [n], rounded to two digits."""
    clipped = np.clip(resample(samples, sample_rate, DNSMOS_RATE), -1.0, 1.0)
    return round(float(_package().run(clipped, sr=DNSMOS_RATE)["ovrl_mos"]), 2)


@functools.cache
def _package() -> Any:
    try:
        from speechmos import dnsmos
    except ImportError:
        raise InputError("DNSMOS needs speechmos; install it: pip install 'codectok[eval]'.") from None
    return dnsmos
