"""Loads any codec by its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch

from codectok.checkpoints.built_in import built_in_codec
from codectok.checkpoints.finding import find_codec, is_hub_name, is_local_name, pinned_name
from codectok.codecs.base import AudioCodec
from codectok.model.kernels.support import resolve_kernels, wanted_kernels

from .choices import DEFAULT_CODEC, KernelChoice, Kernels, Precision
from .codec import Codec
from .description import CodecDescription
from .errors import CheckpointError, CodectokError, InputError, described

ENTRY_POINTS = "codectok.codecs"
# Of a fingerprint, in messages.
SHOWN_DIGITS = 12

CodecLoader = Callable[..., AudioCodec]
"""Function `load(name, *, device, dtype, batch_seconds)` behind a scheme; `name` is all that follows the colon."""

_SCHEME = re.compile(r"[A-Za-z][\w+.-]*")
_SCHEMES: Mapping[str, str] = {
    "transformers": "codectok.codecs.transformers_models.loading:load",
    "bigcodec": "codectok.codecs.packages.bigcodec:load",
    "speechtokenizer": "codectok.codecs.packages.speechtokenizer:load",
    "snac": "codectok.codecs.packages.snac:load",
}
# Schemes whose loaders have the argument `encoder_only`.
_ENCODER_ONLY = frozenset(["transformers"])


def load_codec(
    name: str | Path,
    device: str = "auto",
    dtype: Precision = "float32",
    pack_frames: int | None = None,
    batch_seconds: float | None = None,
    encoder_only: bool = False,
    kernels: KernelChoice = "auto",
) -> AudioCodec:
    """Load a codec.

    Args:
        name: `universal-small`, the built-in codec; folder of a codec of ours, or of DistilCodec's
            (`FOLDER@STEP` chooses a step); a name of either on the Hugging Face Hub (`organisation/name`, with `@STEP`
            for DistilCodec's, else the newest step is taken; `organisation/name#REVISION` chooses a commit, branch or
            tag); or `SCHEME:NAME`, where a scheme is `transformers`, `bigcodec`, `speechtokenizer`, `snac`, or an entry
            point of the group `codectok.codecs`.
        device: "auto" (CUDA if available), "cpu", "cuda" or a device such as "cuda:1".
        dtype: "float32"; codecs of ours also compute in "tf32" (CUDA only) and "bfloat16".
        pack_frames: mel frames that a codec of ours encodes at once; None for its default.
        batch_seconds: audio of clips of one length that other codecs encode at once; None for clip by clip.
        encoder_only: keep no weights of the decoder, for codecs of ours and of transformers; decoding is then an
            error. Codes and fingerprint do not change.
        kernels: kernels of a codec of ours on a GPU, see `codectok.choices.KernelChoice`.

    Raises:
        CheckpointError: there is no such codec, or it cannot be loaded.
        InputError: the codec does not support the device or the precision.
    """
    scheme, rest = _scheme_of(str(name))
    if scheme is None:
        if batch_seconds is not None:
            raise InputError(f"The codec {name} packs clips end to end; use --pack-frames instead of --batch-seconds.")
        return Codec.from_pretrained(name, device, dtype, pack_frames, encoder_only, kernels)
    if pack_frames is not None:
        raise InputError(f"The codec {name} encodes clips as wholes; use --batch-seconds instead of --pack-frames.")
    _refuse_kernels(str(name), kernels)
    more = {"encoder_only": encoder_only} if scheme in _ENCODER_ONLY else {}
    return loader_of(scheme)(rest, device=device, dtype=dtype, batch_seconds=batch_seconds or 0.0, **more)


def absolute_codec_name(name: str | Path) -> str:
    """Return a name by which `load_codec` finds the same codec from any folder, and later.

    A codec of ours or of DistilCodec's on the Hub is downloaded, and its local folder returned. Names on the Hub behind
    a scheme of this package get the present commit (`NAME#COMMIT`); names behind other schemes stay as they are.

    Raises:
        CheckpointError: there is no such codec, or it cannot be downloaded.
    """
    scheme, rest = _scheme_of(str(name))
    if scheme is None:
        return find_codec(name).name
    path, at, choice = (rest, "", "") if "@" not in rest or Path(rest).exists() else rest.rpartition("@")
    if path and Path(path).exists():
        return f"{scheme}:{Path(path).resolve()}{at}{choice}"
    return f"{scheme}:{pinned_name(path)}{at}{choice}" if scheme in _SCHEMES else str(name)


def is_codec_name(name: str) -> bool:
    """Return True if `name` has the form of a codec's name that is not a local path."""
    return built_in_codec(name) is not None or _scheme_of(name)[0] is not None or is_hub_name(name)


