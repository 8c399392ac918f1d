"""Encoder on a GPU that several workers share: its server, and the client that sends it packs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import numpy as np
import torch
from torch import Tensor

from codectok.choices import KernelChoice
from codectok.codecs.base import AudioCodec
from codectok.description import CodecDescription
from codectok.errors import AudioError, CodectokError
from codectok.loading import load_codec
from codectok.memory import gpu_memory_errors
from codectok.model.cuda_graph import GPUClock
from codectok.pipelines.engine.job import Server, ServerCall
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.timing import CODEC
from codectok.pipelines.engine.unit_clips import clips_of_unit
from codectok.sources.channels import clips_of_channels
from codectok.tokens.clips import ClipReader

from .options import TokenizeOptions

# While the server encodes one batch of a worker, the next one is sent and another one is filled.
BATCHES_AHEAD = 2
# Phase of the start: checks and records the computation of a batch.
FIRST_BATCH = "first batch"


class EncoderServer(Server):
    """The codec on one GPU; workers send it their batches.

    Args:
        settings: options of the job.
        description: description that the codec must have.
        device_class: kind of device that it must be on.
    """

    def __init__(self, settings: TokenizeOptions, description: CodecDescription, device_class: str) -> None:
        self._settings, self._description, self._device_class = settings, description, device_class
        self.gpus = 1.0 / settings.encoders_per_gpu

    def start(self) -> Callable[..., np.ndarray]:
        """Load the codec, encode a first batch, and return a function that encodes batches; see `_Encoder`."""
        with gpu_memory_errors(f"the codec {self._settings.codec}", "use fewer encoders on it (--encoders-per-gpu)"):
            with self.clock.during(CODEC):
                codec = load_codec_of_job(self._settings, self._description, self._device_class)
            with self.clock.during(FIRST_BATCH), suppress(AudioError):  # a codec may refuse silence, or a second of it
                codec.encode(np.zeros(codec.sample_rate, np.float32), codec.sample_rate)
            return _Encoder(codec)

    def gpu_seconds(self) -> float | None:
        """Time in which the GPU encoded batches; None for codecs that do not record their batches."""
        return GPUClock.seconds or None

    def probe(self, unit: Unit) -> None:
        """Decode all clips of a unit."""
        sound = self._settings.sound
        for clip in clips_of_channels(clips_of_unit(unit, None), sound):
            with suppress(AudioError):
                for _ in ClipReader(clip, self._description.sample_rate, sound).blocks():
                    pass


class _Encoder:
    """Encodes batches; several threads may call it at a time."""

    def __init__(self, codec: AudioCodec) -> None:
        self._codec, self._lock = codec, threading.Lock()

    def __call__(self, *arguments: np.ndarray) -> np.ndarray:
        """Codes int32 of a batch, given its arrays."""
        # Arrays from Ray's store are read-only, and torch warns about them.
        arrays = [array.copy() for array in arguments]
        with self._lock:
            wait = self._codec.batch_encoder.start(*arrays)
        # Outside of the lock, so that another thread can start the next pack.
        return wait().to(torch.int32).numpy()


class RemoteEncoder:
    """Sends batches to a server, as an encoder of batches."""

    batches_ahead = BATCHES_AHEAD

    def __init__(self, call: ServerCall) -> None:
        self._call = call

    def start(self, *arrays: np.ndarray) -> Callable[[], Tensor]:
        """Send a batch, and return a function that waits for its codes."""
        wait = self._call(*arrays)
        return lambda: torch.from_numpy(wait().astype(np.int64))


def load_codec_of_job(settings: TokenizeOptions, description: CodecDescription, device_class: str) -> AudioCodec:
    """Load the codec of the job, without its decoder.

    Raises:
        CodectokError: another codec, or another kind of device, than the job started with.
    """
    codec = load_codec(
        settings.codec,
        settings.device,
        settings.dtype,
        settings.pack_frames,
        settings.batch_seconds,
        encoder_only=True,
        kernels=cast("KernelChoice", description.kernels),
    )
    if (codec.fingerprint, codec.device_class) != (description.codec_fingerprint, device_class):
        raise CodectokError(
            f"A worker has another codec or device than the job: {settings.codec} on"
            f" {codec.device_class}; give all workers the same."
        )
    return codec
