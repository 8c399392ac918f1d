"""Templates of documents: items in their order."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from codectok.config import StrictModel

END_OF_SEQUENCE = "eos"
FIELDS = ("text", "language", "speaker", "category", "id", "source", "dataset")
EXTRA = "extra."  # before the name of a further label
_FIELD = re.compile(r"\{(extra\.[^{}]+|\w*)\}")


class TextItem(StrictModel):
    """Text with fields of the row in braces, as in "Say in {language}: {text}"."""

    text: str

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields in braces."""
        return tuple(self._parts[1::2])

    def fill(self, values: Mapping[str, Any]) -> str:
        """Replace each field by its value; `values` holds a string for every field."""
        return "".join([values[part] if number % 2 else part for number, part in enumerate(self._parts)])

    @cached_property
    def _parts(self) -> list[str]:
        """Fixed texts, and names of fields between them."""
        return _FIELD.split(self.text)


class TokenItem(StrictModel):
    """One token, given by its string; `eos` stands for the token that ends a sequence."""

    token: str


class CodesItem(StrictModel):
    """Codes of the row, or of a voice to imitate."""

    codes: Literal["row", "voice"]


def _kind_of(item: Any) -> str | None:
    if isinstance(item, StrictModel):
        item = item.model_dump()
    keys = list(item) if isinstance(item, dict) else []
    return keys[0] if len(keys) == 1 and keys[0] in ("text", "token", "codes") else None


TemplateItem = Annotated[
    Annotated[TextItem, Tag("text")] | Annotated[TokenItem, Tag("token")] | Annotated[CodesItem, Tag("codes")],
    Discriminator(_kind_of),
]


class DocumentTemplate(StrictModel):
    """Base of templates: items of documents, in the order in which a document may hold them."""

    document: Literal["row", "recording"] = "row"

    @property
    @abstractmethod
    def items(self) -> tuple[TemplateItem, ...]:
        """All items, in order."""

    @property
    def has_text(self) -> bool:
        """True if the template needs a text tokenizer."""
        return any(isinstance(item, TextItem) for item in self.items)

    @property
    def extra_names(self) -> tuple[str, ...]:
        """Names of the further labels in the template's text."""
        fields = [field for item in self.items if isinstance(item, TextItem) for field in item.fields]
        return tuple(dict.fromkeys(field.removeprefix(EXTRA) for field in fields if field.startswith(EXTRA)))

    @property
    def n_tokens(self) -> int:
        """Number of single tokens in a document of one row."""
        return sum(isinstance(item, TokenItem) for item in self.items)

    @property
    def has_codes(self) -> bool:
        """True if documents hold audio."""
        return any(isinstance(item, CodesItem) for item in self.items)

    @property
    def has_voice(self) -> bool:
        """True if the template needs a voice to imitate."""
        return CodesItem(codes="voice") in self.items


class Template(DocumentTemplate):
    """Items of a document: `begin`, then `row` and `answer` once per row, then `end`.

    Attributes:
        document: "row": each row is a document; "recording": all rows of a recording, in order, are one document.
        begin: items before the first row.
        row: first items of each row, which a language model is given.
        answer: further items of each row, which a language model learns to answer.
        end: items behind the last row, without codes; truncated documents keep them.
    """

    begin: tuple[TemplateItem, ...] = ()
    row: tuple[TemplateItem, ...] = ()
    answer: tuple[TemplateItem, ...] = ()
    end: tuple[TemplateItem, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.of_row:
            raise ValueError("row and answer are empty")
        return self

    @property
    def of_row(self) -> tuple[TemplateItem, ...]:
        """Items of each row, in order."""
        return (*self.row, *self.answer)

    @property
    def items(self) -> tuple[TemplateItem, ...]:
        """All items, in order."""
        return (*self.begin, *self.of_row, *self.end)

    @property
    def without_answer(self) -> Template:
        """The template of the same documents whose items of a row are all in `row`."""
        return self.model_copy(update={"row": self.of_row, "answer": ()})

    def with_switch(self, token: str) -> Template:
        """Return the template with a single token between audio and text that follow each other.

        It stands directly before the text, or directly behind it.
        """
        found: list[tuple[str, TemplateItem]] = []
        last: TemplateItem | None = None
        place = 0  # directly behind `last`
        fields = ("begin", "row", "answer", "end")
        for name in fields:
            for item in getattr(self, name):
                if isinstance(item, TextItem | CodesItem):
                    if last is not None and type(item) is not type(last):
                        before = place if isinstance(last, TextItem) else len(found)
                        found.insert(before, (found[before - 1][0], TokenItem(token=token)))
                    last, place = item, len(found) + 1
                found.append((name, item))
        return self.model_copy(update={name: tuple(item for part, item in found if part == name) for name in fields})


Shares = dict[Annotated[str, Field(pattern=r"^[AT]{1,64}$")], Annotated[float, Field(gt=0, allow_inf_nan=False)]]


class PatternTemplate(DocumentTemplate):
    """Rows of a recording, each as its audio (A) or its text (T), by patterns such as ATAT.

    A pattern of n letters takes n rows that follow each other; fewer rows at the end of a recording take its
    beginning. A row that is left alone becomes a document of the template `alone`, with both its audio and its text.

    Attributes:
        patterns: shares of documents by pattern, not normalized.
        begin: items before the first row.
        audio: items of a row as audio.
        text: items of a row as text.
        between_texts: characters between two texts that follow each other.
        to_text, to_audio: items where audio is followed by text, and text by audio.
        end: items behind the last row, without codes; truncated documents keep them.
        alone: template of a row that is left alone.
    """

    document: Literal["recording"] = "recording"
    patterns: Annotated[Shares, Field(min_length=1)]
    begin: tuple[TemplateItem, ...] = ()
    audio: Annotated[tuple[TemplateItem, ...], Field(min_length=1)]
    text: Annotated[tuple[TemplateItem, ...], Field(min_length=1)]
    between_texts: Annotated[str, Field(pattern=r"^[^{}]*$")] = " "
    to_text: tuple[TemplateItem, ...] = ()
    to_audio: tuple[TemplateItem, ...] = ()
    end: tuple[TemplateItem, ...] = ()
    alone: Template

    @property
    def items(self) -> tuple[TemplateItem, ...]:
        """All items, in an order in which a document may hold them."""
        parts = (self.begin, self.audio, self.to_text, self.text, self.to_audio, self.end, self.alone.items)
        return tuple(item for part in parts for item in part)

    def with_switch(self, token: str) -> PatternTemplate:
        """Return the template with a single token where the modality changes, also in a row that is left alone."""
        items = (TokenItem(token=token),)
        alone = self.alone if items[0] in self.alone.items else self.alone.with_switch(token)
        return self.model_copy(update={"to_text": items, "to_audio": items, "alone": alone})
