"""The codec as users see it: waveforms to codes and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .audio.mel import LogMel
from .audio.resample import resample
from .audio.waveform import to_mono
from .checkpoints import CheckpointHeader, import_distilcodec, load_checkpoint, save_checkpoint
from .checkpoints.hub import resolve_codec_directory
from .config import CodecConfig, named_codec_config
from .errors import InputError
from .model.network import CodecNetwork

Precision = Literal["float32", "tf32", "bfloat16"]


class Codec:
    """A neural audio codec: one clip of audio is a table of codes, one row per frame.

    Args:
        header: configuration and origin of the weights.
        network: in inference mode, on any device.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1".
        dtype: "float32"; "tf32" (CUDA only) and "bfloat16" are faster and change some codes.
    """

    def __init__(
        self, header: CheckpointHeader, network: CodecNetwork, device: str = "auto", dtype: Precision = "float32"
    ) -> None:
        self.header = header
        self.device = resolve_device(device)
        self.dtype = check_precision(dtype, self.device)
        self.network = network.to(self.device)
        self.log_mel = LogMel(header.config.mel).to(self.device)

    @classmethod
    def from_pretrained(cls, path: str | Path, device: str = "auto", dtype: Precision = "float32") -> Self:
        """Load a codec from a folder, or by its name on the Hugging Face Hub (`organisation/name`).

        Raises:
            CheckpointError: no such codec, or its tensors do not fit its configuration.
        """
        return cls(*load_checkpoint(resolve_codec_directory(path)), device, dtype)

    @classmethod
    def from_config(
        cls, config: CodecConfig | str, seed: int = 0, device: str = "auto", dtype: Precision = "float32"
    ) -> Self:
        """An untrained codec of a configuration, of a preset's name or of a file; `seed` decides its weights."""
        if isinstance(config, str):
            config = named_codec_config(config)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            network = CodecNetwork(config).eval().requires_grad_(False)
        return cls(CheckpointHeader(origin=f"untrained (seed {seed})", config=config), network, device, dtype)

    @classmethod
    def from_distilcodec(
        cls, directory: str | Path, step: int | None = None, device: str = "auto", dtype: Precision = "float32"
    ) -> Self:
        """Load a DistilCodec checkpoint (`g_XXXXXXXX` beside `model_config.json`), exactly that `step`."""
        return cls(*import_distilcodec(Path(directory), step), device, dtype)

    @property
    def config(self) -> CodecConfig:
        """The architecture."""
        return self.header.config

    @property
    def sample_rate(self) -> int:
        """Rate in Hz at which the codec works."""
        return self.config.mel.sample_rate

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.config.frame_rate

    @property
    def frame_size(self) -> int:
        """Samples per frame."""
        return self.config.frame_size

    @property
    def codebook_size(self) -> int:
        """Number of different codes in each codebook."""
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
        """Kind of device on which it works, see `device_class`."""
        return device_class(self.device)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the architecture and every tensor: equal fingerprints are the same codec."""
        digest = hashlib.sha256(self.config.canonical_json().encode())
        for key, tensor in sorted(self.network.state_dict().items()):
            digest.update(f"{key} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def encode(self, waveform: Tensor | np.ndarray, sample_rate: int) -> Tensor:
        """Codes of one clip.

        Args:
            waveform: float [n] or [channels, n]; channels are averaged.
            sample_rate: its rate in Hz; resampled to the codec's if it differs.

        Returns:
            int64 [n_frames, n_codebooks] on the CPU, `n_frames = max(1, n_samples // frame_size)` with `n_samples`
            at the codec's rate.

        Raises:
            AudioError: an empty clip, or samples that are not finite numbers.
        """
        return self.encode_batch([waveform], sample_rate)[0]

    def encode_batch(self, waveforms: Sequence[Tensor | np.ndarray], sample_rate: int) -> list[Tensor]:
        """Codes of several clips: the same as one by one, to the bit."""
        return [self._encode(resample(to_mono(w), sample_rate, self.sample_rate)) for w in waveforms]

    def decode(self, codes: Tensor | np.ndarray) -> Tensor:
        """Waveform [n_frames * frame_size] float32 on the CPU of `codes` [n_frames, n_codebooks].

        Raises:
            InputError: another shape, or a code outside the codebook.
        """
        codes = torch.as_tensor(codes).cpu()
        if codes.is_floating_point() or codes.is_complex():
            raise InputError(f"Codes must be whole numbers, but are {codes.dtype}.")
        codes = codes.long()
        if codes.dim() != 2 or codes.shape[1] != self.n_codebooks or len(codes) == 0:
            raise InputError(f"Codes have shape {list(codes.shape)}; this codec needs [n_frames, {self.n_codebooks}].")
        low, high = int(codes.min()), int(codes.max())
        if low < 0 or high >= self.codebook_size:
            raise InputError(
                f"Codes reach from {low} to {high}, but this codec's go from 0 to {self.codebook_size - 1}."
            )
        with torch.inference_mode(), self._arithmetic():
            return self.network.decode(codes.unsqueeze(0).to(self.device))[0].float().cpu()

    def decode_aligned(self, codes: Tensor | np.ndarray, n_samples: int | None = None) -> Tensor:
        """Waveform of `codes` as the clip was: without `left_pad`, and no longer than its `n_samples` if given."""
        end = None if n_samples is None else self.config.left_pad + n_samples
        return self.decode(codes)[self.config.left_pad : end]

    def reconstruct(self, waveform: Tensor | np.ndarray, sample_rate: int) -> Tensor:
        """Encode and decode a clip, aligned with it: [n] float32 at the codec's rate, never longer than the clip."""
        samples = resample(to_mono(waveform), sample_rate, self.sample_rate)
        return self.decode_aligned(self._encode(samples), len(samples))

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `config.json` and `model.safetensors` into `directory`."""
        save_checkpoint(Path(directory), self.header, self.network.state_dict())

    def _encode(self, waveform: np.ndarray) -> Tensor:
        n_samples = len(waveform)
        samples = torch.from_numpy(waveform).to(self.device)
        extension = max(0, self.config.min_samples - n_samples)
        samples = F.pad(samples, (self.config.left_pad, extension))
        with torch.inference_mode(), self._arithmetic():
            codes = self.network.encode(self.log_mel(samples.unsqueeze(0)))
        return codes[0, : self.config.n_frames(n_samples)].cpu()

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Exactly the arithmetic that `dtype` names: TF32 is off unless asked for, whatever the process has set."""
        matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, convolution.allow_tf32
        matmul.allow_tf32 = convolution.allow_tf32 = self.dtype == "tf32"
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
                yield
        finally:
            matmul.allow_tf32, convolution.allow_tf32 = before


def resolve_device(device: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise InputError(f"There is no device {device!r}; use auto, cpu or cuda.") from None
    if resolved.type not in ("cpu", "cuda"):
        raise InputError(f"Device {device!r} is not supported; use auto, cpu or cuda.")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise InputError(f"Device {device!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices.")
    return resolved


def device_class(device: torch.device) -> str:
    """ "cpu", or the GPU's model: codes can differ in rare near-ties between classes."""
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def check_precision(dtype: str, device: torch.device) -> Precision:
    """`dtype` if it exists on `device`, else an `InputError`."""
    if dtype not in get_args(Precision):
        raise InputError(f"There is no dtype {dtype!r}; use {', '.join(get_args(Precision))}.")
    if dtype == "tf32" and device.type != "cuda":
        raise InputError("dtype tf32 exists on CUDA devices only; use float32 or bfloat16.")
    return cast(Precision, dtype)
