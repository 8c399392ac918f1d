"""What `export sequences` and `export megatron` can be told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from codectok.errors import InputError
from codectok.exports.sequences.mixing import Until
from codectok.exports.sequences.packing import PackingOptions
from codectok.exports.sequences.templates import VOICE_TEMPLATE
from codectok.tokens.vocabulary import DEFAULT_OFFSET

DEFAULT_PART_MEGABYTES = 256.0


@dataclass(frozen=True)
class DocumentOptions:
    """What documents are made of rows, and how they are put together.

    Attributes:
        template: name of one that comes with codectok, or a file.
        templates: the same for single datasets.
        tokenizer: folder of the tokenizer of texts.
        offset: id of the first code.
        end_of_sequence: token or id; by default the tokenizer's.
        voice: "speaker", the id of a row, or `TABLE#ID`, for templates that have a voice.
        packing: of documents into sequences.
        weights: shares of the datasets in the tokens of the mixture; None for all of one after the other.
        until: where a mixture ends, see `codectok.exports.sequences.mixing.mix`.
        part_megabytes: of tables and texts that become one part.
    """

    template: str = "audio"
    templates: Mapping[str, str] = field(default_factory=dict)
    tokenizer: str | None = None
    offset: int = DEFAULT_OFFSET
    end_of_sequence: str | None = None
    voice: str | None = None
    packing: PackingOptions = field(default_factory=PackingOptions)
    weights: Mapping[str, float] | None = None
    until: Until = "first"
    part_megabytes: float = DEFAULT_PART_MEGABYTES

    def __post_init__(self) -> None:
        check_part_megabytes(self.part_megabytes)
        for name, weight in (self.weights or {}).items():
            if not 0 < weight < math.inf:
                raise InputError(f"The weight of {name} is a number above 0, not {weight:g}.")

    def template_of(self, dataset: str) -> str:
        """The template of a table; with a voice, text-to-speech begins with it."""
        name = self.templates.get(dataset, self.template)
        return VOICE_TEMPLATE if name == "tts" and self.voice is not None else name

    def check_names(self, datasets: Sequence[str]) -> None:
        """Refuse weights and templates of what is not there, and datasets without a weight where others have one."""
        known = ", ".join(datasets)
        for name in (*self.templates, *(self.weights or {})):
            if name not in datasets:
                raise InputError(f"There is no source named {name!r}; there are {known}.")
        missing = [name for name in datasets if self.weights is not None and name not in self.weights]
        if missing:
            raise InputError(f"The source {missing[0]} has no weight; give one to each of {known}.")


def check_part_megabytes(part_megabytes: float) -> None:
    """Refuse an impossible size of parts."""
    if not 0 < part_megabytes < math.inf:
        raise InputError(f"Parts of {part_megabytes:g} MB are impossible; give a number above 0.")
