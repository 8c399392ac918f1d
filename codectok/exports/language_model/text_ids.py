"""Ids of a language model that belong to text, and the place of audio tokens behind them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from codectok.config import load_mapping
from codectok.errors import InputError
from codectok.exports.tokenizer import tokenizer_errors
from codectok.tokens.layouts.layout import TokenLayout
from codectok.tokens.vocabulary import Vocabulary

from .folder import ModelFolder
from .vocabulary import CONFIG_FILE

Offset = int | Literal["tokens"]
BEHIND_TOKENS: Literal["tokens"] = "tokens"
GENERATION_FILE, TEXT_SECTION = "generation_config.json", "text_config"
# Such as pad_token_id, image_token_index and forced_token_ids.
ID_KEY = re.compile(r"(^|_)token_(id|ids|index)$")


@dataclass(frozen=True)
class TextIds:
    """Ids of a language model before it gets audio tokens.

    Attributes:
        folder: folder of the model.
        rows: rows of the embedding.
        tokens: ids of the tokenizer's tokens; None without a tokenizer.
        named: ids in the configuration, such as that of padding, by file and key.
    """

    folder: Path
    rows: int
    tokens: frozenset[int] | None
    named: Mapping[str, frozenset[int]]

    @classmethod
    def of(cls, model: ModelFolder, tokenizer: Any | None) -> TextIds:
        """Collect the ids of a model and of its tokenizer, if it has one.

        Raises:
            InputError: no token of the tokenizer has a row.
        """
        rows = model.vocabulary.rows
        named = {f"{CONFIG_FILE} ({key})": ids for key, ids in _named_ids(model.config)}
        if (model.path / GENERATION_FILE).is_file():
            found = _named_ids(load_mapping(model.path / GENERATION_FILE))
            named |= {f"{GENERATION_FILE} ({key})": ids for key, ids in found}
        if tokenizer is None:
            return cls(model.path, rows, None, named)
        with tokenizer_errors(f"The tokenizer in {model.path} cannot be used"):
            tokens = frozenset(tokenizer.get_vocab().values())
        if not any(0 <= token_id < rows for token_id in tokens):
            raise InputError(f"The tokenizer in {model.path} has no token within the {rows} rows of the embedding.")
        return cls(model.path, rows, tokens, named)

    @property
    def end(self) -> int:
        """First id behind all tokens; without a tokenizer, and so without knowledge of padding, behind all rows."""
        if self.tokens is None:
            return self.rows
        named = (token_id for ids in self.named.values() for token_id in ids if token_id < self.rows)
        return 1 + max(max(self.tokens), max(named, default=-1))

    @property
    def has_token(self) -> Tensor | None:
        """Mask bool [rows] of rows with a token; None without a tokenizer."""
        if self.tokens is None:
            return None
        mask = torch.zeros(self.rows, dtype=torch.bool)
        mask[[token_id for token_id in self.tokens if token_id < self.rows]] = True
        return mask

    def offset(self, wanted: Offset | None, layout: TokenLayout) -> int:
        """Return the id of the first code.

        Args:
            wanted: an id; "tokens" for the first possible one; None for the first one behind the embedding's rows.
            layout: how codes are written; it may decide the id.

        Raises:
            InputError: an audio token would have the id of a text token, or of a row that may belong to one.
        """
        before = layout.n_before
        if layout.first_id is not None:
            if layout.first_id < self.end + before:
                raise InputError(
                    f"The layout {layout.name} has its tokens from {layout.first_id - before} on, within"
                    f" {self._text}; choose another --layout."
                )
            if wanted not in (None, layout.first_id):
                raise InputError(f"The layout {layout.name} decides the id of the first code; leave --offset out.")
            return layout.first_id
        if wanted is None:
            if self.end > self.rows:
                raise InputError(
                    f"The tokenizer in {self.folder} has tokens up to id {self.end - 1}, but the embedding has"
                    f" {self.rows} rows; pass --offset tokens."
                )
            return self.rows + before
        if wanted == BEHIND_TOKENS:
            if self.tokens is None:
                raise InputError(f"{self.folder} holds no tokenizer, so that its padding is unknown; give an id.")
            return self.end + before
        if wanted < self.end:
            least = self.end + before
            raise InputError(f"The offset {wanted} lies within {self._text}; leave it out, or give {least} or more.")
        if wanted < self.end + before:
            raise InputError(
                f"The offset {wanted} leaves no ids for the {before} special tokens of the layout {layout.name} behind"
                f" {self._text}; leave it out, or give {self.end + before} or more."
            )
        return wanted

    def check_named_ids(self, vocabulary: Vocabulary) -> None:
        """Raise `InputError` if the configuration names the id of an audio token, for example as that of padding."""
        for place, ids in self.named.items():
            taken = [token_id for token_id in ids if vocabulary.first <= token_id < vocabulary.end]
            if taken:
                raise InputError(
                    f"{self.folder}: {place} names the id {taken[0]}, which would be that of the audio token"
                    f" {vocabulary.token(taken[0])}; correct it, or choose another --offset."
                )

    @property
    def _text(self) -> str:
        if self.tokens is None:
            return f"the {self.rows} rows of the embedding of {self.folder}"
        return f"the ids that {self.folder} uses for text, up to {self.end - 1}"


def _named_ids(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, frozenset[int]]]:
    """Yield the ids in a configuration by key; those of other models in it, such as an image encoder, do not count."""
    for key, value in config.items():
        if key == TEXT_SECTION and isinstance(value, Mapping):
            yield from _named_ids(value, f"{key}.")
        elif ID_KEY.search(key):
            values = value if isinstance(value, list) else [value]
            ids = frozenset(item for item in values if isinstance(item, int) and not isinstance(item, bool))
            if ids:
                yield f"{prefix}{key}", ids
