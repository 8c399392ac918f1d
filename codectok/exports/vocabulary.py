"""Writes the vocabulary of a codec's codes to files, for programs that extend tokenizers or models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, Self

from codectok.atomic import replacing_folder
from codectok.config import StrictModel
from codectok.description import CodecDescription
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds
from codectok.names import check_new_folder
from codectok.tokens.layouts.layout import TokenLayout
from codectok.tokens.layouts.record import LayoutRecord
from codectok.tokens.vocabulary import Vocabulary

VOCABULARY_FILE, TOKENS_FILE = "vocabulary.json", "tokens.json"


class VocabularyFile(StrictModel):
    """Contents of `vocabulary.json`; the id of a code is `offset + codebook * codebook_size + code`.

    Attributes:
        codec_name, codec_fingerprint: the codec.
        offset: id of the first code.
        first: first id of codes and special tokens; None in files of earlier versions. Tokens of text have ids below
            it, or from `end` on.
        codebook_size, n_groups, n_residuals: shape of the codec's quantizer.
        end: first id behind codes and special tokens, that is, the embedding rows a language model needs.
        special_tokens: ids by token.
        pad_vocabulary_to_multiple_of: number that divides the rows of a model with the vocabulary; None if any will do.
        layout: how codes are written; None for UniTTS's layout.
    """

    format: Literal["codectok.vocabulary"] = "codectok.vocabulary"
    version: Literal[1] = 1
    codec_name: str
    codec_fingerprint: str
    offset: int
    first: int | None = None
    codebook_size: int
    n_groups: int
    n_residuals: int
    end: int
    special_tokens: dict[str, int]
    pad_vocabulary_to_multiple_of: int | None = None
    layout: LayoutRecord | None = None

    @classmethod
    def of(cls, codec: CodecDescription, vocabulary: Vocabulary, special_tokens: dict[str, int]) -> Self:
        """Describe the vocabulary of a codec, with the ids of its special tokens."""
        before = (token_id for token_id in special_tokens.values() if vocabulary.first <= token_id < vocabulary.offset)
        return cls(
            codec_name=codec.codec_name,
            codec_fingerprint=codec.codec_fingerprint,
            offset=vocabulary.offset,
            first=min((vocabulary.offset, *before)),
            codebook_size=vocabulary.codebook_size,
            n_groups=vocabulary.n_groups,
            n_residuals=vocabulary.n_residuals,
            end=vocabulary.end_with(special_tokens.values()),
            special_tokens=special_tokens,
            layout=LayoutRecord.unless_default(vocabulary.layout),
        )


def write_vocabulary(
    codec: CodecDescription,
    output: Path,
    offset: int,
    tokenizer: TextTokenizer | None = None,
    layout: TokenLayout | None = None,
) -> VocabularyFile:
    """Write the new folder `output` with `vocabulary.json` and `tokens.json` (ids by token).

    Special tokens that `tokenizer` has keep its ids. Strings follow `layout`, by default UniTTS's.

    Raises:
        InputError: `output` is not empty, the tokenizer has other tokens among the ids of codes, or the layout does
            not fit the codec.
    """
    check_new_folder(output)
    vocabulary = Vocabulary.for_codec(codec, offset, layout)
    special = TokenIds.of(vocabulary, tokenizer).special_tokens
    described = VocabularyFile.of(codec, vocabulary, special)
    codes = {vocabulary.token(token_id): token_id for token_id in range(offset, offset + vocabulary.n_codes)}
    with replacing_folder(output) as temporary:
        (temporary / TOKENS_FILE).write_text(json.dumps(codes | special, indent=0) + "\n", encoding="utf-8")
        text = described.model_dump_json(indent=2, exclude_none=True) + "\n"
        (temporary / VOCABULARY_FILE).write_text(text, encoding="utf-8")
    return described
