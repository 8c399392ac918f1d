"""Tiny random codecs of transformers, one of each family, saved in folders as its users save them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

FAMILIES = (
    "encodec", "dac", "mimi", "xcodec", "xcodec2", "neucodec", "wavtokenizer", "higgs_audio_v2_tokenizer",
)  # fmt: skip

_HUBERT = {
    "model_type": "hubert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "conv_dim": [4] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
_WAV2VEC2_BERT = {
    "model_type": "wav2vec2-bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "left_max_position_embeddings": 8, "right_max_position_embeddings": 4,
    "conv_depthwise_kernel_size": 3,
}  # fmt: skip
_DAC = {
    "model_type": "dac", "encoder_hidden_size": 2, "decoder_hidden_size": 32, "hidden_size": 16,
}  # fmt: skip


def _semantic_sizes() -> dict[str, Any]:
    return {
        "semantic_model_config": _WAV2VEC2_BERT, "hidden_size": 64, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32, "encoder_hidden_size": 2,
        "quantization_dim": 80, "quantization_levels": [4, 4],
    }  # fmt: skip


def tiny_config(family: str) -> Any:
    import transformers as hf

    match family:
        case "encodec":
            return hf.EncodecConfig(
                sampling_rate=8000, upsampling_ratios=[5, 4, 2], num_filters=2, hidden_size=8, num_lstm_layers=1,
                codebook_size=16, target_bandwidths=[0.8, 1.6, 3.2],
            )  # fmt: skip
        case "dac":
            return hf.DacConfig(
                sampling_rate=8000, downsampling_ratios=[2, 4, 5], encoder_hidden_size=2, decoder_hidden_size=16,
                codebook_size=16, codebook_dim=4, n_codebooks=3,
            )  # fmt: skip
        case "mimi":
            return hf.MimiConfig(
                sampling_rate=8000, upsampling_ratios=[5, 4], num_filters=2, hidden_size=8, codebook_size=16,
                codebook_dim=8, vector_quantization_hidden_dimension=8, upsample_groups=8, num_quantizers=4,
                num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, intermediate_size=16,
                sliding_window=10,
            )  # fmt: skip
        case "xcodec":
            return hf.XcodecConfig(
                acoustic_model_config={**_DAC, "downsampling_ratios": [8, 5, 4, 2], "upsampling_ratios": [8, 5, 4, 2]},
                semantic_model_config=_HUBERT, codebook_size=16, target_bandwidths=[0.2, 0.4, 0.8],
            )  # fmt: skip
        case "higgs_audio_v2_tokenizer":
            ratios = [8, 5, 4, 2, 3]
            return hf.HiggsAudioV2TokenizerConfig(
                acoustic_model_config={**_DAC, "downsampling_ratios": ratios, "upsampling_ratios": ratios},
                semantic_model_config=_HUBERT, codebook_size=16, codebook_dim=8, target_bandwidths=[0.1, 0.2, 0.4],
            )  # fmt: skip
        case "xcodec2":
            return hf.Xcodec2Config(**_semantic_sizes())
        case "neucodec":
            return hf.NeuCodecConfig(**_semantic_sizes())
        case "wavtokenizer":
            return hf.WavTokenizerConfig(
                sampling_rate=8000, upsampling_ratios=[5, 4, 2], num_filters=2, hidden_size=8, codebook_dim=8,
                codebook_size=16, num_lstm_layers=1, decoder_hidden_size=8, decoder_intermediate_size=16,
                decoder_num_layers=1, decoder_attention_num_groups=4,
            )  # fmt: skip
    raise ValueError(family)


def random_model(family: str, config: Any = None, seed: int = 0) -> Any:
    """Make a codec with random weights, whose codes vary."""
    import transformers as hf

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = hf.AutoModel.from_config(config or tiny_config(family)).eval()
        for name, tensor in model.state_dict().items():
            if name.rpartition(".")[2] in ("embed", "embed_sum"):  # code vectors are zero at first
                tensor.data.normal_().mul_(0.3)
            elif name.endswith("project_in.weight"):  # finite scalar quantization rounds features
                tensor.data.mul_(300)
            elif tensor.dim() > 1 and tensor.is_floating_point() and "decoder" not in name:
                tensor.data.mul_(2)
    return model


def feature_extractor(model: Any) -> Any:
    """Return the feature extractor of a codec."""
    import transformers as hf

    config = model.config
    classes: dict[str, Callable[[], Any]] = {
        "encodec": lambda: hf.EncodecFeatureExtractor(sampling_rate=config.sampling_rate),
        "mimi": lambda: hf.EncodecFeatureExtractor(sampling_rate=config.sampling_rate),
        "dac": lambda: hf.DacFeatureExtractor(sampling_rate=config.sampling_rate, hop_length=config.hop_length),
        "xcodec": lambda: hf.DacFeatureExtractor(sampling_rate=config.sample_rate, hop_length=config.hop_length),
        "higgs_audio_v2_tokenizer": lambda: hf.DacFeatureExtractor(
            sampling_rate=config.sample_rate, hop_length=config.hop_length
        ),
        "xcodec2": lambda: hf.Xcodec2FeatureExtractor(),
        "neucodec": lambda: hf.NeuCodecFeatureExtractor(),
        "wavtokenizer": lambda: hf.WavTokenizerFeatureExtractor(sampling_rate=config.sampling_rate),
    }
    return classes[config.model_type]()


def save_model(family: str, folder: Path, seed: int = 0, **values: object) -> Path:
    """Save a random codec and its feature extractor, and return the folder; `values` change its configuration."""
    from transformers.utils import logging

    config = tiny_config(family)
    for name, value in values.items():
        setattr(config, name, value)
    model = random_model(family, config, seed)
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    feature_extractor(model).save_pretrained(folder)
    return folder


@lru_cache(maxsize=len(FAMILIES))
def own_model(folder: Path) -> Any:
    """Load a codec as a user of transformers does."""
    import transformers as hf

    level = hf.logging.get_verbosity()
    hf.logging.set_verbosity_error()
    try:
        return hf.AutoModel.from_pretrained(folder).eval()
    finally:
        hf.logging.set_verbosity(level)


def own_codes(model: Any, clip: np.ndarray) -> torch.Tensor:
    """Encode one clip [n] by the model's feature extractor and `encode`, to codes [n_frames, n_codebooks]."""
    extractor, config = feature_extractor(model), model.config
    with torch.inference_mode():
        inputs = extractor(clip, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        if config.model_type not in ("xcodec2", "neucodec"):
            inputs = {"input_values": inputs["input_values"]}
        if hasattr(config, "target_bandwidths"):
            inputs["bandwidth"] = config.target_bandwidths[-1]
        codes = model.encode(**inputs).audio_codes
    return (codes[0] if codes.dim() == 4 else codes)[0].T.long()
