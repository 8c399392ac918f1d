"""Extends a language model with rows for audio tokens, without loading it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from codectok.atomic import replacing_folder
from codectok.codec import Codec
from codectok.description import CodecDescription
from codectok.errors import InputError
from codectok.exports.tokenizer import extend_tokenizer, has_tokenizer
from codectok.exports.vocabulary import VocabularyFile
from codectok.tokens.vocabulary import SPECIAL_TOKENS, Vocabulary

from .embedding_rows import RowOptions, TextRows, audio_rows, mean_rows
from .folder import INDEX_FILE, ModelFolder, VocabularyTensor, dump_json
from .safetensors_file import NewRows, copy_with_rows
from .vocabulary import AUDIO_KEY, CONFIG_FILE

# Copied unchanged; other files beside a model (code, other formats of the weights) are not copied.
KEPT_FILES = ("generation_config.json", "LICENSE*", "NOTICE*")


@dataclass(frozen=True)
class ExtendedModel:
    """Result of extending a language model.

    Attributes:
        vocabulary: of the audio tokens.
        text_rows: rows of the embedding before.
        rows: rows of the embedding now.
        extended: names of the tensors with new rows.
        options: how the rows of codes were initialized.
        unused_tokens: number of tokens added to the tokenizer before the audio tokens; None without a tokenizer.
    """

    vocabulary: Vocabulary
    text_rows: int
    rows: int
    extended: list[str]
    options: RowOptions
    unused_tokens: int | None


def extend_language_model(
    source: Path,
    output: Path,
    codec: Codec,
    offset: int | None = None,
    options: RowOptions | None = None,
    on_file: Callable[[], None] = lambda: None,
) -> ExtendedModel:
    """Write the causal language model in `source` to the new folder `output`, with rows for a codec's tokens.

    Rows of codes are initialized by `options`; rows of special tokens, and of ids between the embedding and `offset`,
    are the mean of the text rows. Weight files are copied one by one and new rows are made in blocks, so that memory
    does not grow with the model.

    Args:
        source: folder with `config.json` and safetensors.
        output: folder, new or empty; it appears when it is complete.
        codec: codec whose codes the model learns.
        offset: id of the first code; by default the number of rows of the model's embedding.
        options: how rows of codes are initialized.
        on_file: called after each weight file.

    Raises:
        InputError: `source` is not a model that can be extended, `output` is not empty, or `options` do not fit.
    """
    folder = ModelFolder(source)
    if folder.vocabulary.audio is not None:
        raise InputError(
            f"The model in {source} already has the tokens of a codec ({folder.vocabulary.audio.codec_name}, from"
            f" {folder.vocabulary.offset} on); give the model without audio tokens."
        )
    text_rows = folder.vocabulary.rows
    offset = text_rows if offset is None else offset
    if offset < text_rows:
        raise InputError(
            f"The offset {offset} lies within the {text_rows} rows of the embedding of {source}; leave it out, or give"
            " a larger one."
        )
    vocabulary = Vocabulary.for_codec(codec.describe(), offset)
    tensors = folder.vocabulary_tensors(vocabulary.end)
    options = options or RowOptions()
    with replacing_folder(output) as temporary:
        unused = extend_tokenizer(source, temporary, vocabulary) if has_tokenizer(source) else None
        for file in folder.files:
            own = [tensor for tensor in tensors if tensor.stored.file == file]
            _write_weights(file, own, codec.codebooks.cpu(), vocabulary, options, temporary)
            on_file()
        _write_index(folder, tensors, vocabulary, temporary)
        _write_config(folder, codec.describe(), vocabulary, temporary)
        for pattern in KEPT_FILES:
            for path in filter(Path.is_file, source.glob(pattern)):
                shutil.copyfile(path, temporary / path.name)
    width = next(tensor.stored.shape[1] for tensor in tensors if len(tensor.stored.shape) == 2)
    return ExtendedModel(
        vocabulary=vocabulary,
        text_rows=text_rows,
        rows=vocabulary.end,
        extended=[tensor.stored.name for tensor in tensors],
        options=options.resolved(codec.codebooks.shape[2], width),
        unused_tokens=unused,
    )


def _write_weights(
    file: Path,
    tensors: list[VocabularyTensor],
    codebooks: Tensor,
    vocabulary: Vocabulary,
    options: RowOptions,
    output: Path,
) -> None:
    """Copy a weight file to the folder `output`, with new rows for `tensors`."""
    if tensors:
        rows = {tensor.stored.name: _new_rows(tensor, codebooks, vocabulary, options) for tensor in tensors}
        copy_with_rows(file, output / file.name, rows)
    else:
        shutil.copyfile(file, output / file.name)


def _new_rows(tensor: VocabularyTensor, codebooks: Tensor, vocabulary: Vocabulary, options: RowOptions) -> NewRows:
    """Return the rows to append to a stored embedding, output or bias."""
    stored = tensor.stored
    text = TextRows.of(stored)
    count = vocabulary.end - stored.shape[0]
    if len(stored.shape) != 2:
        return NewRows(count, mean_rows(text, count))

    def blocks() -> Iterator[Tensor]:
        first = vocabulary.offset - stored.shape[0]
        yield from mean_rows(text, first)
        yield from audio_rows(codebooks, text, options, tensor.role)
        yield from mean_rows(text, count - first - vocabulary.n_codes)

    return NewRows(count, blocks())


def _write_index(folder: ModelFolder, tensors: list[VocabularyTensor], vocabulary: Vocabulary, output: Path) -> None:
    if folder.index is None:
        return
    index = dict(folder.index)
    totals = dict(index.get("metadata") or {})
    for tensor in (tensor.stored for tensor in tensors):
        added = vocabulary.end - tensor.shape[0]
        if "total_size" in totals:
            totals["total_size"] += added * tensor.row_bytes
        if "total_parameters" in totals:
            totals["total_parameters"] += added * math.prod(tensor.shape[1:])
    index["metadata"] = totals
    (output / INDEX_FILE).write_text(dump_json(index), encoding="utf-8")


def _write_config(folder: ModelFolder, codec: CodecDescription, vocabulary: Vocabulary, output: Path) -> None:
    config = folder.config_with(vocabulary.end)
    special = {token: vocabulary.id_of(token) for token in SPECIAL_TOKENS}
    config[AUDIO_KEY] = VocabularyFile.of(codec, vocabulary, special).model_dump()
    (output / CONFIG_FILE).write_text(dump_json(config), encoding="utf-8")
