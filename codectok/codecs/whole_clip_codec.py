"""Codecs that encode every clip as a whole: the shortest way to bring a codec."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from codectok.choices import Precision
from codectok.description import CodecDescription, FrameRounding
from codectok.device import check_precision, current_device, inference, resolve_device
from codectok.errors import AudioError, CodectokError, InputError, described
from codectok.memory import gpu_memory_errors, is_out_of_memory

from .base import AudioCodec
from .whole_clips import MAX_CLIP_SECONDS, WholeClips

# While a GPU encodes one batch, the next is sent and another is filled.
BATCHES_AHEAD = 2


class WholeClipCodec(AudioCodec):
    """A codec that encodes every clip as a whole, in float32.

    A subclass implements `encode_samples`, `decode_codes`, and the properties that are abstract in `AudioCodec`.

    Args:
        device: as in `codectok.Codec`.
        dtype: must be "float32".
        batch_seconds: audio of clips of one length that are encoded at once; 0 to encode clips one by one.

    Attributes:
        codec_type: maker's family, see `CodecDescription`.
        frame_rounding: how the number of frames follows from the number of samples; None if it does not.
        min_samples: shorter clips are errors.
        max_seconds: longer clips are errors.
        n_residuals: number of successive codebooks that form a group of residual quantizers; None for all.
        revision: commit on the Hugging Face Hub; None if unknown.
        weights_sha256: SHA-256 of the weights alone; None if unknown.
        transformers_version: version of transformers that computes; None if it does not.
    """

    codec_type: str = "custom"
    frame_rounding: FrameRounding | None = "up"
    min_samples: int = 1
    max_seconds: float = MAX_CLIP_SECONDS
    n_residuals: int | None = None
    revision: str | None = None
    weights_sha256: str | None = None
    transformers_version: str | None = None

    def __init__(self, device: str = "auto", dtype: Precision = "float32", batch_seconds: float = 0.0) -> None:
        self.device = resolve_device(device)
        self.dtype = check_precision(dtype, self.device)
        if self.dtype != "float32":
            raise InputError(f"This codec computes in float32 only, not in {dtype}; leave --dtype out.")
        if not 0 <= batch_seconds < math.inf:
            raise InputError(f"batch_seconds must be a number of seconds, 0 or more, not {batch_seconds:g}.")
        self.batch_seconds = batch_seconds

    @abstractmethod
    def encode_samples(self, samples: Tensor) -> Tensor:
        """Encode clips of one length.

        Args:
            samples: float32 [rows, n] on `device`.

        Returns:
            Codes [rows, n_frames, n_codebooks], integers from 0 to `codebook_size` - 1.

        Raises:
            AudioError: a clip cannot be encoded, and becomes a reject; any other exception ends the job.
        """

    @abstractmethod
    def decode_codes(self, codes: Tensor) -> Tensor:
        """Decode codes int64 [1, n_frames, n_codebooks] on `device` to samples float32 [1, n]."""

    def quantizer_input(self, samples: Tensor) -> Tensor | None:
        """Compute the features [rows, ...] that are quantized, to compare their bits; None to compare codes only."""
        return None

    def batching(self, on_gpu: bool) -> WholeClips:
        """Return how clips of one length become batches, the same everywhere."""
        return WholeClips(self.sample_rate, self.min_samples, self.max_seconds, self.batch_seconds)

    @cached_property
    def batch_encoder(self) -> WholeClipBatches:
        """Computes the codes of clips of one length."""
        return WholeClipBatches(self)

    def describe(self) -> CodecDescription:
        """Describe the codec and its precision, as token tables record it."""
        return CodecDescription(
            codec_name=self.name,
            codec_type=self.codec_type,
            codec_fingerprint=self.fingerprint,
            revision=self.revision,
            weights_sha256=self.weights_sha256,
            codebook_size=self.codebook_size,
            n_codebooks=self.n_codebooks,
            n_residuals=self.n_residuals or self.n_codebooks,
            frame_rate=self.frame_rate,
            frame_rounding=self.frame_rounding,
            sample_rate=self.sample_rate,
            dtype=self.dtype,
            device=self.device_class,
            batch_seconds=self.batch_seconds,
            torch=torch.__version__,
            transformers=self.transformers_version,
        )

    def _decode_checked(self, many: Sequence[Tensor]) -> list[Tensor]:
        with inference(self.device, tf32=False, autocast=False):
            return [self._decode_one(codes) for codes in many]

    def _decode_one(self, codes: Tensor) -> Tensor:
        with codec_errors(self.name, f"decode {len(codes)} frames"):
            samples: object = self.decode_codes(codes[None].to(self.device))
        if not isinstance(samples, Tensor) or samples.dim() != 2 or len(samples) != 1:
            raise CodectokError(
                f"The codec {self.name} decoded {len(codes)} frames to {_shown(samples)}; expected is a tensor [1, n]."
            )
        return samples[0].float().cpu()


class WholeClipBatches:
    """Computes the codes of clips of one length, on the device of a codec.

    Before the first batch of a shape, noise is encoded at every place of such a batch, and once in other company. If
    its bits differ on this device, batches of this shape are encoded row by row.

    Args:
        codec: encodes.

    Attributes:
        together: for each shape [rows, n] of a batch so far, True if its rows are encoded together.
    """

    def __init__(self, codec: WholeClipCodec) -> None:
        self._codec, self._frames = codec, codec.describe()
        self.together: dict[tuple[int, int], bool] = {}

    @property
    def batches_ahead(self) -> int:
        """Number of batches to start before waiting: a GPU encodes while the CPU decodes files."""
        return BATCHES_AHEAD if self._codec.device.type == "cuda" else 0

    def start(self, *arrays: np.ndarray) -> Callable[[], Tensor]:
        """Start encoding `samples` float32 [rows, n]; the result waits for codes int64 [rows, n_frames, n_codebooks].

        Raises:
            AudioError: the codec refuses a clip, or fails ("unexpected_error").
            CodectokError: the codec returned something else, the GPU failed, or it has too little memory.
        """
        codec = self._codec
        (samples,) = arrays
        n_samples = samples.shape[1]
        with inference(codec.device, tf32=False, autocast=False), current_device(codec.device), _memory_errors(samples):
            rows = torch.from_numpy(samples).to(codec.device)
            with codec_errors(codec.name, f"encode {n_samples} samples", of_clip=True):
                parts = [rows] if self._encodes_together(rows) else [row[None] for row in rows]
                encoded = [codec.encode_samples(part) for part in parts]
            codes = torch.cat([self._checked(part, len(rows) // len(parts), n_samples) for part in encoded])
            done: torch.cuda.Event | None = None
            if codec.device.type == "cuda":
                codes = codes.to("cpu", non_blocking=True)
                done = torch.cuda.Event()  # type: ignore[no-untyped-call]
                done.record()

        def wait() -> Tensor:
            if done is not None:
                with _memory_errors(samples):
                    done.synchronize()
            low, high = int(codes.min()), int(codes.max())
            if low < 0 or high >= codec.codebook_size:
                raise CodectokError(
                    f"The codec {codec.name} returned codes from {low} to {high} for {n_samples} samples; expected are"
                    f" codes from 0 to {codec.codebook_size - 1}."
                )
            return codes.long()

        return wait

    def _checked(self, codes: object, n_rows: int, n_samples: int) -> Tensor:
        n_frames, n_codebooks = self._frames.n_frames(n_samples), self._codec.n_codebooks
        if isinstance(codes, Tensor) and not (codes.is_floating_point() or codes.is_complex()) and codes.dim() == 3:
            shape = (n_rows, codes.shape[1] if n_frames is None else n_frames, n_codebooks)
            if codes.shape == shape and codes.numel() > 0:
                return codes
        raise CodectokError(
            f"The codec {self._codec.name} returned {_shown(codes)} for {n_samples} samples; expected are integers of"
            f" shape {[n_rows, 'n_frames' if n_frames is None else n_frames, n_codebooks]}."
        )

    def _encodes_together(self, rows: Tensor) -> bool:
        shape = (rows.shape[0], rows.shape[1])
        if shape[0] == 1:
            return True
        if shape not in self.together:
            generator = torch.Generator().manual_seed(0)
            noise = (0.1 * torch.randn(shape, generator=generator)).to(rows)
            copies = noise[:1].expand_as(noise).contiguous()
            try:
                self.together[shape] = all(
                    torch.equal(found, expected[:1].expand_as(found))
                    for expected, found in zip(self._results(noise), self._results(copies), strict=True)
                )
            except AudioError:  # the codec refuses noise, so that nothing can be compared
                self.together[shape] = False
        return self.together[shape]

    def _results(self, samples: Tensor) -> list[Tensor]:
        """Codes, which show the search, and the features before it, which show differences that codes may hide."""
        results = [self._codec.encode_samples(samples), self._codec.quantizer_input(samples)]
        return [result for result in results if result is not None]


@contextmanager
def codec_errors(name: str, task: str, of_clip: bool = False) -> Iterator[None]:
    """Report an exception of another maker's codec by one sentence; faults of the machine pass.

    With `of_clip` the exception is an `AudioError` ("unexpected_error"), so that one clip costs no other; too many of
    them stop a job.
    """
    try:
        yield
    except (CodectokError, MemoryError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        message = f"The codec {name} failed to {task}: {described(error)}; report it to the maker of the codec."
        if of_clip and "CUDA" not in str(error):  # a GPU that has failed fails for all clips that follow
            raise AudioError(message, "unexpected_error") from error
        raise CodectokError(message) from error


def _shown(value: object) -> str:
    return f"{value.dtype} of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _memory_errors(samples: np.ndarray) -> AbstractContextManager[None]:
    return gpu_memory_errors(
        f"{samples.shape[0]} clips of {samples.shape[1]:,} samples",
        "use smaller batches (--batch-seconds, with a new table), or cut recordings",
    )
