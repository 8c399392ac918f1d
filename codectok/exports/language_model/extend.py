"""Extends a language model with rows for audio tokens, without loading it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from codectok.atomic import replacing_folder
from codectok.codecs.base import AudioCodec
from codectok.description import CodecDescription
from codectok.errors import InputError
from codectok.exports.tokenizer import extend_tokenizer, has_tokenizer, load_tokenizer
from codectok.exports.vocabulary import VocabularyFile
from codectok.tokens.layouts.layout import TokenLayout
from codectok.tokens.layouts.loading import default_layout
from codectok.tokens.vocabulary import Vocabulary

from .embedding_rows import RowOptions, TextRows, audio_rows, mean_rows
from .folder import INDEX_FILE, ModelFolder, VocabularyTensor, dump_json
from .safetensors_file import NewRows, copy_with_rows
from .text_ids import Offset, TextIds
from .vocabulary import AUDIO_KEY, CONFIG_FILE

# Copied unchanged; other files beside a model (code, other formats of the weights) are not copied.
KEPT_FILES = ("generation_config.json", "LICENSE*", "NOTICE*")


@dataclass(frozen=True)
class ExtendedModel:
    """Result of extending a language model.

    Attributes:
        vocabulary: of the audio tokens.
        text_rows: rows of the embedding before.
        rows: rows of the embedding now, with padding.
        reused_rows: rows of the former padding that have an audio token now.
        extended: names of the tensors with new rows.
        options: how the rows of codes were initialized.
        unused_tokens: number of tokens added to the tokenizer before the audio tokens; None without a tokenizer.
    """

    vocabulary: Vocabulary
    text_rows: int
    rows: int
    reused_rows: int
    extended: list[str]
    options: RowOptions
    unused_tokens: int | None


def extend_language_model(
    source: Path,
    output: Path,
    codec: AudioCodec,
    offset: Offset | None = None,
    options: RowOptions | None = None,
    on_file: Callable[[], None] = lambda: None,
    pad_to_multiple_of: int = 1,
    layout: TokenLayout | None = None,
) -> ExtendedModel:
    """Write the causal language model in `source` to the new folder `output`, with rows for a codec's tokens.

    Rows before the first audio token stay as they are, also rows of padding. Rows of codes are initialized by
    `options`; rows of special tokens, of ids between the embedding and `offset`, and of padding are the mean of the
    text rows. Weight files are copied one by one and new rows are made in blocks, so that memory does not grow with
    the model.

    Args:
        source: folder with `config.json` and safetensors.
        output: folder, new or empty; it appears when it is complete.
        codec: codec whose codes the model learns.
        offset: id of the first code; by default the number of rows of the model's embedding. "tokens" lets the codes
            begin directly behind the tokens of the tokenizer, in rows of padding.
        options: how rows of codes are initialized.
        on_file: called after each weight file.
        pad_to_multiple_of: rows without a token follow the last one, up to a multiple of this number.
        layout: how codes are written; by default as in UniTTS.

    Raises:
        InputError: `source` is not a model that can be extended, `output` is not empty, or `options` or `layout` do
            not fit.
    """
    if pad_to_multiple_of < 1:
        raise InputError(f"The vocabulary can be padded to a multiple of 1 or more, not of {pad_to_multiple_of}.")
    folder = _text_model(source)
    layout = layout or default_layout()
    tokenizer = load_tokenizer(source) if has_tokenizer(source) else None
    text = TextIds.of(folder, tokenizer)
    vocabulary = Vocabulary.for_codec(codec.describe(), text.offset(offset, layout), layout)
    text.check_named_ids(vocabulary)
    rows = -(-max(text.rows, vocabulary.end) // pad_to_multiple_of) * pad_to_multiple_of
    tensors = folder.vocabulary_tensors()
    options = options or RowOptions()
    with replacing_folder(output) as temporary:
        unused = None if tokenizer is None else extend_tokenizer(source, temporary, vocabulary, tokenizer)
        for file in folder.files:
            own = [tensor for tensor in tensors if tensor.stored.file == file]
            new = {
                tensor.stored.name: _new_rows(tensor, rows, codec.codebooks.cpu(), vocabulary, text, options)
                for tensor in own
            }
            _write_weights(file, new, temporary)
            on_file()
        _write_index(folder, tensors, rows, temporary)
        _write_config(folder, codec.describe(), vocabulary, rows, pad_to_multiple_of, temporary)
        for pattern in KEPT_FILES:
            for path in filter(Path.is_file, source.glob(pattern)):
                shutil.copyfile(path, temporary / path.name)
    width = next(tensor.stored.shape[1] for tensor in tensors if len(tensor.stored.shape) == 2)
    return ExtendedModel(
        vocabulary=vocabulary,
        text_rows=text.rows,
        rows=rows,
        reused_rows=max(0, min(text.rows, vocabulary.end) - vocabulary.first),
        extended=[tensor.stored.name for tensor in tensors],
        options=options.resolved(codec.codebooks.shape[2], width),
        unused_tokens=unused,
    )


def _text_model(source: Path) -> ModelFolder:
    folder = ModelFolder(source)
    if folder.vocabulary.audio is not None:
        raise InputError(
            f"The model in {source} already has the tokens of a codec ({folder.vocabulary.audio.codec_name}, from"
            f" {folder.vocabulary.offset} on); give the model without audio tokens."
        )
    return folder


def _write_weights(file: Path, rows: Mapping[str, NewRows], output: Path) -> None:
    """Copy a weight file to the folder `output`, with new rows for the tensors in `rows`."""
    if rows:
        copy_with_rows(file, output / file.name, rows)
    else:
        shutil.copyfile(file, output / file.name)


def _new_rows(
    tensor: VocabularyTensor,
    rows: int,
    codebooks: Tensor,
    vocabulary: Vocabulary,
    text: TextIds,
    options: RowOptions,
) -> NewRows:
    """Return the new rows at the end of a stored embedding, output or bias, so that it has `rows` rows."""
    stored = tensor.stored
    text_rows = TextRows.of(stored, text.has_token)
    first = min(stored.shape[0], vocabulary.first)
    if len(stored.shape) != 2:
        return NewRows(first, rows - first, mean_rows(text_rows, rows - first))

    def blocks() -> Iterator[Tensor]:
        yield from mean_rows(text_rows, vocabulary.offset - first)
        yield from audio_rows(codebooks, text_rows, options, tensor.role, vocabulary.stride)
        yield from mean_rows(text_rows, rows - vocabulary.offset - vocabulary.n_codes)

    return NewRows(first, rows - first, blocks())


def _write_index(folder: ModelFolder, tensors: list[VocabularyTensor], rows: int, output: Path) -> None:
    if folder.index is None:
        return
    index = dict(folder.index)
    totals = dict(index.get("metadata") or {})
    for tensor in (tensor.stored for tensor in tensors):
        added = rows - tensor.shape[0]
        if "total_size" in totals:
            totals["total_size"] += added * tensor.row_bytes
        if "total_parameters" in totals:
            totals["total_parameters"] += added * math.prod(tensor.shape[1:])
    index["metadata"] = totals
    (output / INDEX_FILE).write_text(dump_json(index), encoding="utf-8")


def _write_config(
    folder: ModelFolder, codec: CodecDescription, vocabulary: Vocabulary, rows: int, multiple: int, output: Path
) -> None:
    config = folder.config_with(rows)
    special = {token: vocabulary.id_of(token) for token in vocabulary.special_tokens}
    described = VocabularyFile.of(codec, vocabulary, special)
    if multiple > 1:
        described = described.model_copy(update={"pad_vocabulary_to_multiple_of": multiple})
    config[AUDIO_KEY] = described.model_dump(exclude_none=True)
    (output / CONFIG_FILE).write_text(dump_json(config), encoding="utf-8")
