"""Codecs that reconstruct clips: in a worker on a CPU, or in a server that holds a GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import numpy as np

from codectok.choices import KernelChoice
from codectok.codecs.base import AudioCodec
from codectok.description import CodecDescription
from codectok.errors import AudioError, CodectokError
from codectok.evaluation.codes.stability import stability
from codectok.loading import load_codec
from codectok.memory import gpu_memory_errors
from codectok.pipelines.engine.job import Server, ServerCall
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.timing import CODEC
from codectok.pipelines.engine.unit_clips import clips_of_unit
from codectok.sources.channels import clips_of_channels
from codectok.tokens.clips import ClipReader

from .options import EvaluateOptions


@dataclass(frozen=True)
class Reconstruction:
    """Codes of a clip, and the clip decoded from them.

    Attributes:
        codes: int32 [n_frames, n_codebooks].
        samples: float32 [n] at the codec's decoded rate, as long as the clip or shorter.
        stability: shares of equal codes of changed copies; empty if not measured.
    """

    codes: np.ndarray
    samples: np.ndarray
    stability: Mapping[str, float | None]


Reconstruct = Callable[[int, np.ndarray, int], Reconstruction | str]
"""Takes the number of a codec, a clip float32 [n] at its sample rate and a seed; returns why the codec refuses it."""


class CodecsOnDevice:
    """The codecs of an evaluation, loaded; one clip after the other.

    Args:
        settings: options of the job.
        descriptions: descriptions that the codecs must have.
        device_class: kind of device that they must be on.

    Raises:
        CodectokError: another codec, or another kind of device, than the job started with.
    """

    def __init__(self, settings: EvaluateOptions, descriptions: Sequence[CodecDescription], device_class: str) -> None:
        self._lock, self._with_stability = threading.Lock(), settings.stability
        self.codecs: list[AudioCodec] = []
        for named, description in zip(settings.codecs, descriptions, strict=True):
            kernels = cast("KernelChoice", description.kernels)
            codec = load_codec(named.name, settings.device, settings.dtype, kernels=kernels)
            if (codec.fingerprint, codec.device_class) != (description.codec_fingerprint, device_class):
                raise CodectokError(
                    f"A worker has another codec or device than the job: {named.name} on {codec.device_class}; give all"
                    " workers the same."
                )
            self.codecs.append(codec)

    def reconstruct(self, number: int, samples: np.ndarray, seed: int) -> Reconstruction | str:
        """Reconstruct a clip; see `Reconstruct`."""
        codec = self.codecs[number]
        samples = samples.copy()  # arrays from Ray's store are read-only, and torch warns about them
        with self._lock:
            try:
                codes = codec.encode(samples, codec.sample_rate)
            except AudioError as error:
                return str(error)
            decoded = codec.decode_aligned(codes, len(samples)).numpy()
            if not len(decoded) or not np.isfinite(decoded).all():
                return "the codec decodes to no samples, or to samples that are not finite"
            shares = stability(codec, samples, codes.numpy(), seed) if self._with_stability else {}
        return Reconstruction(codes.numpy().astype(np.int32), decoded, shares)


class CodecServer(Server):
    """The codecs on one GPU; workers read clips, and measure the reconstructions."""

    def __init__(self, settings: EvaluateOptions, descriptions: Sequence[CodecDescription], device_class: str) -> None:
        self._settings, self._descriptions, self._device_class = settings, descriptions, device_class

    def start(self) -> Reconstruct:
        """Load the codecs, and return a function that reconstructs clips."""
        with gpu_memory_errors("the codecs", "evaluate them one after the other"), self.clock.during(CODEC):
            return CodecsOnDevice(self._settings, self._descriptions, self._device_class).reconstruct

    def probe(self, unit: Unit) -> None:
        """Decode all clips of a unit."""
        sound = self._settings.sound
        for clip in clips_of_channels(clips_of_unit(unit, None), sound):
            with suppress(AudioError):
                for _ in ClipReader(clip, self._descriptions[0].sample_rate, sound).blocks():
                    pass


def remote(call: ServerCall) -> Reconstruct:
    """Return a function that reconstructs clips in a server."""

    def reconstruct(number: int, samples: np.ndarray, seed: int) -> Reconstruction | str:
        found: Reconstruction | str = call(number, samples, seed)()
        return found

    return reconstruct
