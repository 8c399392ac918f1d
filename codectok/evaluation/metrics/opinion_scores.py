"""Mean opinion scores that models predict from the reconstruction alone."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from codectok.errors import CheckpointError, described

from .base import Metric, Pair, Quantity
from .computing import quiet
from .conditions import WIDE_BAND_RATE, require_speech_to_rate

# DistillMOS rates windows of 7.68 s, at most 1 s apart.
DISTILLMOS_WINDOW, DISTILLMOS_HOP = 122_880, 16_000


class Dnsmos(Metric):
    """DNSMOS P.835 (Reddy et al. 2022)."""

    quantities = (
        Quantity("dnsmos", "higher", "DNSMOS of the reconstruction, overall, 1 to 5"),
        Quantity("dnsmos_signal", "higher", "DNSMOS of the reconstruction, quality of speech, 1 to 5"),
        Quantity("dnsmos_background", "higher", "DNSMOS of the reconstruction, quality of the background, 1 to 5"),
    )
    packages: ClassVar[Mapping[str, str]] = {
        "speechmos": "speechmos",
        "librosa": "librosa",
        "onnxruntime": "onnxruntime",
        "requests": "requests",
    }

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return the three scores; undefined below 0.5 s or 16 kHz, and for silence."""
        require_speech_to_rate(pair)
        samples = np.clip(pair.reconstruction.at(WIDE_BAND_RATE), -1.0, 1.0)
        scores = _dnsmos()(samples, WIDE_BAND_RATE, False)
        return {
            "dnsmos": float(scores["ovrl_mos"]),
            "dnsmos_signal": float(scores["sig_mos"]),
            "dnsmos_background": float(scores["bak_mos"]),
        }


class DistillMos(Metric):
    """DistillMOS (Stahl and Gamper 2025)."""

    quantities = (Quantity("distillmos", "higher", "DistillMOS of the reconstruction, quality of speech from 1 to 5"),)
    packages: ClassVar[Mapping[str, str]] = {"distillmos": "distillmos"}

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return `distillmos`; undefined below 0.5 s or 16 kHz, and for silence."""
        import torch

        require_speech_to_rate(pair)
        samples = torch.tensor(pair.reconstruction.at(WIDE_BAND_RATE))
        samples = torch.nn.functional.pad(samples, (0, max(0, DISTILLMOS_WINDOW - len(samples))))
        excess = len(samples) - DISTILLMOS_WINDOW
        starts = [int(share * excess) for share in np.linspace(0, 1, math.ceil(excess / DISTILLMOS_HOP) + 1)]
        with torch.inference_mode():
            # Windows one by one: all those of a minute would need gigabytes.
            scores = [float(_distillmos()(samples[None, start : start + DISTILLMOS_WINDOW])) for start in starts]
        return {"distillmos": math.fsum(scores) / len(scores)}


class Utmos(Metric):
    """UTMOS (Saeki et al. 2022) by the user's own weights.

    Args:
        path: TorchScript file whose `forward(waves float32 [1, n] at 16 kHz)` returns one score.
    """

    quantities = (Quantity("utmos", "higher", "UTMOS of the reconstruction, quality of speech from 1 to 5"),)

    def __init__(self, path: Path) -> None:
        self._path = path
        self._model: Any = None

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return `utmos`; undefined below 0.5 s or 16 kHz, and for silence.

        Raises:
            CheckpointError: the file is not TorchScript, or its result is not one number.
        """
        import torch

        require_speech_to_rate(pair)
        samples = torch.tensor(pair.reconstruction.at(WIDE_BAND_RATE))[None]
        with torch.inference_mode():
            self._model = self._model or _torch_script(self._path)
            try:
                return {"utmos": float(self._model(samples))}
            except Exception as error:  # a model of the user may raise anything
                raise CheckpointError(
                    f"{self._path} cannot rate a wave [1, n] at 16 kHz ({described(error)}); export UTMOS so that it"
                    " returns one score."
                ) from None


@functools.cache
def _dnsmos() -> Any:
    import onnxruntime
    from speechmos import dnsmos

    folder = Path(dnsmos.__file__).parent / "dnsmos_models"
    paths = [str(folder / name) for name in ("sig_bak_ovr.onnx", "model_v8.onnx")]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    scorer = dnsmos.DNSMOS(*paths)
    scorer.onnx_sess, scorer.p808_onnx_sess = (
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in paths
    )
    return scorer


@functools.cache
def _distillmos() -> Any:
    from distillmos import ConvTransformerSQAModel

    with quiet():
        return ConvTransformerSQAModel(segmenting_in_forward=False).eval()


def _torch_script(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            # Weights of UTMOS are shared in this form.
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be loaded as TorchScript ({described(error)}); export UTMOS with torch.jit."
        ) from None
