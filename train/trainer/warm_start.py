"""Warm start: copies the weights of an initial checkpoint (`init_from`) into a new codec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codectok.checkpoints.built_in import built_in_codec
from codectok.checkpoints.native import is_checkpoint
from codectok.codec import Codec
from codectok.config import CodecConfig
from codectok.errors import InputError
from codectok.model.network import CodecNetwork

COPIED_MODULES = ("encoder", "decoder")
# Settings of a part that change its training only.
TRAINING_KEYS = {"drop_path_rate", "ema_decay", "expiry_share"}


def has_initial_checkpoint(place: Path) -> bool:
    """True if `place`, a folder of a codec or of a training run, contains a codec, or if it names a built-in one."""
    return _codec_folder(place) is not None


def load_initial_checkpoint(place: Path, config: CodecConfig, with_quantizer: bool = False) -> Codec:
    """Load the codec in `place`, a folder of a codec or of a training run, or a built-in one by its name, onto the CPU.

    Raises:
        InputError: there is no codec, or `check_initial_config` refuses it.
    """
    folder = _codec_folder(place)
    if folder is None:
        raise InputError(
            f"There is no codec to start from in {place} (init_from); give the folder of a codec, or of a finished"
            " training run."
        )
    codec = Codec.from_pretrained(folder, device="cpu")
    check_initial_config(codec.config, config, folder, with_quantizer)
    return codec


def check_initial_config(initial: CodecConfig, config: CodecConfig, place: Path, with_quantizer: bool = False) -> None:
    """Check that encoder and decoder of the initial checkpoint in `place` match `config`.

    Args:
        initial, config: the two codecs.
        place: of the initial checkpoint, for messages.
        with_quantizer: the quantizer must match, too.

    Raises:
        InputError: they differ.
    """
    for part in ("mel", *COPIED_MODULES, *(["quantizer"] if with_quantizer else [])):
        own, other = (getattr(each, part).model_dump(exclude=TRAINING_KEYS) for each in (config, initial))
        different = [name for name in own | other if own.get(name) != other.get(name)]
        if different:
            raise InputError(
                f"The codec in {place} (init_from) has another {part} than the configuration:"
                f" {', '.join(f'{name} {other.get(name)}, not {own.get(name)}' for name in different)}."
            )


def copy_weights(source: CodecNetwork, target: CodecNetwork) -> bool:
    """Copy encoder and decoder, and the quantizer if both are configured alike.

    Both networks must still be without weight norm and training state.

    Returns:
        True if the quantizer was copied, so that `target` has codebooks.
    """
    alike = _quantizer_keys(source.config) == _quantizer_keys(target.config)
    for part in (*COPIED_MODULES, "quantizer") if alike else COPIED_MODULES:
        getattr(target, part).load_state_dict(getattr(source, part).state_dict())
    return alike


def _quantizer_keys(config: CodecConfig) -> dict[str, Any]:
    return config.quantizer.model_dump(exclude=TRAINING_KEYS)


def _codec_folder(place: Path) -> Path | None:
    if not place.exists():
        return built_in_codec(str(place))
    return next((folder for folder in (place, place / "codec") if is_checkpoint(folder)), None)
