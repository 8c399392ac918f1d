"""Families of codecs in the transformers library: how each one is loaded, called and described."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from codectok.description import FrameRounding
from codectok.errors import CheckpointError

AutoClass = Literal["AutoModel", "AutoModelForAudioTokenization"]
Inputs = Literal["samples", "whole_frames", "features"]
Argument = Literal["bandwidth", "num_quantizers", "n_quantizers"]

# A clip is encoded as a whole: 20 to 75 MB for each second in the families without wav2vec2-bert.
MAX_SECONDS = 300.0
# Semantic encoders of wav2vec2-bert also keep a vector for every pair of frames: 2.3 GB for 60 s, and four times as
# much for twice the length.
PAIRWISE_SECONDS = 60.0
# Samples in the window of a mel frame of wav2vec2-bert.
_MEL_WINDOW = 400


@dataclass(frozen=True)
class Family:
    """A family of codecs, by the names in its configuration and model.

    Attributes:
        auto_class: class of transformers that loads it.
        sample_rate, frame_size: attributes of the configuration.
        decoded_sample_rate: attribute of the configuration; None if equal to `sample_rate`.
        frame_rounding: how the number of frames follows from the number of samples.
        inputs: what `encode` takes: samples, samples filled up with zeros to whole frames, or the output of the
            family's feature extractor.
        argument: argument of `encode` that chooses the number of codebooks; None if there is one codebook.
        codebooks: returns the code vectors of every codebook, given the model.
        features: module whose output is quantized.
        decoder: modules that `encode` does not use.
        feature_extractor: class in transformers for `inputs="features"`.
        max_seconds: longest clip.
    """

    auto_class: AutoClass
    sample_rate: str
    frame_size: str
    codebooks: Callable[[Any], Sequence[Tensor]]
    features: str
    decoder: Sequence[str]
    decoded_sample_rate: str | None = None
    frame_rounding: FrameRounding = "up"
    inputs: Inputs = "samples"
    argument: Argument | None = None
    feature_extractor: str | None = None
    max_seconds: float = MAX_SECONDS

    def codebook_size(self, config: Any) -> int:
        """Return the number of codes in each codebook."""
        levels = getattr(config, "quantization_levels", None)
        return math.prod(levels) if levels else int(config.codebook_size)

    def choices(self, config: Any) -> Mapping[int, Any]:
        """Return the value of `argument` for every possible number of codebooks, the largest last."""
        match self.argument:
            case None:
                return {1: None}
            case "n_quantizers":
                return {count: count for count in range(1, config.n_codebooks + 1)}
            case "num_quantizers":
                return {count: count for count in range(config.num_semantic_quantizers, config.num_quantizers + 1)}
            case "bandwidth":
                kilobits = math.log2(config.codebook_size) * config.frame_rate / 1000
                pairs = ((max(1, math.floor(width / kilobits)), width) for width in config.target_bandwidths)
                return dict(sorted((min(count, config.num_quantizers), width) for count, width in pairs))

    def drop_decoder(self, model: Any) -> None:
        """Remove the modules of the decoder from a model."""
        for name in self.decoder:
            setattr(model, name, None)

    def min_samples(self, config: Any) -> int:
        """Return the length of the shortest clip that `encode` takes."""
        if self.frame_rounding != "down":
            return 1
        frame_size = int(getattr(config, self.frame_size))
        return max(1, math.ceil(_MEL_WINDOW / frame_size) - 1) * frame_size


def _residual_codebooks(layers: Sequence[Any]) -> list[Tensor]:
    return [layer.codebook.embed for layer in layers]


# The decoder of audio, that of semantic features, and the layers before them.
_TWO_DECODERS = ("acoustic_decoder", "fc2", "decoder_semantic", "fc1")

FAMILIES: Mapping[str, Family] = {
    "encodec": Family(
        auto_class="AutoModel",
        sample_rate="sampling_rate",
        frame_size="hop_length",
        argument="bandwidth",
        codebooks=lambda model: _residual_codebooks(model.quantizer.layers),
        features="encoder",
        decoder=("decoder",),
    ),
    "dac": Family(
        auto_class="AutoModelForAudioTokenization",
        sample_rate="sampling_rate",
        frame_size="hop_length",
        inputs="whole_frames",
        argument="n_quantizers",
        codebooks=lambda model: [one.codebook.weight for one in model.quantizer.quantizers],
        features="encoder",
        decoder=("decoder",),
    ),
    "mimi": Family(
        auto_class="AutoModel",
        sample_rate="sampling_rate",
        frame_size="frame_size",
        argument="num_quantizers",
        codebooks=lambda model: _residual_codebooks(
            [
                *model.quantizer.semantic_residual_vector_quantizer.layers,
                *model.quantizer.acoustic_residual_vector_quantizer.layers,
            ]
        ),
        features="encoder.downsample",
        decoder=("decoder",),
    ),
    "xcodec": Family(
        auto_class="AutoModel",
        sample_rate="sample_rate",
        frame_size="hop_length",
        inputs="whole_frames",
        argument="bandwidth",
        codebooks=lambda model: _residual_codebooks(model.quantizer.quantizers),
        features="fc",
        decoder=_TWO_DECODERS,
    ),
    "xcodec2": Family(
        auto_class="AutoModelForAudioTokenization",
        sample_rate="sampling_rate",
        frame_size="hop_length",
        frame_rounding="next",
        inputs="features",
        feature_extractor="Xcodec2FeatureExtractor",
        codebooks=lambda model: [model.quantizer.quantizer.codebook],
        features="quantizer.project_in",
        decoder=("acoustic_decoder",),
        max_seconds=PAIRWISE_SECONDS,
    ),
    "neucodec": Family(
        auto_class="AutoModelForAudioTokenization",
        sample_rate="input_sampling_rate",
        decoded_sample_rate="output_sampling_rate",
        frame_size="encoder_hop_length",
        frame_rounding="down",
        inputs="features",
        feature_extractor="NeuCodecFeatureExtractor",
        codebooks=lambda model: [model.quantizer.quantizer.codebook],
        features="quantizer.project_in",
        decoder=("acoustic_decoder",),
        max_seconds=PAIRWISE_SECONDS,
    ),
    "wavtokenizer": Family(
        auto_class="AutoModelForAudioTokenization",
        sample_rate="sampling_rate",
        frame_size="hop_length",
        codebooks=lambda model: [model.encoder_model.quantizer.codebook.embed],
        features="encoder_model.encoder",
        decoder=("backbone", "head"),
    ),
    "higgs_audio_v2_tokenizer": Family(
        auto_class="AutoModelForAudioTokenization",
        sample_rate="sample_rate",
        frame_size="hop_length",
        inputs="whole_frames",
        argument="bandwidth",
        codebooks=lambda model: _residual_codebooks(model.quantizer.quantizers),
        features="fc",
        decoder=_TWO_DECODERS,
    ),
}
"""Families by the model type in their configuration."""


def family_of(name: str, model_type: object) -> Family:
    """Return the family of a model type.

    Args:
        name: name of the codec, for messages.
        model_type: as the configuration names it.

    Raises:
        CheckpointError: the type has no discrete codes, or is unknown.
    """
    if isinstance(model_type, str) and model_type in FAMILIES:
        return FAMILIES[model_type]
    known = ", ".join(FAMILIES)
    if isinstance(model_type, str) and model_type.startswith(("pocket_tts", "vibevoice")):
        raise CheckpointError(f"{name} is a {model_type}, whose latents are continuous; codecs with codes are {known}.")
    kind = f"a {model_type}" if isinstance(model_type, str) and model_type else "a model without a type"
    raise CheckpointError(f"{name} is {kind} and not a known codec of transformers; known are {known}.")


def check_config(name: str, model_type: str, config: Any) -> None:
    """Raise a `CheckpointError` if the codes of a configuration are not enough to decode them."""
    if model_type == "encodec":
        if config.chunk_length_s is not None:
            raise CheckpointError(
                f"{name} encodes overlapping frames with scales (chunk_length_s), which codes alone cannot express;"
                " use another codec, such as facebook/encodec_24khz."
            )
        if config.normalize:
            raise CheckpointError(
                f"{name} normalizes every clip by a scale (normalize), which codes alone cannot express; use another"
                " codec, such as facebook/encodec_24khz."
            )
    channels = getattr(config, "audio_channels", 1)
    if channels != 1:
        raise CheckpointError(f"{name} encodes {channels} channels at once, and clips have one; use a mono codec.")
