"""Loads any codec by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from codectok.checkpoints.hub import resolve_codec_directory
from codectok.codecs.base import AudioCodec

from .choices import Precision
from .codec import Codec
from .errors import CheckpointError, CodectokError, InputError, first_line

ENTRY_POINTS = "codectok.codecs"

CodecLoader = Callable[..., AudioCodec]
"""Function `load(name, *, device, dtype, batch_seconds)` behind a scheme; `name` is all that follows the colon."""

_SCHEMES: Mapping[str, str] = {"transformers": "codectok.codecs.transformers_models.loading:load"}


def load_codec(
    name: str | Path,
    device: str = "auto",
    dtype: Precision = "float32",
    pack_frames: int | None = None,
    batch_seconds: float | None = None,
) -> AudioCodec:
    """Load a codec.

    Args:
        name: folder of a codec of ours, or of DistilCodec's (`FOLDER@STEP` chooses a step); a name of either on the
            Hugging Face Hub (`organisation/name`); or `SCHEME:NAME`, where a scheme is `transformers` or an entry point
            of the group `codectok.codecs`.
        device: "auto" (CUDA if available), "cpu", "cuda" or a device such as "cuda:1".
        dtype: "float32"; codecs of ours also compute in "tf32" (CUDA only) and "bfloat16".
        pack_frames: mel frames that a codec of ours encodes at once; None for its default.
        batch_seconds: audio of clips of one length that other codecs encode at once; None for clip by clip.

    Raises:
        CheckpointError: there is no such codec, or it cannot be loaded.
        InputError: the codec does not support the device or the precision.
    """
    scheme, rest = _scheme_of(str(name))
    if scheme is None:
        if batch_seconds is not None:
            raise InputError(f"The codec {name} packs clips end to end; use --pack-frames instead of --batch-seconds.")
        return Codec.from_pretrained(resolve_codec_directory(name), device, dtype, pack_frames)
    if pack_frames is not None:
        raise InputError(f"The codec {name} encodes clips as wholes; use --batch-seconds instead of --pack-frames.")
    return loader_of(scheme)(rest, device=device, dtype=dtype, batch_seconds=batch_seconds or 0.0)


def absolute_codec_name(name: str | Path) -> str:
    """Return a name by which `load_codec` finds the same codec from any folder.

    Raises:
        CheckpointError: there is no such codec, or it cannot be downloaded.
    """
    scheme, rest = _scheme_of(str(name))
    if scheme is None:
        return str(resolve_codec_directory(name).resolve())
    path, at, choice = rest.rpartition("@") if "@" in rest and not Path(rest).exists() else (rest, "", "")
    if not Path(path).exists():
        return str(name)
    return f"{scheme}:{Path(path).resolve()}{at}{choice}"


def _scheme_of(name: str) -> tuple[str | None, str]:
    """Split `SCHEME:NAME`; the scheme is None for a folder or a name on the Hub."""
    scheme, colon, rest = name.partition(":")
    return (scheme, rest) if colon and not Path(name).exists() else (None, name)


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
        raise CheckpointError(f"Several installed packages have the scheme of codecs {scheme}; remove one of them.")
    try:
        loader: CodecLoader = points[0].load()
    except CodectokError:
        raise
    except Exception as error:  # a package of another maker may raise anything
        raise CheckpointError(
            f"The package of the scheme {scheme} cannot be imported ({points[0].value}): {first_line(error)}"
        ) from None
    return loader
