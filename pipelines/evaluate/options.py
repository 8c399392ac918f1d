"""Options of `evaluate`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from codectok.audio.sound import MIXED, SoundOptions
from codectok.choices import KernelChoice, Precision
from codectok.errors import InputError
from codectok.evaluation.controls.controls import CONTROLS
from codectok.loading import absolute_codec_name
from codectok.pipelines.engine.planning.cutting import check_unit_seconds
from codectok.sources.encodings import check_encoding
from codectok.sources.source import check_max_bytes

_LABEL = re.compile(r"[\w][\w.+-]*")
_LABELLED = re.compile(rf"({_LABEL.pattern})=(.+)", re.DOTALL)


@dataclass(frozen=True)
class NamedCodec:
    """A codec to evaluate.

    Attributes:
        label: name in the results.
        name: name for `codectok.load_codec`.
    """

    label: str
    name: str

    @classmethod
    def parse_all(cls, names: Sequence[str]) -> tuple[Self, ...]:
        """Parse codecs given as `CODEC` or `LABEL=CODEC`, with paths made absolute.

        A codec without a label is called by the last part of its name.

        Raises:
            InputError: there is no codec, or two share a label.
        """
        if not names:
            raise InputError("No codec is given; pass one or more with --codec.")
        found: list[Self] = []
        for name in names:
            # A path with an equals sign in it is a path.
            labelled = None if Path(name).exists() else _LABELLED.fullmatch(name)
            label, codec = (labelled[1], labelled[2]) if labelled else (_label_of(name), name)
            if label in (codec.label for codec in found) or label in (control.name for control in CONTROLS):
                raise InputError(f"The name {label} is taken; give the codec another one: --codec NAME={codec}.")
            found.append(cls(label, absolute_codec_name(codec)))
        return tuple(found)


def _label_of(name: str) -> str:
    last = re.split(r"[/:]", name.rstrip("/"))[-1]
    return "-".join(_LABEL.findall(last)) or "codec"


@dataclass(frozen=True)
class EvaluateOptions:
    """Which codecs are measured, and how.

    Attributes:
        codecs: to measure and to compare.
        device: "auto", "cpu" or "cuda".
        dtype: arithmetic of the codecs.
        kernels: kernels of codecs of ours on a GPU.
        metrics: names of the metrics; None for all that are installed.
        controls: names of the controls; None for all that are installed.
        stability: encode changed copies of each clip, too, and compare their codes.
        utmos: TorchScript file that predicts a mean opinion score; None to leave it out.
        recognizer: `module:function` that recognizes speech; None for pocketsphinx.
        preset: name of the protocol that the test set follows; None for none.
        references: write originals and reconstructions, with lists for other tools.
        max_seconds: of a clip that are measured, from its beginning; None for all.
        share: share of the clips that are measured, chosen by their ids.
        unit_seconds: estimated audio of a unit.
        encoding, audio_column, max_file_bytes, sound: how the sources are read, see
            `codectok.pipelines.tokenize.options.TokenizeOptions`.

    Raises:
        InputError: a value out of range.
    """

    codecs: tuple[NamedCodec, ...]
    device: str = "auto"
    dtype: Precision = "float32"
    kernels: KernelChoice = "auto"
    metrics: tuple[str, ...] | None = None
    controls: tuple[str, ...] | None = None
    stability: bool = True
    utmos: Path | None = None
    recognizer: str | None = None
    preset: str | None = None
    references: bool = False
    max_seconds: float | None = None
    share: float = 1.0
    unit_seconds: float = 600.0
    encoding: str | None = None
    audio_column: str | None = None
    max_file_bytes: int | None = None
    sound: SoundOptions = MIXED

    def __post_init__(self) -> None:
        if self.encoding is not None:
            object.__setattr__(self, "encoding", check_encoding(self.encoding))
        check_max_bytes(self.max_file_bytes)
        check_unit_seconds(self.unit_seconds)
        if self.utmos is not None:
            object.__setattr__(self, "utmos", self.utmos.resolve())  # workers may run in another folder
        if not self.codecs:
            raise InputError("No codec is given; pass one or more.")
        if not 0 < self.share <= 1:
            raise InputError(f"The share of clips must be above 0 and at most 1, not {self.share:g}.")
        if self.max_seconds is not None and not 0 < self.max_seconds < math.inf:
            raise InputError(f"max_seconds must be a number above 0, not {self.max_seconds:g}.")
