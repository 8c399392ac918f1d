"""The interface of all codecs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from codectok.audio.resample import resample, resample_blocks
from codectok.audio.waveform import mono_blocks, to_mono
from codectok.batches import BatchEncoder
from codectok.choices import Precision
from codectok.description import CodecDescription
from codectok.device import device_class
from codectok.errors import AudioError, InputError

from .encoders import Batching, ClipEncoder


class AudioCodec(ABC):
    """A neural audio codec: encodes a clip of audio to codes [n_frames, n_codebooks].

    The codes of a clip depend on the clip alone. The shortest way to implement a codec is a subclass of
    `codectok.codecs.whole_clip_codec.WholeClipCodec`.

    Attributes:
        device: device that computes.
        dtype: precision.
        encoder_only: True if the weights of the decoder are not held, so that decoding is an error.
    """

    device: torch.device
    dtype: Precision
    encoder_only: bool = False

    @property
    @abstractmethod
    def name(self) -> str:
        """Name, as token tables record it."""

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Sample rate of encoded audio in Hz."""

    @property
    def decoded_sample_rate(self) -> int:
        """Sample rate of decoded audio in Hz."""
        return self.sample_rate

    @property
    @abstractmethod
    def frame_size(self) -> int:
        """Encoded samples per code frame."""

    @property
    def frame_rate(self) -> float:
        """Code frames per second."""
        return self.sample_rate / self.frame_size

    @property
    @abstractmethod
    def codebook_size(self) -> int:
        """Number of codes in each codebook."""

    @property
    @abstractmethod
    def n_codebooks(self) -> int:
        """Codes per frame."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of the architecture and all tensors; codecs with equal fingerprints are the same."""

    @property
    def codebooks(self) -> Tensor:
        """Code vectors [n_codebooks, codebook_size, codebook_dim].

        Raises:
            InputError: the codec has none.
        """
        raise InputError(f"The codec {self.name} has no table of code vectors.")

    @property
    def device_class(self) -> str:
        """Device class, see `codectok.device.device_class`."""
        return device_class(self.device)

    @property
    def decodable_fingerprints(self) -> tuple[str, ...]:
        """Fingerprints of the codecs whose codes this one decodes, its own first."""
        return (self.fingerprint,)

    @abstractmethod
    def batching(self, on_gpu: bool) -> Batching:
        """Return how clips become batches for an encoder on a GPU, or on a CPU."""

    @property
    @abstractmethod
    def batch_encoder(self) -> BatchEncoder:
        """Computes the codes of batches."""

    @cached_property
    def clip_encoder(self) -> ClipEncoder:
        """Encodes clips with this codec."""
        return self.batching(self.device.type == "cuda").clip_encoder(self.batch_encoder)

    @abstractmethod
    def describe(self) -> CodecDescription:
        """Describe the codec and its precision, as token tables record it."""

    def encode(self, waveform: Tensor | np.ndarray, sample_rate: int) -> Tensor:
        """Encode one clip.

        The codes of a clip do not depend on other clips or on the division into blocks: on a CPU to the bit, on a GPU
        for one size of batches. Weights must not change after the first clip.

        Args:
            waveform: float [n] or [channels, n]; channels are averaged.
            sample_rate: sample rate in Hz; the waveform is resampled if it differs from the codec's.

        Returns:
            Codes int64 [n_frames, n_codebooks] on the CPU, with `n_frames = describe().n_frames(n_samples)` and
            `n_samples` at the codec's rate.

        Raises:
            AudioError: the clip is empty or has samples that are not finite.
            InputError: the waveform has another shape or dtype, or the sample rate is not a positive integer.
        """
        return self.encode_batch([waveform], sample_rate)[0]

    def encode_batch(self, waveforms: Sequence[Tensor | np.ndarray], sample_rate: int) -> list[Tensor]:
        """Encode several clips at once: faster than `encode` for each, with the same codes."""
        many: list[Tensor] = []
        for codes in self.encode_clips(([waveform] for waveform in waveforms), sample_rate):
            if isinstance(codes, AudioError):
                raise codes if len(waveforms) == 1 else AudioError(f"Clip {len(many)}: {codes}", codes.reason)
            many.append(codes)
        return many

    def encode_stream(self, blocks: Iterable[Tensor | np.ndarray], sample_rate: int) -> Iterator[Tensor]:
        """Encode one clip that arrives in `blocks` ([n] or [channels, n]).

        Returns:
            Codes int64 [n, n_codebooks] as they are computed; concatenated, they are the codes of the whole clip.
        """
        return self.clip_encoder.encode_stream(self._samples(blocks, sample_rate))

    def encode_clips(
        self, clips: Iterable[Iterable[Tensor | np.ndarray]], sample_rate: int
    ) -> Iterator[Tensor | AudioError]:
        """Encode many clips that each arrive in blocks; clips are read as they are needed.

        Returns:
            The codes of each clip in order, or the `AudioError` of a clip that is empty, has samples that are not
            finite, or whose blocks raise one.
        """
        tagged = ((None, self._samples(blocks, sample_rate)) for blocks in clips)
        return (codes for _, codes in self.clip_encoder.encode_clips(tagged))

    def decode(self, codes: Tensor | np.ndarray) -> Tensor:
        """Decode `codes` [n_frames, n_codebooks] to a waveform float32 [n] on the CPU, at `decoded_sample_rate`.

        Raises:
            InputError: the codes have another shape, are not integers, or are outside the codebook; or the codec was
                loaded without its decoder.
        """
        return self.decode_batch([codes])[0]

    def decode_batch(self, many: Sequence[Tensor | np.ndarray]) -> list[Tensor]:
        """Decode several clips at once."""
        return self._decode_checked([self._checked_codes(codes) for codes in many])

    def decode_stream(self, codes: Tensor | np.ndarray, n_samples: int | None = None) -> Iterator[Tensor]:
        """Decode `codes` to blocks float32 [n] as they are computed; concatenated, they equal `decode_aligned`."""
        yield self.decode_aligned(codes, n_samples)

    def decode_aligned(self, codes: Tensor | np.ndarray, n_samples: int | None = None) -> Tensor:
        """Decode `codes` to a waveform aligned with the clip, and at most as long as `n_samples` encoded ones."""
        return self.decode(codes)[: self._decoded_length(n_samples)]

    def reconstruct(self, waveform: Tensor | np.ndarray, sample_rate: int) -> Tensor:
        """Encode and decode a clip: float32 [n] at `decoded_sample_rate`, aligned with the clip and not longer."""
        self.check_decoder()
        samples = resample(to_mono(waveform), sample_rate, self.sample_rate)
        codes = torch.cat(list(self.clip_encoder.encode_stream([samples])))
        return self.decode_aligned(codes, len(samples))

    def check_decoder(self) -> None:
        """Raise an `InputError` if the codec was loaded without its decoder."""
        if self.encoder_only:
            raise InputError(
                f"The codec {self.name} was loaded without its decoder; load it with encoder_only=False to decode."
            )

    @abstractmethod
    def _decode_checked(self, many: Sequence[Tensor]) -> list[Tensor]:
        """Decode codes int64 [n_frames, n_codebooks] on the CPU, all of them in the codebook."""

    def _decoded_length(self, n_samples: int | None) -> int | None:
        """Number of decoded samples of `n_samples` encoded ones."""
        return None if n_samples is None else -(-n_samples * self.decoded_sample_rate // self.sample_rate)

    def _samples(self, blocks: Iterable[Tensor | np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
        return resample_blocks(mono_blocks(blocks), sample_rate, self.sample_rate)

    def _checked_codes(self, codes: Tensor | np.ndarray) -> Tensor:
        """Check codes that are to be decoded."""
        self.check_decoder()
        codes = torch.as_tensor(codes).cpu()
        if codes.is_floating_point() or codes.is_complex():
            raise InputError(f"Codes must be integers, but are {codes.dtype}.")
        codes = codes.long()
        if codes.dim() != 2 or codes.shape[1] != self.n_codebooks or len(codes) == 0:
            raise InputError(f"Codes have shape {list(codes.shape)}; this codec needs [n_frames, {self.n_codebooks}].")
        low, high = int(codes.min()), int(codes.max())
        if low < 0 or high >= self.codebook_size:
            raise InputError(
                f"Codes range from {low} to {high}, but this codec has codes from 0 to {self.codebook_size - 1}."
            )
        return codes