def _scheme_of(name: str) -> tuple[str | None, str]:
    """Split `SCHEME:NAME`; the scheme is None for a folder or a name on the Hub."""
    scheme, colon, rest = name.partition(":")
    return (scheme, rest) if colon and _SCHEME.fullmatch(scheme) and not is_local_name(name) else (None, name)


def loader_of(scheme: str) -> CodecLoader:
    """Return the function that loads the codecs of a scheme.

    Raises:
        CheckpointError: no package has this scheme, several have it, or its package cannot be imported.
    """
    if scheme in _SCHEMES:
        module, _, function = _SCHEMES[scheme].partition(":")
        found: CodecLoader = getattr(import_module(module), function)
        return found
    points = [point for point in entry_points(group=ENTRY_POINTS) if point.name == scheme]
    if not points:
        known = sorted({*_SCHEMES, *(point.name for point in entry_points(group=ENTRY_POINTS))})
        raise CheckpointError(f"There is no scheme of codecs {scheme}; known are {', '.join(known)}.")
    if len({point.value for point in points}) > 1:
        packages = sorted({point.dist.name if point.dist else point.value for point in points})
        raise CheckpointError(
            f"Several installed packages have the scheme of codecs {scheme}: {', '.join(packages)}; keep one."
        )
    try:
        loader: CodecLoader = points[0].load()
    except CodectokError:
        raise
    except Exception as error:  # a package of another maker may raise anything
        raise CheckpointError(
            f"The package of the scheme {scheme} cannot be imported ({points[0].value}): {described(error)}."
        ) from None
    return partial(_load_foreign, scheme, loader)


def _load_foreign(scheme: str, loader: CodecLoader, name: str, **options: Any) -> AudioCodec:
    """Load a codec of another maker, and check that it describes itself.

    Raises:
        CheckpointError: the loader failed, or returned something else than a codec.
    """
    try:
        codec: object = loader(name, **options)
        if isinstance(codec, AudioCodec):
            codec.describe()
            return codec
    except CodectokError:
        raise
    except Exception as error:  # as above
        raise CheckpointError(f"The codec {scheme}:{name} cannot be loaded: {described(error)}.") from None
    raise CheckpointError(
        f"The package of the scheme {scheme} returned a {type(codec).__name__} for {name}, not an AudioCodec."
    )


def kernels_of_workers(
    codec: AudioCodec, name: str, kernels: KernelChoice, device: torch.device, dtype: Precision, elsewhere: bool
) -> Kernels:
    """Choose the kernels with which all workers of a job compute.

    Args:
        codec: the codec `name`, on any device.
        name: for messages.
        kernels: the choice.
        device: device of the workers.
        dtype: arithmetic.
        elsewhere: True if the workers' GPUs are not this machine's, so that it cannot tell if kernels compile there.

    Raises:
        InputError: the codec has no such kernels, or "triton" does not run here.
    """
    if not isinstance(codec, Codec):
        _refuse_kernels(name, kernels)
        return "torch"
    if elsewhere:
        return wanted_kernels(kernels, device.type, dtype)
    # Not compiled here: the GPU's memory is left to the workers, which refuse to run if they cannot.
    return resolve_kernels(kernels, device, dtype, compile_one=False)


def _refuse_kernels(name: str, kernels: KernelChoice) -> None:
    """Raise an `InputError` if kernels are asked for that the codec `name` of another maker does not have."""
    if kernels == "triton":
        raise InputError(f"Only codecs of ours have kernels, not {name}; leave --kernels out.")


def check_made_by(codec: AudioCodec, place: str | Path, made_by: CodecDescription) -> None:
    """Raise an `InputError` if `codec` does not decode the codes in `place`: another codec made them."""
    if made_by.codec_fingerprint not in codec.decodable_fingerprints:
        advice = (
            "install the version of codectok that made them"
            if made_by.codec_name == codec.name == DEFAULT_CODEC
            else "name that one with --codec"
        )
        raise InputError(
            f"{place} was encoded by another codec ({made_by.label}) than {codec.describe().label}; {advice}."
        )


def check_fingerprint(name: str, fingerprint: str) -> None:
    """Raise a `CodectokError` if the codec `name` is missing on this machine, or has another fingerprint."""
    found = load_codec(name, "cpu", encoder_only=True).fingerprint
    if found != fingerprint:
        advice = (
            "copy that one, or name a folder that all machines share"
            if built_in_codec(name) is None
            else "install the same version of codectok there"
        )
        raise CodectokError(
            f"The codec {name} has the fingerprint {found[:SHOWN_DIGITS]} there, and {fingerprint[:SHOWN_DIGITS]} where"
            f" the command runs; {advice}."
        )
