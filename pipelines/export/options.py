"""Options of `export sequences` and `export megatron`, and those that the plan of `export compact` stores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import BaseModel, ConfigDict

from codectok.config import parse
from codectok.errors import InputError
from codectok.exports.choices import Loss, TooLong, Until, check_choice
from codectok.exports.sequences.packing import PackingOptions
from codectok.exports.sequences.template_files import TEXT_TEMPLATE, VOICE_TEMPLATE
from codectok.pipelines.engine.output.unit_files import length_folder
from codectok.pipelines.engine.planning.plan import Plan
from codectok.tokens.layouts.layout import TokenLayout
from codectok.tokens.layouts.loading import default_layout
from codectok.tokens.vocabulary import DEFAULT_OFFSET

DEFAULT_PART_MEGABYTES = 256.0


@dataclass(frozen=True)
class DocumentOptions:
    """How documents are made, mixed and packed.

    Attributes:
        template: name of a template that comes with codectok, patterns such as "ATAT:2,TATA:1", or a YAML file.
        templates: templates of single datasets, by name.
        tokenizer: folder of the text tokenizer; None without one.
        offset: id of the first code.
        end_of_sequence: token or id; None for the tokenizer's.
        switch: token where audio and text of a pattern change; None without one.
        seed: decides which documents follow which pattern; None for 0.
        voice: "speaker", the id of a row, or `TABLE#ID`, for templates with a voice; None without one.
        packing: how documents are packed into sequences.
        shorter_lengths: lengths of further outputs: a document goes to the shortest one that holds it.
        weights: share of tokens of each dataset in the mixture; None to concatenate the datasets.
        until: where a mixture ends, see `codectok.exports.sequences.mixing.mix`.
        part_megabytes: MB of tables and texts per part file.
        allow_mixed: accept tables of one codec whose codes were computed differently.
        layout: how codes are written; UniTTS's by default.
        loss: positions that a model learns, to be stored as labels; None to store none.
    """

    template: str = "audio"
    templates: Mapping[str, str] = field(default_factory=dict)
    tokenizer: str | None = None
    offset: int = DEFAULT_OFFSET
    end_of_sequence: str | None = None
    switch: str | None = None
    seed: int | None = None
    voice: str | None = None
    packing: PackingOptions = field(default_factory=PackingOptions)
    shorter_lengths: tuple[int, ...] = ()
    weights: Mapping[str, float] | None = None
    until: Until = Until.FIRST
    part_megabytes: float = DEFAULT_PART_MEGABYTES
    allow_mixed: bool = False
    layout: TokenLayout = field(default_factory=default_layout)
    loss: Loss | None = None

    def __post_init__(self) -> None:
        if self.loss is not None:
            check_choice(self.loss, Loss)
        check_unit_megabytes(self.part_megabytes)
        longest = self.packing.length
        if self.shorter_lengths and (longest is None or min(self.shorter_lengths) < 1):
            raise InputError("Lengths must be numbers of at least 1.")
        if len({*self.shorter_lengths, longest}) <= len(self.shorter_lengths):
            raise InputError("Two outputs have the same --length; pass each length once.")
        if self.layout.order != "flat" and self.packing.too_long in (TooLong.TRUNCATE, TooLong.SPLIT):
            raise InputError(
                f"Audio of the layout {self.layout.name} cannot be cut, because its codebooks are {self.layout.order};"
                " pass --too-long drop or keep."
            )
        for name, weight in (self.weights or {}).items():
            if not 0 < weight < math.inf:
                raise InputError(f"The weight of {name} must be a number above 0, not {weight:g}.")

    @property
    def packings(self) -> dict[str, PackingOptions]:
        """Packing of each output by the name of its folder, the shortest first; "" is the output folder itself."""
        if not self.shorter_lengths:
            return {"": self.packing}
        lengths = sorted([*self.shorter_lengths, self.packing.length or 0])
        return {length_folder(length): replace(self.packing, length=length) for length in lengths}

    def template_of(self, dataset: str) -> str:
        """Return the template of a table; with a voice, "tts" becomes the template that begins with the voice."""
        name = self.templates.get(dataset, self.template)
        return VOICE_TEMPLATE if name == "tts" and self.voice is not None else name

    def task_of_text(self, dataset: str) -> str:
        """Return the template of a text source."""
        return self.templates.get(dataset, TEXT_TEMPLATE)

    def check_names(self, datasets: Sequence[str]) -> None:
        """Raise `InputError` for weights or templates of unknown datasets, and for datasets that lack a weight."""
        known = ", ".join(datasets)
        for name in (*self.templates, *(self.weights or {})):
            if name not in datasets:
                raise InputError(f"There is no source named {name!r}; choose from {known}.")
        missing = [name for name in datasets if self.weights is not None and name not in self.weights]
        if missing:
            raise InputError(f"The source {missing[0]} has no weight; give one to each of {known}.")


class PlannedCompactOptions(BaseModel):
    """Options that the plan of an `export compact` job stores: the settings that all codes of the table share.

    Attributes:
        codec: fingerprint of the codec.
        dtype: arithmetic of the codec.
        device: "cpu", or the model of the GPU.
        columns: types by name of the columns behind those of a token table.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    codec: str
    dtype: str
    device: str
    columns: dict[str, str] = {}

    @classmethod
    def from_plan(cls, plan: Plan) -> PlannedCompactOptions:
        """Read the options of a stored plan; `ConfigError` if one is missing or has another type."""
        return parse(cls, plan.header.options, "The plan of the table")


def check_unit_megabytes(part_megabytes: float) -> None:
    """Raise `InputError` for an impossible size of part files."""
    if not 0 < part_megabytes < math.inf:
        raise InputError(f"Parts must have a size above 0 MB, not {part_megabytes:g}.")
