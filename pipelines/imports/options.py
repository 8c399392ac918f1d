"""Options of `import codes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from codectok.choices import CodeLayout
from codectok.errors import InputError
from codectok.pipelines.engine.planning.reading import reading_options
from codectok.sources.source import check_max_bytes
from codectok.tokens.imports.rows import FieldNames


@dataclass(frozen=True)
class ImportOptions:
    """How codes of other programs are read.

    Attributes:
        codec: folder or name of the codec that made the codes.
        names: of columns or fields.
        offset: id of the first code; None for plain codes, and UniTTS's own in `.audio` files.
        layout: order of the codes of several codebooks, see `codectok.tokens.imports.shapes.CodeForm`.
        part_megabytes: MB of the sources per part file.
        max_file_bytes: largest file or row that is read; None for the usual limits.
    """

    codec: str
    names: FieldNames = field(default_factory=FieldNames)
    offset: int | None = None
    layout: CodeLayout = "auto"
    part_megabytes: float = 64.0
    max_file_bytes: int | None = None

    def __post_init__(self) -> None:
        check_max_bytes(self.max_file_bytes)
        if not 0 < self.part_megabytes < float("inf"):
            raise InputError(f"A part file must have a number of MB above 0, not {self.part_megabytes:g}.")

    def values(self) -> Mapping[str, JsonValue]:
        """Options that decide the rows, without the codec."""
        return {
            "codes_field": self.names.codes,
            "key_field": self.names.key,
            "text_field": self.names.text,
            "offset": self.offset,
            "layout": self.layout,
            "part_megabytes": self.part_megabytes,
            **reading_options(max_file_bytes=self.max_file_bytes),
        }
