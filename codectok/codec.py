"""The codec: encodes waveforms to codes and decodes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from codectok.audio.analysis.mel import LogMel
from codectok.audio.resample import resample, resample_blocks
from codectok.audio.waveform import mono_blocks, to_mono
from codectok.checkpoints.distilcodec import import_distilcodec
from codectok.checkpoints.hub import resolve_codec_directory
from codectok.checkpoints.native import CheckpointHeader, load_checkpoint, save_checkpoint
from codectok.model.clip_encoder import ClipEncoder
from codectok.model.network import CodecNetwork
from codectok.model.packed_encoder import PackedEncoder
from codectok.model.packing import DEFAULT_PACK_FRAMES, PackGeometry
from codectok.model.windowed_decoder import WindowedDecoder

from .choices import Precision
from .config import CodecConfig, named_codec_config
from .description import CodecDescription
from .device import check_precision, device_class, resolve_device
from .errors import AudioError, InputError


class Codec:
    """A neural audio codec: encodes a clip of audio to codes [n_frames, n_codebooks].

    Args:
        header: configuration and origin of the weights.
        network: network in inference mode, on any device.
        device: "auto" (CUDA if available), "cpu", "cuda" or a device such as "cuda:1".
        dtype: "float32"; "tf32" (CUDA only) and "bfloat16" are faster and change some codes.
        pack_frames: mel frames that are encoded at once, rounded up to a possible size; None for 8192.

    Attributes:
        header: configuration and origin of the weights.
        device: device that computes.
        dtype: precision.
        network: the network.
        log_mel: computes log-mel frames.
        geometry: geometry of the packs in which clips are encoded.
    """

    def __init__(
        self,
        header: CheckpointHeader,
        network: CodecNetwork,
        device: str = "auto",
        dtype: Precision = "float32",
        pack_frames: int | None = None,
    ) -> None:
        self.header = header
        self.device = resolve_device(device)
        self.dtype = check_precision(dtype, self.device)
        self.network = network.to(self.device)
        self.log_mel = LogMel(header.config.mel).to(self.device)
        self.geometry = PackGeometry(header.config, DEFAULT_PACK_FRAMES if pack_frames is None else pack_frames)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str = "auto",
        dtype: Precision = "float32",
        pack_frames: int | None = None,
    ) -> Self:
        """Load a codec from a folder, or by its name on the Hugging Face Hub (`organisation/name`).

        Raises:
            CheckpointError: there is no such codec, or its tensors do not match its configuration.
        """
        return cls(*load_checkpoint(resolve_codec_directory(path)), device, dtype, pack_frames)

    @classmethod
    def from_config(
        cls,
        config: CodecConfig | str,
        seed: int = 0,
        device: str = "auto",
        dtype: Precision = "float32",
        pack_frames: int | None = None,
    ) -> Self:
        """Create an untrained codec.

        Args:
            config: a configuration, the name of a preset, or the path of a configuration file.
            seed: seed of the weights.
            device, dtype, pack_frames: as in `Codec`.

        Raises:
            ConfigError: unknown preset, or an invalid configuration file.
        """
        if isinstance(config, str):
            config = named_codec_config(config)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            network = CodecNetwork(config).eval().requires_grad_(False)
        header = CheckpointHeader(origin=f"untrained (seed {seed})", config=config)
        return cls(header, network, device, dtype, pack_frames)

    @classmethod
    def from_distilcodec(
        cls,
        directory: str | Path,
        step: int | None = None,
        device: str = "auto",
        dtype: Precision = "float32",
        pack_frames: int | None = None,
    ) -> Self:
        """Load a DistilCodec checkpoint.

        Args:
            directory: holds `g_XXXXXXXX` (one per step) and `model_config.json`.
            step: step to load; None if there is only one.
            device, dtype, pack_frames: as in `Codec`.

        Raises:
            CheckpointError: the step does not exist or is ambiguous, or a tensor is missing or has a wrong shape.
            ConfigError: the configuration is not supported.
        """
        return cls(*import_distilcodec(Path(directory), step), device, dtype, pack_frames)

    @property
    def config(self) -> CodecConfig:
        """The architecture."""
        return self.header.config

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return self.config.mel.sample_rate

    @property
    def frame_rate(self) -> float:
        """Code frames per second."""
        return self.config.frame_rate

    @property
    def frame_size(self) -> int:
        """Samples per code frame."""
        return self.config.frame_size

    @property
    def codebook_size(self) -> int:
        """Number of codes in each codebook."""
        return self.config.quantizer.codebook_size

    @property
    def n_codebooks(self) -> int:
        """Codes per frame."""
        return self.config.quantizer.n_codebooks

    @property
    def codebooks(self) -> Tensor:
        """Code vectors [n_codebooks, codebook_size, codebook_dim]."""
        return self.network.quantizer.codebooks

    @property
    def device_class(self) -> str:
        """Device class, see `codectok.device.device_class`."""
        return device_class(self.device)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the architecture and all tensors; codecs with equal fingerprints are the same."""
        digest = hashlib.sha256(self.config.canonical_json().encode())
        for key, tensor in sorted(self.network.state_dict().items()):
            digest.update(f"{key} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def packed_encoder(self) -> PackedEncoder:
        """Computes the codes of packs."""
        return PackedEncoder(self.network, self.log_mel.of_windows, self.geometry, self.device, self.dtype)

    @cached_property
    def clip_encoder(self) -> ClipEncoder:
        """Encodes clips with this codec."""
        return ClipEncoder(self.geometry, self.packed_encoder)

    @cached_property
    def _windowed_decoder(self) -> WindowedDecoder:
        return WindowedDecoder(self.network, self.device, self.dtype)

    def describe(self) -> CodecDescription:
        """Describe the codec and its precision, as token tables record it."""
        return CodecDescription(
            codec_name=self.config.name,
            codec_fingerprint=self.fingerprint,
            codebook_size=self.codebook_size,
            n_codebooks=self.n_codebooks,
            n_residuals=self.config.quantizer.n_residuals,
            frame_rate=self.frame_rate,
            sample_rate=self.sample_rate,
            dtype=self.dtype,
            device=self.device_class,
            pack_frames=self.geometry.pack_frames,
        )

    def encode(self, waveform: Tensor | np.ndarray, sample_rate: int) -> Tensor:
        """Encode one clip.

        The codes of a clip do not depend on other clips or on the division into blocks: on a CPU to the bit, on a GPU
        for one pack size. Weights must not change after the first clip.

        Args:
            waveform: float [n] or [channels, n]; channels are averaged.
            sample_rate: sample rate in Hz; the waveform is resampled if it differs from the codec's.

        Returns:
            Codes int64 [n_frames, n_codebooks] on the CPU, with `n_frames = max(1, n_samples // frame_size)` and
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

        Memory does not grow with the clip.

        Returns:
            Codes int64 [n, n_codebooks] whenever a pack is full (on a GPU one pack later); concatenated, they are the
            codes of the whole clip.
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
        """Decode `codes` [n_frames, n_codebooks] to a waveform float32 [n_frames * frame_size] on the CPU.

        Raises:
            InputError: the codes have another shape, are not integers, or are outside the codebook.
        """
        return self.decode_batch([codes])[0]

    def decode_batch(self, many: Sequence[Tensor | np.ndarray]) -> list[Tensor]:
        """Decode several clips at once: faster on a GPU, and equal to `decode` of each to 1e-5."""
        return self._windowed_decoder.batch([self._checked_codes(codes) for codes in many])

    def decode_stream(self, codes: Tensor | np.ndarray) -> Iterator[Tensor]:
        """Decode `codes` to blocks float32 [n], aligned with the clip (without `left_pad`), as they are computed."""
        skip = self.config.left_pad
        for block in self._windowed_decoder.stream(self._checked_codes(codes)):
            yield block[skip:]
            skip = max(0, skip - len(block))

    def decode_aligned(self, codes: Tensor | np.ndarray, n_samples: int | None = None) -> Tensor:
        """Decode `codes` to a waveform aligned with the clip: without `left_pad`, and at most `n_samples` long."""
        end = None if n_samples is None else self.config.left_pad + n_samples
        return self.decode(codes)[self.config.left_pad : end]

    def reconstruct(self, waveform: Tensor | np.ndarray, sample_rate: int) -> Tensor:
        """Encode and decode a clip: float32 [n] at the codec's rate, aligned with the clip and not longer."""
        samples = resample(to_mono(waveform), sample_rate, self.sample_rate)
        codes = torch.cat(list(self.clip_encoder.encode_stream([samples])))
        return self.decode_aligned(codes, len(samples))

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `config.json` and `model.safetensors` into `directory`."""
        save_checkpoint(Path(directory), self.header, self.network.state_dict())

    def _samples(self, blocks: Iterable[Tensor | np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
        return resample_blocks(mono_blocks(blocks), sample_rate, self.sample_rate)

    def _checked_codes(self, codes: Tensor | np.ndarray) -> Tensor:
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
