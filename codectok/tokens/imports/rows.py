"""Rows of codes in files of other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codectok.audio.spans import Span
from codectok.errors import AudioError
from codectok.sources.clip import WHOLE
from codectok.sources.labels import columns_of, described_by

# In the order of precedence.
CODES_NAMES = ("audio_codes", "codes", "audio_tokens", "audio_token", "speech_tokens", "tokens", "code")
KEY_NAME = "__key__"  # of samples of WebDataset


@dataclass(frozen=True)
class FieldNames:
    """Names of columns of Parquet, or of keys of JSON lines; None to find them by their usual names."""

    codes: str | None = None
    key: str | None = None
    text: str | None = None

    def codes_in(self, names: Sequence[str]) -> str:
        """Return the name of the codes among `names`; raise `AudioError` if there is none."""
        wanted = CODES_NAMES if self.codes is None else (self.codes,)
        found = next((name for name in wanted if name in names), None)
        if found is None:
            shown = ", ".join(map(str, names)) or "none"
            advice = f" (known are {', '.join(CODES_NAMES)}); pass --codes-field" if self.codes is None else ""
            missing = "codes" if self.codes is None else repr(self.codes)
            raise AudioError(f"It has no {missing} among its fields {shown[:100]}{advice}.", "invalid_row")
        return found

    def span_of(self, labels: Mapping[str, Any], where: str) -> tuple[Span, tuple[str, ...]]:
        """Return id, text and labels of a row without its codes, and the names of fields that cannot be kept.

        Raises:
            AudioError: a field that an option names is missing ("invalid_row"), or has no text ("unsupported").
        """
        values = dict(labels)
        for field_name, chosen in (("id", self.key or (KEY_NAME if KEY_NAME in values else None)), ("text", self.text)):
            if chosen is None:
                continue
            if values.get(chosen) is None:
                raise AudioError(f"{where} has no {chosen!r}.", "invalid_row")
            value = values.pop(chosen)
            # Others of that meaning come after it, among the further fields.
            others = {name: values.pop(name) for name in columns_of(tuple(values)).get(field_name, ())}
            values |= {field_name: value, **{f"other_{name}": other for name, other in others.items()}}
        return described_by(values, where)


@dataclass(frozen=True)
class ForeignRow:
    """A row of codes, not checked yet.

    Attributes:
        place: of the row in its file; "" for the whole file.
        key: names the row; None if the file does not.
        codes: integers of any shape, or why the row cannot be used.
        offset: id of the first code in this kind of file, unless an option says another; None for plain codes.
        span: text and labels.
        left_out: names of fields that cannot be kept.
    """

    place: str
    key: str | None
    codes: np.ndarray | AudioError
    offset: int | None = None
    span: Span = WHOLE
    left_out: Sequence[str] = field(default=())
