"""A codec of the transformers library."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from codectok.choices import Precision
from codectok.codecs.fingerprints import Hashes
from codectok.codecs.whole_clip_codec import WholeClipCodec

from .families import Family


class TransformersCodec(WholeClipCodec):
    """A codec of the transformers library: codes equal its own `encode` of each clip alone.

    Args:
        model: the model in float32, in inference mode.
        family: how the model is called.
        hashes: of the configuration and the weights.
        n_codebooks: codes per frame, one of `family.choices`; None for all.
        revision: commit on the Hugging Face Hub; None if unknown.
        device, dtype, batch_seconds: as in `WholeClipCodec`.
        encoder_only: drop the decoder of `model`, which then can't decode.

    Attributes:
        model: the model, on the device.
    """

    def __init__(
        self,
        model: Any,
        family: Family,
        hashes: Hashes,
        n_codebooks: int | None = None,
        revision: str | None = None,
        device: str = "auto",
        dtype: Precision = "float32",
        batch_seconds: float = 0.0,
        encoder_only: bool = False,
    ) -> None:
        import transformers

        super().__init__(device, dtype, batch_seconds)
        config = model.config
        self.encoder_only = encoder_only
        if encoder_only:  # before any weights are moved to the device
            family.drop_decoder(model)
        choices = family.choices(config)
        self.model, self._family, self._config = model.to(self.device), family, config
        self._n_codebooks = max(choices) if n_codebooks is None else n_codebooks
        self._arguments: dict[str, Any] = {"return_dict": True}
        if family.argument is not None:
            self._arguments[family.argument] = choices[self._n_codebooks]
        self._fingerprint, self.weights_sha256 = hashes.codec, hashes.weights
        self._name: str = config.model_type + ("" if self._n_codebooks == max(choices) else f"@{self._n_codebooks}")
        self._extractor = None
        if family.feature_extractor is not None:
            extractor_class = getattr(transformers, family.feature_extractor)
            self._extractor = extractor_class(sampling_rate=self.sample_rate, hop_length=self.frame_size)
        self.codec_type = f"transformers:{config.model_type}"
        self.revision, self.transformers_version = revision, transformers.__version__
        self.frame_rounding = family.frame_rounding
        self.min_samples, self.max_seconds = family.min_samples(config), family.max_seconds

    @property
    def name(self) -> str:
        """Model type, and the number of codebooks unless it is the largest: a copied folder keeps its name."""
        return self._name

    @property
    def sample_rate(self) -> int:
        """Sample rate of encoded audio in Hz."""
        return int(getattr(self._config, self._family.sample_rate))

    @property
    def decoded_sample_rate(self) -> int:
        """Sample rate of decoded audio in Hz."""
        return int(getattr(self._config, self._family.decoded_sample_rate or self._family.sample_rate))

    @property
    def frame_size(self) -> int:
        """Encoded samples per code frame."""
        return int(getattr(self._config, self._family.frame_size))

    @property
    def codebook_size(self) -> int:
        """Number of codes in each codebook."""
        return self._family.codebook_size(self._config)

    @property
    def n_codebooks(self) -> int:
        """Codes per frame."""
        return self._n_codebooks

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the configuration, the number of codebooks and all tensors."""
        return self._fingerprint

    @property
    def codebooks(self) -> Tensor:
        """Code vectors [n_codebooks, codebook_size, codebook_dim]; of finite scalar quantization, the implied ones."""
        vectors = self._family.codebooks(self.model)[: self.n_codebooks]
        return torch.stack([one.detach() for one in vectors])

    def encode_samples(self, samples: Tensor) -> Tensor:
        """Encode clips of one length, float32 [rows, n], to codes [rows, n_frames, n_codebooks]."""
        codes: Tensor = self.model.encode(**self._inputs(samples), **self._arguments).audio_codes
        if codes.dim() == 4:  # encodec: one frame holds the whole clip
            (codes,) = codes
        return codes.transpose(1, 2)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Decode codes int64 [1, n_frames, n_codebooks] to samples float32 [1, n]."""
        ours = codes.transpose(1, 2)
        if self._config.model_type == "encodec":
            audio = self.model.decode(ours[None], [None], return_dict=True).audio_values
        else:
            audio = self.model.decode(audio_codes=ours, return_dict=True).audio_values
        return audio.reshape(1, -1)  # type: ignore[no-any-return]

    def quantizer_input(self, samples: Tensor) -> Tensor:
        """Compute the features [rows, ...] that are quantized."""
        found: list[Tensor] = []
        module = self.model.get_submodule(self._family.features)
        hook = module.register_forward_hook(lambda module, inputs, output: found.append(output))
        try:
            self.encode_samples(samples)
        finally:
            hook.remove()
        return found[-1]

    def _inputs(self, samples: Tensor) -> dict[str, Any]:
        """Prepare the arguments of the model's `encode`, as its feature extractor does for one clip."""
        if self._extractor is not None:
            rows = list(samples.cpu().numpy())
            inputs = self._extractor(rows, sampling_rate=self.sample_rate, return_tensors="pt")
            return {key: value.to(self.device) for key, value in inputs.items()}
        if self._family.inputs == "whole_frames":
            samples = F.pad(samples, (0, -samples.shape[1] % self.frame_size))
        return {"input_values": samples[:, None]}
