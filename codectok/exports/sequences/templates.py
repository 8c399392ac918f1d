"""Templates of documents: small YAML files, some of which come with codectok."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Tag, ValidationError, model_validator

from codectok.config import StrictModel
from codectok.errors import InputError
from codectok.parsing import MAX_YAML_CHARACTERS, parse_yaml

TASKS = ("audio", "tts", "asr", "interleaved")
TEXT_TEMPLATE, VOICE_TEMPLATE = "text", "tts-voice"
END_OF_SEQUENCE = "eos"
FIELDS = ("text", "language", "speaker", "category", "id", "source", "dataset")
EXTRA = "extra."  # before the name of a further label
_FIELD = re.compile(r"\{(extra\.[^{}]+|\w*)\}")


class TextItem(StrictModel):
    """Text with fields of the row in braces, as in "Say in {language}: {text}"."""

    text: str

    @property
    def fields(self) -> list[str]:
        """Names of the fields in braces."""
        return list(_FIELD.findall(self.text))

    def fill(self, values: dict[str, str]) -> str:
        """Return the text with its fields replaced by `values`."""
        return _FIELD.sub(lambda found: values[found[1]], self.text)


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
    def items(self) -> tuple[TemplateItem, ...]:
        """All items, in order."""
        raise NotImplementedError

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


def load_template(name: str | Path) -> Template:
    """Load a template that comes with codectok, by its name, or one from a YAML file.

    Raises:
        InputError: the template does not exist or is not valid.
    """
    own = resources.files(__package__) / "templates" / f"{name}.yaml"
    if own.is_file():
        return _parse(own.read_text(encoding="utf-8"), str(name))
    path = Path(name)
    if not path.is_file():
        names = ", ".join((*TASKS, TEXT_TEMPLATE, VOICE_TEMPLATE))
        raise InputError(f"There is no template {name}; give a YAML file, or one of {names}.")
    try:
        with path.open(encoding="utf-8") as file:
            return _parse(file.read(MAX_YAML_CHARACTERS + 1), str(path))
    except UnicodeDecodeError:
        raise InputError(f"The template {name} is not UTF-8 text.") from None


def _parse(text: str, name: str) -> Template:
    try:
        template = Template.model_validate(parse_yaml(text, f"The template {name}"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        where = where or ("row" if first["type"] == "value_error" else "its top")
        raise InputError(
            f"The template {name} cannot be understood at {where}: give lists of `text: ...`, `token: ...`,"
            " `codes: row` or `codes: voice` under begin, row, answer and end."
        ) from None
    for item in template.items:
        fields = item.fields if isinstance(item, TextItem) else []
        unknown = [field for field in fields if field not in FIELDS and not field.startswith(EXTRA)]
        if unknown:
            known = f"{', '.join(FIELDS)} and {EXTRA}NAME"
            raise InputError(f"The template {name} has a field {{{unknown[0]}}}; choose from {known}.")
    if CodesItem(codes="row") in (*template.begin, *template.end):
        raise InputError(f"The template {name} has `codes: row` outside `row` and `answer`; move it there.")
    if any(isinstance(item, CodesItem) for item in template.end):
        # Truncation keeps the end whole.
        raise InputError(f"The template {name} has codes under `end`; put them under `begin`, `row` or `answer`.")
    return template
