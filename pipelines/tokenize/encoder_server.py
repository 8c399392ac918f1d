"""One encoder for several workers: a server on the GPU, and the client that sends it packs."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from codectok.codec import Codec
from codectok.description import CodecDescription
from codectok.errors import CodectokError
from codectok.model.clip_encoder import memory_errors
from codectok.model.packing import DEFAULT_PACK_FRAMES
from codectok.pipelines.engine.job import Server, ServerCall

from .options import TokenizeOptions

# While the server encodes one pack of a worker, the next one is sent and another one is filled.
PACKS_AHEAD = 2


class EncoderServer(Server):
    """The codec on one GPU; workers send it their packs.

    Args:
        settings: of the job.
        description: that the codec must have.
        device_class: on which it must be.
    """

    def __init__(self, settings: TokenizeOptions, description: CodecDescription, device_class: str) -> None:
        self._settings, self._description, self._device_class = settings, description, device_class
        self._codec: Codec | None = None
        self._lock: threading.Lock | None = None  # made where it is needed: locks do not travel

    def set_up(self) -> None:
        """Load the codec."""
        self._lock = threading.Lock()
        with memory_errors(self._settings.pack_frames or DEFAULT_PACK_FRAMES):
            self._codec = load_codec(self._settings, self._description, self._device_class)

    def call(self, *arguments: np.ndarray) -> np.ndarray:
        """Codes int32 [code frames, n_codebooks] of a pack: its samples and its gaps."""
        assert self._codec is not None and self._lock is not None, "set_up comes first"
        # Copied, since torch warns about the read-only arrays of Ray's object store.
        samples, *gaps = (array.copy() for array in arguments)
        with self._lock:
            wait = self._codec.packed_encoder.start(samples, tuple(gaps))
        # Outside of the lock, so that another thread can start the next pack.
        return wait().to(torch.int32).numpy()


class RemoteEncoder:
    """Encodes packs on a server."""

    packs_ahead = PACKS_AHEAD

    def __init__(self, call: ServerCall, fixed_length: bool) -> None:
        self._call, self.fixed_length = call, fixed_length

    def start(self, samples: np.ndarray, gaps: tuple[np.ndarray, ...]) -> Callable[[], Tensor]:
        """Send a pack; the returned function waits for its codes."""
        wait = self._call(samples, *gaps)
        return lambda: torch.from_numpy(wait().astype(np.int64))


def load_codec(settings: TokenizeOptions, description: CodecDescription, device_class: str) -> Codec:
    """Load the codec, and check that codec and device class are those of the job."""
    codec = Codec.from_pretrained(settings.codec, settings.device, settings.dtype, settings.pack_frames)
    if (codec.fingerprint, codec.device_class) != (description.codec_fingerprint, device_class):
        raise CodectokError(
            f"A worker has another codec or device than the job: {settings.codec} on"
            f" {codec.device_class}; give all workers the same."
        )
    return codec
