"""Processes that each hold an encoder, as `tokenize --encoders-per-gpu` runs several on a GPU."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, Protocol

import common
import numpy as np
import torch

from codectok import Codec
from codectok.codecs.base import AudioCodec
from codectok.codecs.encoders import ClipEncoder
from codectok.codecs.transformers_models.codec import TransformersCodec
from codectok.codecs.whole_clip_codec import WholeClipBatches
from codectok.codecs.whole_clips import WholeClips
from codectok.errors import AudioError, described

# Processes begin together, this long after they were asked to.
DELAY_SECONDS = 0.1


class Codecs(Protocol):
    """Makes codecs."""

    def n_parameters(self, name: str) -> int:
        """Count the parameters of a codec, without making them."""

    def make(self, name: str, device: str) -> Codec | TransformersCodec:
        """Make a codec on a device."""


class EncoderError(Exception):
    """A process failed; its text says how."""


@dataclass(frozen=True)
class Work:
    """Clips to encode.

    Attributes:
        lengths: of the clips in seconds, in turn.
        batch_seconds: audio of clips of one length that are encoded at once; 0 to encode clips one by one.
    """

    lengths: tuple[float, ...]
    batch_seconds: float = 0.0


@dataclass(frozen=True)
class Facts:
    """Sizes of a loaded codec; its parameters are those that it holds."""

    n_parameters: int
    sample_rate: int
    frame_rate: float
    n_codebooks: int
    codebook_size: int


class Encoder:
    """An encoder in a process.

    Args:
        codecs: makes codecs.
        device: device of the codecs.
        threads: of a CPU.
    """

    def __init__(self, codecs: Codecs, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._codecs, self._device = codecs, device
        self._codec: AudioCodec | None = None

    def n_parameters(self, name: str) -> int:
        """Count the parameters of a codec, without making them."""
        return self._codecs.n_parameters(name)

    def load(self, name: str) -> Facts:
        """Make a codec, after the memory of the one before is free."""
        self._codec = None
        gc.collect()
        if self._device != "cpu":
            torch.cuda.empty_cache()
        self._codec = codec = self._codecs.make(name, self._device)
        network = codec.network if isinstance(codec, Codec) else codec.model
        count = sum(one.numel() for one in network.parameters())
        return Facts(count, codec.sample_rate, codec.frame_rate, codec.n_codebooks, codec.codebook_size)

    def warm_up(self, work: Work, seconds: float) -> bool:
        """Encode a clip of each length, or a batch, for `seconds` at most.

        Returns:
            True if the rows of a batch are encoded together, False if their bits forbid it.
        """
        assert self._codec is not None
        self._encode(work, time.monotonic() + seconds, len(work.lengths))
        batches = self._codec.batch_encoder
        return not isinstance(batches, WholeClipBatches) or all(batches.together.values())

    def encode(self, work: Work, start: float, seconds: float) -> tuple[float, float]:
        """Encode clips from the time `start` on for `seconds`.

        Returns:
            Seconds of encoded audio, and the time at the end.
        """
        time.sleep(max(0.0, start - time.monotonic()))
        encoded = self._encode(work, start + seconds)
        return encoded, time.monotonic()

    def megabytes(self, seconds: float) -> float | None:
        """Measure the memory that encoding one clip takes."""
        assert self._codec is not None
        return common.peak_megabytes(lambda: self._encode(Work((seconds,)), 0.0), self._codec.device)

    def _encode(self, work: Work, stop: float, n_clips: int | None = None) -> float:
        """Encode at least one batch, and return the seconds of encoded audio."""
        codec = self._codec
        assert codec is not None
        noise = np.random.default_rng(0).normal(0, 0.1, round(max(work.lengths) * codec.sample_rate)).astype(np.float32)
        lengths = [round(length * codec.sample_rate) for length in work.lengths]
        encoder, rows = _clip_encoder(codec, work, max(lengths))
        encoded = 0

        def clips() -> Iterator[tuple[int, list[np.ndarray]]]:
            for number, length in enumerate(cycle(lengths)):
                at_end = time.monotonic() >= stop or (n_clips is not None and number >= n_clips)
                if number and number % rows == 0 and at_end:  # batches are full
                    return
                yield length, [noise[:length]]

        for length, codes in encoder.encode_clips(clips()):
            if isinstance(codes, AudioError):
                raise codes
            encoded += length
        return encoded / codec.sample_rate


def _clip_encoder(codec: AudioCodec, work: Work, n_samples: int) -> tuple[ClipEncoder, int]:
    """Return an encoder of clips, and the number of clips of `n_samples` in its batches."""
    layout = codec.batching(codec.device.type == "cuda")
    if not isinstance(layout, WholeClips):
        return codec.clip_encoder, 1
    layout = replace(layout, batch_seconds=work.batch_seconds)
    return layout.clip_encoder(codec.batch_encoder), layout.rows(n_samples)


class EncoderProcesses:
    """Starts processes of an `Encoder` each, and calls its methods in several of them at once.

    Args:
        count: number of processes.
        codecs, device, threads: as for `Encoder`.
    """

    def __init__(self, count: int, codecs: Codecs, device: str, threads: int) -> None:
        self._count, self._arguments = count, (codecs, device, threads)
        self._processes: list[tuple[Any, Any]] = []

    def call(self, n_processes: int, method: str, *arguments: Any) -> list[Any]:
        """Call a method in the first `n_processes`, and return their results.

        Raises:
            EncoderError: a method failed, or its process ended; all are started again for the next call.
        """
        if not self._processes:
            self._start()
        called = self._processes[:n_processes]
        results: list[Any] = []
        try:
            for _, connection in called:
                connection.send((method, arguments))
            for _, connection in called:
                results.append(connection.recv())
        except (EOFError, OSError):
            codes = [process.exitcode for process, _ in called if not process.is_alive()]
            self.stop()
            raise EncoderError(f"a process ended (exit codes {codes})") from None
        for result in results:
            if isinstance(result, EncoderError):
                raise result
        return results

    def rate(self, n_processes: int, work: Work, seconds: float) -> float:
        """Measure the seconds of audio that `n_processes` encode in a second."""
        start = time.monotonic() + DELAY_SECONDS
        found = self.call(n_processes, "encode", work, start, seconds)
        return sum(encoded for encoded, _ in found) / (max(end for _, end in found) - start)

    def stop(self) -> None:
        """End all processes."""
        for process, connection in self._processes:
            with suppress(OSError):
                connection.send(None)
            connection.close()
            process.join(timeout=10)
            if process.is_alive():
                process.terminate()
                process.join()
        self._processes = []

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        for _ in range(self._count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
            process.start()
            theirs.close()
            self._processes.append((process, ours))


def _serve(connection: Any, *arguments: Any) -> None:
    encoder = Encoder(*arguments)
    while (message := connection.recv()) is not None:
        method, values = message
        try:
            result = getattr(encoder, method)(*values)
        except Exception as error:  # the caller reports it
            result = EncoderError(described(error))
        connection.send(result)
