"""Starting from another codec: what a student takes over from its teacher."""

from __future__ import annotations

from pathlib import Path

from codectok.checkpoints import is_checkpoint
from codectok.codec import Codec
from codectok.config import CodecConfig
from codectok.errors import InputError
from codectok.model.network import CodecNetwork

# Parts of a codec that are taken over, and what they must have in common for it.
INHERITED = ("encoder", "decoder")


def has_ancestor(place: Path) -> bool:
    """Whether there is a codec in `place`, a folder of a codec or of a training run."""
    return _codec_folder(place) is not None


def load_ancestor(place: Path, config: CodecConfig) -> Codec:
    """The codec in `place`, a folder of a codec or of a training run, on the CPU.

    Raises:
        InputError: there is none, or its encoder or decoder is not that of `config`.
    """
    folder = _codec_folder(place)
    if folder is None:
        raise InputError(
            f"There is no codec to start from in {place} (init_from); give the folder of a codec, or of a training run"
            " that has ended."
        )
    codec = Codec.from_pretrained(folder, device="cpu")
    check_ancestor(codec.config, config, folder)
    return codec


def check_ancestor(ancestor: CodecConfig, config: CodecConfig, place: Path) -> None:
    """Refuse the codec in `place`, with an `InputError`, if its encoder or decoder is not that of `config`."""
    for part in ("mel", *INHERITED):
        own, other = (getattr(each, part).model_dump() for each in (config, ancestor))
        different = [name for name in own if own[name] != other[name] and name != "drop_path_rate"]
        if different:
            raise InputError(
                f"The codec in {place} (init_from) has another {part} than is to be trained:"
                f" {', '.join(f'{name} {other[name]}, not {own[name]}' for name in different)}."
            )


def _codec_folder(place: Path) -> Path | None:
    return next((folder for folder in (place, place / "codec") if is_checkpoint(folder)), None)


def inherit(network: CodecNetwork, ancestor: CodecNetwork) -> None:
    """Copy encoder and decoder; the quantizer stays as it is. To be called before weight norm is added."""
    for part in INHERITED:
        getattr(network, part).load_state_dict(getattr(ancestor, part).state_dict())
