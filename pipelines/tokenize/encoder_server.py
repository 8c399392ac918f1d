"""One encoder for several workers: the actor that has the GPU, and how workers send it their packs."""

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

# While a server works on one pack of a worker, the next is on its way and another is being laid out.
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
        # Arrays from Ray's store cannot be written, which torch does not like.
        samples, *gaps = (array.copy() for array in arguments)
        with self._lock:
            wait = self._codec.packed_encoder.start(samples, tuple(gaps))
        # Another thread starts the next pack meanwhile.
        return wait().to(torch.int32).numpy()


class RemoteEncoder:
    """Lets a server compute the codes of packs."""

    packs_ahead = PACKS_AHEAD

    def __init__(self, call: ServerCall, fixed_length: bool) -> None:
        self._call, self.fixed_length = call, fixed_length

    def start(self, samples: np.ndarray, gaps: tuple[np.ndarray, ...]) -> Callable[[], Tensor]:
        """Send a pack."""
        wait = self._call(samples, *gaps)
        return lambda: torch.from_numpy(wait().astype(np.int64))


def load_codec(settings: TokenizeOptions, description: CodecDescription, device_class: str) -> Codec:
    """The codec, the same that the job was made with, on the same kind of device."""
    codec = Codec.from_pretrained(settings.codec, settings.device, settings.dtype, settings.pack_frames)
    if (codec.fingerprint, codec.device_class) != (description.codec_fingerprint, device_class):
        raise CodectokError(
            f"A worker found another codec or device than the job started with: {settings.codec}"
            f" on {codec.device_class}; give all workers the same."
        )
    return codec
