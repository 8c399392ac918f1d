"""Codecs of this project's architecture: DistilCodec's, and smaller ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from codectok.audio.analysis.mel import LogMel
from codectok.checkpoints.distilcodec import import_distilcodec
from codectok.checkpoints.finding import find_codec
from codectok.checkpoints.native import CheckpointHeader, SameCodes, save_checkpoint
from codectok.codecs.base import AudioCodec
from codectok.codecs.fingerprints import Hashes, hash_codec, hash_encoding
from codectok.model.clip_encoder import PackBatching
from codectok.model.kernels.support import resolve_kernels
from codectok.model.network import CodecNetwork
from codectok.model.packed_encoder import PackedEncoder
from codectok.model.packing import DEFAULT_PACK_FRAMES, PackGeometry
from codectok.model.windowed_decoder import WindowedDecoder

from .choices import KernelChoice, Precision, WeightsType
from .config import CodecConfig, named_codec_config
from .description import CodecDescription
from .device import check_precision, resolve_device

if TYPE_CHECKING:
    from codectok.model.packed_decoder import PackedDecoder


class Codec(AudioCodec):
    """A codec of a ConvNeXt encoder, a quantizer and a decoder; memory does not grow with the length of a clip.

    Args:
        header: configuration and origin of the weights.
        network: network in inference mode, on any device.
        device: "auto" (CUDA if available), "cpu", "cuda" or a device such as "cuda:1".
        dtype: "float32"; "tf32" (CUDA only) and "bfloat16" are faster and change some codes.
        pack_frames: mel frames that are encoded at once, rounded up to a possible size; None for 8192.
        revision: commit of the weights on the Hugging Face Hub; None for a local folder.
        encoder_only: drop the decoder of `network`, which then can't decode.
        kernels: "triton" computes in bfloat16 on a GPU with fused kernels, "torch" with torch alone; "auto" is "triton"
            where this machine can compile it.

    Raises:
        InputError: unknown device or precision, or kernels that do not run here.

    Attributes:
        header: configuration and origin of the weights.
        device: device that computes.
        dtype: precision.
        kernels: kernels that compute.
        revision: commit of the weights on the Hugging Face Hub; None for a local folder.
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
        revision: str | None = None,
        encoder_only: bool = False,
        kernels: KernelChoice = "auto",
    ) -> None:
        self.header, self.revision = header, revision
        self.device = resolve_device(device)
        self.dtype = check_precision(dtype, self.device)
        self.kernels = resolve_kernels(kernels, self.device, self.dtype)
        self.network, self.encoder_only = network, encoder_only
        if encoder_only:
            _ = self._hashes  # of all tensors, while they are there
            del network.decoder
        network.to(self.device)
        self.log_mel = LogMel(header.config.mel).to(self.device)
        self.geometry = PackGeometry(header.config, DEFAULT_PACK_FRAMES if pack_frames is None else pack_frames)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str = "auto",
        dtype: Precision = "float32",
        pack_frames: int | None = None,
        encoder_only: bool = False,
        kernels: KernelChoice = "auto",
    ) -> Self:
        """Load a codec: `universal-small`, a folder, or a name on the Hugging Face Hub (`organisation/name`).

        DistilCodec checkpoints are converted; `@STEP` after the name chooses a step.

        Raises:
            CheckpointError: there is no such codec, or its tensors do not match its configuration.
        """
        place = find_codec(path)
        revision = place.revision
        return cls(*place.load(), device, dtype, pack_frames, revision, encoder_only, kernels)

    @classmethod
    def from_config(
        cls,
        config: CodecConfig | str,
        seed: int = 0,
        device: str = "auto",
        dtype: Precision = "float32",
        pack_frames: int | None = None,
        kernels: KernelChoice = "auto",
    ) -> Self:
        """Create an untrained codec.

        Args:
            config: a configuration, the name of a preset, or the path of a configuration file.
            seed: seed of the weights.
            device, dtype, pack_frames, kernels: as in `Codec`.

        Raises:
            ConfigError: unknown preset, or an invalid configuration file.
        """
        if isinstance(config, str):
            config = named_codec_config(config)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            network = CodecNetwork(config).eval().requires_grad_(False)
        header = CheckpointHeader(origin=f"untrained (seed {seed})", config=config)
        return cls(header, network, device, dtype, pack_frames, kernels=kernels)

    @classmethod
    def from_distilcodec(
        cls,
        directory: str | Path,
        step: int | None = None,
        device: str = "auto",
        dtype: Precision = "float32",
        pack_frames: int | None = None,
        kernels: KernelChoice = "auto",
    ) -> Self:
        """Load a DistilCodec checkpoint.

        Args:
            directory: holds `g_XXXXXXXX` (one per step) and `model_config.json`.
            step: step to load; None if there is only one.
            device, dtype, pack_frames, kernels: as in `Codec`.

        Raises:
            CheckpointError: the step does not exist or is ambiguous, or a tensor is missing or has a wrong shape.
            ConfigError: the configuration is not supported.
        """
        return cls(*import_distilcodec(Path(directory), step), device, dtype, pack_frames, kernels=kernels)

    @property
    def config(self) -> CodecConfig:
        """The architecture."""
        return self.header.config

    @property
    def name(self) -> str:
        """Name in the configuration."""
        return self.config.name

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
    def fingerprint(self) -> str:
        """SHA-256 of the architecture and all tensors; codecs with equal fingerprints are the same."""
        return self._hashes.codec

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of all tensors."""
        return self._hashes.weights

    @cached_property
    def _hashes(self) -> Hashes:
        return self._hashes_of(self.network.state_dict())

    def _hashes_of(self, tensors: Mapping[str, Tensor]) -> Hashes:
        return hash_codec(self.config.canonical_json().encode(), tensors)

    @cached_property
    def encoding_sha256(self) -> str:
        """SHA-256 of the settings and tensors that determine codes: those of spectrogram, encoder and quantizer."""
        return self._encoding_sha256(self.network.state_dict())

    def _encoding_sha256(self, tensors: Mapping[str, Tensor]) -> str:
        return hash_encoding(self.config.canonical_json(with_decoder=False).encode(), tensors)

    @property
    def decodable_fingerprints(self) -> tuple[str, ...]:
        """Fingerprints of codecs whose codes this one decodes: its own, and those that differ in the decoder only."""
        same = self.header.same_codes
        others = same.codecs if same is not None and same.encoding_sha256 == self.encoding_sha256 else ()
        return self.fingerprint, *others

    @cached_property
    def packed_encoder(self) -> PackedEncoder:
        """Computes the codes of packs."""
        return PackedEncoder(
            self.network, self.log_mel.of_windows, self.geometry, self.device, self.dtype, self._is_fused
        )

    @property
    def batch_encoder(self) -> PackedEncoder:
        """Computes the codes of packs."""
        return self.packed_encoder

    def batching(self, on_gpu: bool) -> PackBatching:
        """Return how clips are packed; on a GPU all packs have one length."""
        return PackBatching(self.geometry, fixed_length=on_gpu)

    @property
    def _is_fused(self) -> bool:
        return self.kernels == "triton"

    @cached_property
    def _decoder(self) -> WindowedDecoder | PackedDecoder:
        if self._is_fused:
            from codectok.model.hifigan_kernels import supports
            from codectok.model.packed_decoder import PackedDecoder

            if supports(self.network.decoder):
                return PackedDecoder(self.network, self.device)
        return WindowedDecoder(self.network, self.device, self.dtype)

    def describe(self) -> CodecDescription:
        """Describe the codec and its precision, as token tables record it."""
        return CodecDescription(
            codec_name=self.name,
            codec_fingerprint=self.fingerprint,
            revision=self.revision,
            codebook_size=self.codebook_size,
            n_codebooks=self.n_codebooks,
            n_residuals=self.config.quantizer.n_residuals,
            frame_rate=self.frame_rate,
            sample_rate=self.sample_rate,
            dtype=self.dtype,
            device=self.device_class,
            kernels=self.kernels,
            weights_sha256=self.weights_sha256,
            tf32=self.dtype == "tf32",
            torch=torch.__version__,
            pack_frames=self.geometry.pack_frames,
        )

    def _decode_checked(self, many: Sequence[Tensor]) -> list[Tensor]:
        """Decode clips: faster on a GPU than one by one, and equal to `decode` of each up to rounding.

        The difference is at most 1e-5 of full scale on a CPU, and 1e-4 of the signal on a GPU in float32.
        """
        return self._decoder.batch(many)

    def decode_stream(self, codes: Tensor | np.ndarray, n_samples: int | None = None) -> Iterator[Tensor]:
        """Decode `codes` to blocks float32 [n] as they are computed; concatenated, they equal `decode_aligned`."""
        start = self.config.left_pad
        end = None if n_samples is None else start + n_samples
        for block in self._decoder.stream(self._checked_codes(codes)):
            yield block[start:end]
            start = max(0, start - len(block))
            end = None if end is None else max(0, end - len(block))

    def decode_aligned(self, codes: Tensor | np.ndarray, n_samples: int | None = None) -> Tensor:
        """Decode `codes` to a waveform aligned with the clip: without `left_pad`, and at most `n_samples` long."""
        end = None if n_samples is None else self.config.left_pad + n_samples
        return self.decode(codes)[self.config.left_pad : end]

    def save_pretrained(self, directory: str | Path, dtype: WeightsType = "float32") -> None:
        """Write `config.json` and `model.safetensors` into `directory`.

        Weights that are stored in float16 are rounded: the codec that is loaded from them has another fingerprint. It
        decodes the codes of this one only if no weight of the encoder or the quantizer was changed.

        Raises:
            InputError: the codec was loaded without its decoder.
            CodectokError: a weight is too large for float16.
        """
        self.check_decoder()
        header = self._rounded_header() if dtype == "float16" else self.header
        save_checkpoint(Path(directory), header, self.network.state_dict(), dtype)

    def _rounded_header(self) -> CheckpointHeader:
        """Header of this codec in float16."""
        rounded = {key: tensor.half().float() for key, tensor in self.network.state_dict().items()}
        if self._hashes_of(rounded).codec == self.fingerprint:
            return self.header
        same: SameCodes | None = None
        if self._encoding_sha256(rounded) == self.encoding_sha256:
            same = SameCodes(codecs=self.decodable_fingerprints, encoding_sha256=self.encoding_sha256)
        return self.header.model_copy(update={"same_codes": same})
