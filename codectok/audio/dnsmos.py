"""How good speech sounds, as DNSMOS P.835 (Reddy et al. 2022) judges it (extra `eval`)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from codectok.errors import InputError

from .resample import resample

DNSMOS_RATE = 16_000


def check_installed() -> None:
    """Refuse to go on without the package."""
    _package()


def overall_quality(samples: np.ndarray, sample_rate: int) -> float:
    """Overall score from 1 to 5 of mono `samples` [n], to a hundredth."""
    heard = np.clip(resample(samples, sample_rate, DNSMOS_RATE), -1.0, 1.0)
    return round(float(_package().run(heard, sr=DNSMOS_RATE)["ovrl_mos"]), 2)


@functools.cache
def _package() -> Any:
    try:
        from speechmos import dnsmos
    except ImportError:
        raise InputError("DNSMOS is computed with speechmos; install it: pip install 'codectok[eval]'.") from None
    return dnsmos
