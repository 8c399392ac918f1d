"""Loads codecs of the transformers library."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codectok.choices import Precision
from codectok.codecs.fingerprints import hash_codec
from codectok.config import MAX_MODULES, load_mapping
from codectok.device import check_precision, resolve_device
from codectok.errors import CheckpointError, CodectokError, ConfigError, shortened
from codectok.memory import GPUMemoryError, is_out_of_memory

from .codec import TransformersCodec
from .families import Family, check_config, family_of
from .hub import CONFIG_FILE, EXTRACTOR_FILE, find_model

# Keys of configurations that say who wrote them, and with which library.
_INCIDENTAL = frozenset(
    ["_name_or_path", "_commit_hash", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"]
)
_COUNTS = re.compile(r"(layers|codebooks|quantizers|blocks|repeat|depth)$")
_SHOWN_KEYS = 3
_TRIED_FRAMES = 3

log = logging.getLogger(__name__)


def load(
    name: str,
    *,
    device: str = "auto",
    dtype: Precision = "float32",
    batch_seconds: float = 0.0,
    encoder_only: bool = False,
) -> TransformersCodec:
    """Load a codec of transformers.

    Args:
        name: a folder, or a name on the Hugging Face Hub (`#REVISION` chooses a commit, branch or tag); with `@N` for
            the first N codebooks, else all.
        device, dtype, batch_seconds, encoder_only: as in `codectok.load_codec`.

    Raises:
        CheckpointError: there is no such codec, its type is not supported, its weights are not complete, or it cannot
            encode.
        InputError: the codec does not support the device or the precision.
    """
    check_precision(dtype, resolve_device(device))
    path, n_codebooks = _split(name)
    _check_installed()
    folder, revision = find_model(path)
    raw = _read_config(folder)
    family = family_of(path, raw.get("model_type"))
    with _quiet():
        config = _load_config(path, folder)
        check_config(path, config.model_type, config)
        _check_extractor(path, folder)
        choices = _choices(path, family, config)
        if n_codebooks is not None and n_codebooks not in choices:
            possible = ", ".join(map(str, choices))
            raise CheckpointError(f"{path} cannot encode {n_codebooks} codebooks; possible are {possible}.")
        model = _load_model(path, folder, family, config)
    architecture = {"config": _canonical(raw), "n_codebooks": n_codebooks or max(choices)}
    hashes = hash_codec(json.dumps(architecture, sort_keys=True).encode(), model.state_dict())
    codec = TransformersCodec(model, family, hashes, n_codebooks, revision, device, dtype, batch_seconds, encoder_only)
    _check_encodes(path, codec)
    return codec


def _choices(name: str, family: Family, config: Any) -> Mapping[int, Any]:
    """Return the possible numbers of codebooks; raise a `CheckpointError` if the configuration has none."""
    try:
        choices = family.choices(config)
        if family.codebook_size(config) < 1 or not choices or min(choices) < 1:
            raise ValueError("it has no codebook")
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"The configuration of {name} is invalid: {shortened(error)}.") from None
    return choices


def _split(name: str) -> tuple[str, int | None]:
    """Split `NAME@N`."""
    path, at, count = name.rpartition("@")
    if not at or Path(name).exists():
        return name, None
    if not (count.isascii() and count.isdigit()):
        raise CheckpointError(f"{name} ends in @{count}, which must be a number of codebooks, such as {path}@8.")
    return path, int(count)


def _check_installed() -> None:
    try:
        from transformers import AutoModelForAudioTokenization  # noqa: F401
    except ImportError:
        raise CheckpointError(
            "Codecs of transformers need transformers 5.24 or newer (pip install 'transformers>=5.24')."
        ) from None


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {CONFIG_FILE}, and is not a model of transformers.")
    try:
        config = load_mapping(path)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    _check_counts(config, str(path))
    return config


def _check_counts(config: Mapping[str, Any], where: str) -> None:
    """Raise a `CheckpointError` if a number of layers or codebooks is absurd: all of them are built before weights."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            _check_counts(value, where)
        elif _COUNTS.search(key) and isinstance(value, int) and value > MAX_MODULES:
            raise CheckpointError(f"{where}: {key} is {value}, and must be at most {MAX_MODULES}.")


def _load_config(name: str, folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # invalid values raise exceptions of every kind
        raise CheckpointError(f"The configuration of {name} is invalid: {shortened(error)}.") from None


def _check_extractor(name: str, folder: Path) -> None:
    """Raise a `CheckpointError` if the feature extractor changes the level of clips."""
    path = folder / EXTRACTOR_FILE
    if not path.is_file():
        return  # the configuration of the model says all that is needed
    try:
        extractor = load_mapping(path)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if extractor.get("normalize_audio"):
        raise CheckpointError(
            f"{name} normalizes the peak of every clip (normalize_audio in {EXTRACTOR_FILE}), which is not supported;"
            " use another codec."
        )


def _load_model(name: str, folder: Path, family: Family, config: Any) -> Any:
    """Load all weights in float32; none may be missing."""
    import transformers

    auto_class = getattr(transformers, family.auto_class)
    try:
        model, found = auto_class.from_pretrained(
            folder, config=config, dtype=torch.float32, local_files_only=True, trust_remote_code=False,
            use_safetensors=True, output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # damaged files raise exceptions of every kind
        raise CheckpointError(f"The weights of {name} cannot be loaded: {shortened(error)}.") from None
    if missing := found.get("missing_keys"):
        raise CheckpointError(
            f"The weights of {name} lack tensors ({_listed(missing)}); they do not fit its configuration."
        )
    if spare := found.get("unexpected_keys"):  # of training, or of a part that the library leaves out
        log.warning("The weights of %s have tensors that its model does not use (%s).", name, _listed(spare))
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"The tensor {key} of {name} has values that are not finite; download it again.")
    return model.eval().requires_grad_(False)


def _listed(keys: Collection[str]) -> str:
    more = f" and {len(keys) - _SHOWN_KEYS} more" if len(keys) > _SHOWN_KEYS else ""
    return ", ".join(sorted(keys)[:_SHOWN_KEYS]) + more


def _check_encodes(name: str, codec: TransformersCodec) -> None:
    """Encode a few frames: parts of a configuration may not fit each other, which only shows then."""
    n_samples = max(codec.min_samples, _TRIED_FRAMES * codec.frame_size)
    try:
        codec.encode(np.zeros(n_samples, np.float32), codec.sample_rate)
    except GPUMemoryError:
        raise
    except CodectokError as error:
        raise CheckpointError(f"The configuration of {name} cannot encode: {error}") from None
    except (RuntimeError, ValueError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        raise CheckpointError(f"The configuration of {name} cannot encode: {shortened(error)}.") from None


def _canonical(config: Any) -> Any:
    """Return a configuration without the keys that say who wrote it."""
    if isinstance(config, Mapping):
        return {key: _canonical(value) for key, value in config.items() if key not in _INCIDENTAL}
    if isinstance(config, list):
        return [_canonical(value) for value in config]
    return config


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers: its warnings are errors here, and loading takes seconds."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
