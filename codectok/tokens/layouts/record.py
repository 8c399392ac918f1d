"""Record of a layout in the outputs that follow it."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import ValidationError

from codectok.config import StrictModel
from codectok.errors import InputError

from .layout import TokenLayout
from .loading import default_layout

LAYOUT_FILE = "token_layout.json"


class LayoutRecord(StrictModel):
    """Name and hash of a layout, and the layout itself where programs need it.

    Attributes:
        name, sha256: identify the layout.
        definition: the layout; None in files that hold ids alone.
    """

    name: str
    sha256: str
    definition: TokenLayout | None = None

    @classmethod
    def of(cls, layout: TokenLayout, with_definition: bool = True) -> Self:
        """Describe a layout."""
        return cls(name=layout.name, sha256=layout.sha256, definition=layout if with_definition else None)

    @classmethod
    def unless_default(cls, layout: TokenLayout, with_definition: bool = True) -> Self | None:
        """Describe a layout; None for UniTTS's, which outputs do not record."""
        return None if layout == default_layout() else cls.of(layout, with_definition)

    @property
    def label(self) -> str:
        """Name and start of the hash."""
        return f"{self.name} {self.sha256[:12]}"


def check_same_layout(recorded: LayoutRecord | None, layout: TokenLayout, where: str) -> None:
    """Raise `InputError` if `where` has tokens of another layout than `layout`; None stands for UniTTS's."""
    own = recorded or LayoutRecord.of(default_layout(), with_definition=False)
    if own.sha256 != layout.sha256:
        raise InputError(
            f"{where} has audio tokens of the layout {own.label}, not of {layout.label}; pass its layout as --layout."
        )


def read_layout_record(folder: Path) -> LayoutRecord | None:
    """Read the layout beside a tokenizer; None if it has none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / LAYOUT_FILE
    if not path.is_file():
        return None
    try:
        return LayoutRecord.model_validate_json(path.read_bytes())
    except ValidationError:
        raise InputError(f"{path} cannot be understood; export the tokenizer again.") from None
