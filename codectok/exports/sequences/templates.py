"""How a document for a language model is put together: small YAML files, some of which come with codectok."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Discriminator, Field, Tag, ValidationError

from codectok.config import StrictModel
from codectok.errors import InputError, first_line

Task = Literal["audio", "tts", "asr", "interleaved"]
TASKS: tuple[Task, ...] = get_args(Task)
TEXT_TEMPLATE, VOICE_TEMPLATE = "text", "tts-voice"
END_OF_SEQUENCE = "eos"
FIELDS = ("text", "language", "speaker", "category", "id", "source", "dataset")
_FIELD = re.compile(r"\{(\w*)\}")


class TextPiece(StrictModel):
    """Text, with fields of the row in braces, as in "Say in {language}: {text}"."""

    text: str

    @property
    def fields(self) -> list[str]:
        """Names in braces."""
        return _FIELD.findall(self.text)

    def fill(self, values: dict[str, str]) -> str:
        """The text with `values` of its fields."""
        return _FIELD.sub(lambda found: values[found[1]], self.text)


class TokenPiece(StrictModel):
    """One token by its string; `eos` is the one that ends a sequence."""

    token: str


class CodesPiece(StrictModel):
    """Codes: those of the row, or of a voice to imitate."""

    codes: Literal["row", "voice"]


def _kind_of(piece: Any) -> str | None:
    if isinstance(piece, StrictModel):
        piece = piece.model_dump()
    keys = list(piece) if isinstance(piece, dict) else []
    return keys[0] if len(keys) == 1 and keys[0] in ("text", "token", "codes") else None


Piece = Annotated[
    Annotated[TextPiece, Tag("text")] | Annotated[TokenPiece, Tag("token")] | Annotated[CodesPiece, Tag("codes")],
    Discriminator(_kind_of),
]


class Template(StrictModel):
    """What a document consists of: `begin`, then `row` for each row in it, then `end`.

    Attributes:
        document: "row": each row is a document; "recording": all rows of one recording are, in their order.
    """

    document: Literal["row", "recording"] = "row"
    begin: tuple[Piece, ...] = ()
    row: Annotated[tuple[Piece, ...], Field(min_length=1)]
    end: tuple[Piece, ...] = ()

    @property
    def pieces(self) -> tuple[TextPiece | TokenPiece | CodesPiece, ...]:
        """All of them."""
        return (*self.begin, *self.row, *self.end)

    @property
    def has_text(self) -> bool:
        """Whether a tokenizer of text is needed."""
        return any(isinstance(piece, TextPiece) for piece in self.pieces)

    @property
    def n_tokens(self) -> int:
        """How many single tokens a document of one row has."""
        return sum(isinstance(piece, TokenPiece) for piece in self.pieces)

    @property
    def has_codes(self) -> bool:
        """Whether there is audio in it."""
        return any(isinstance(piece, CodesPiece) for piece in self.pieces)

    @property
    def has_voice(self) -> bool:
        """Whether a voice is needed."""
        return CodesPiece(codes="voice") in self.pieces


def load_template(name: str | Path) -> Template:
    """The template of that name among those of codectok, or in a YAML file.

    Raises:
        InputError: there is none, or it is not of the form of `Template`.
    """
    own = resources.files(__package__) / "templates" / f"{name}.yaml"
    if own.is_file():
        return _parse(own.read_text(encoding="utf-8"), str(name))
    path = Path(name)
    if not path.is_file():
        names = ", ".join((*TASKS, TEXT_TEMPLATE, VOICE_TEMPLATE))
        raise InputError(f"There is no template {name}; give a YAML file, or one of {names}.")
    try:
        return _parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise InputError(f"The template {name} is no text.") from None


def _parse(text: str, name: str) -> Template:
    try:
        template = Template.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InputError(f"The template {name} is no YAML: {first_line(error)}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its top"
        raise InputError(
            f"The template {name} cannot be understood at {where}: a piece is `text: ...`, `token: ...`,"
            " `codes: row` or `codes: voice`, and lists of them stand under begin, row and end."
        ) from None
    for piece in template.pieces:
        unknown = [field for field in piece.fields if field not in FIELDS] if isinstance(piece, TextPiece) else []
        if unknown:
            raise InputError(f"The template {name} has a field {{{unknown[0]}}}; there are {', '.join(FIELDS)}.")
    if CodesPiece(codes="row") in (*template.begin, *template.end):
        raise InputError(f"The template {name} has the codes of a row outside `row`.")
    if any(isinstance(piece, CodesPiece) for piece in template.end):
        # Whatever is cut, its end is kept as it is.
        raise InputError(f"The template {name} has codes under `end`; put them under `begin` or `row`.")
    return template
