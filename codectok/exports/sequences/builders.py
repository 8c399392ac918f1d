"""Chooses the builder of a template's documents."""

from __future__ import annotations

from codectok.exports.choices import Loss

from .builder import DocumentBuilder, RowsBuilder
from .items import Voice
from .patterns import PatternBuilder
from .templates import PatternTemplate, Template
from .text_tokenizer import TextTokenizer, TokenIds


def make_builder(
    template: Template | PatternTemplate,
    tokens: TokenIds,
    tokenizer: TextTokenizer | None,
    voice: Voice | None = None,
    loss: Loss | None = None,
    seed: int = 0,
) -> DocumentBuilder:
    """Create the builder of a template; see `DocumentBuilder`, and `PatternBuilder` for the seed.

    Raises:
        InputError: the tokenizer, the voice, the id of a token, or a part to learn is missing.
    """
    if isinstance(template, PatternTemplate):
        return PatternBuilder(template, tokens, tokenizer, loss, seed)
    return RowsBuilder(template, tokens, tokenizer, voice, loss)
