"""A language model with rows for audio tokens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..atomic import replacing_folder
from ..codec import Codec
from ..errors import InputError
from ..tokens.vocabulary import SPECIAL_TOKENS, Vocabulary
from .audio_rows import RowOptions, TextRows, audio_rows
from .model_folder import CONFIG_FILE, INDEX_FILE, ModelFolder, dump_json
from .safetensors_file import StoredTensor, copy_with_rows
from .tokenizer import extend_tokenizer, has_tokenizer
from .vocabulary import VocabularyFile, embedding_rows

# Kept as they are; what else lies beside a model (code, other formats of the weights) is left behind.
KEPT_FILES = ("generation_config.json", "LICENSE*", "NOTICE*")
CONFIG_KEY = "codectok"


@dataclass(frozen=True)
class ExtendedModel:
    """What was written.

    Attributes:
        vocabulary: of the audio tokens.
        text_rows: of the embedding as it was.
        rows: of the embedding as it is.
        extended: names of the tensors with new rows.
        options: how the rows of codes began.
        unused_tokens: added to the tokenizer before the audio tokens; None where the model has no tokenizer.
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

    Rows of codes begin as `options` say, those of special tokens (and of ids between the embedding and `offset`) as the
    mean of the text rows. Files of weights are copied one by one; memory holds the new rows.

    Args:
        source: folder with `config.json` and safetensors.
        output: a folder, new or empty; it appears when it is complete.
        codec: whose codes the model shall know.
        offset: id of the first code; by default the rows of the model's embedding.
        options: how rows begin.
        on_file: called for each file of weights that is done.

    Raises:
        InputError: no such model, an output that is taken, or rows that cannot start so.
    """
    folder = ModelFolder(source)
    text_rows = embedding_rows(source)
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
        added = 0
        for file in folder.files:
            rows = {
                tensor.name: _new_rows(tensor, codec.codebooks.cpu(), vocabulary, options)
                for tensor in tensors
                if tensor.file == file
            }
            if rows:
                copy_with_rows(file, temporary / file.name, rows)
            else:
                shutil.copyfile(file, temporary / file.name)
            added += sum(new.nbytes for new in rows.values())
            on_file()
        _write_index(folder, tensors, vocabulary, added, temporary)
        for pattern in KEPT_FILES:
            for path in filter(Path.is_file, source.glob(pattern)):
                shutil.copyfile(path, temporary / path.name)
        config = folder.config_with(vocabulary.end)
        special = {token: vocabulary.id_of(token) for token in SPECIAL_TOKENS}
        config[CONFIG_KEY] = VocabularyFile.of(codec.describe(), vocabulary, special).model_dump()
        (temporary / CONFIG_FILE).write_text(dump_json(config), encoding="utf-8")
    width = next(tensor.shape[1] for tensor in tensors if len(tensor.shape) == 2)
    return ExtendedModel(
        vocabulary=vocabulary,
        text_rows=text_rows,
        rows=vocabulary.end,
        extended=[tensor.name for tensor in tensors],
        options=options.resolved(codec.codebooks.shape[2], width),
        unused_tokens=unused,
    )


def _new_rows(tensor: StoredTensor, codebooks: Tensor, vocabulary: Vocabulary, options: RowOptions) -> Tensor:
    """All rows behind those of a stored embedding, output or bias, in its type."""
    text = TextRows.of(tensor)
    n_new = vocabulary.end - tensor.shape[0]
    # A copy for every row; codes then take the places that are theirs.
    new = text.mean.to(tensor.row_type).expand(n_new, *text.mean.shape).clone()
    if len(tensor.shape) == 2:
        first = vocabulary.offset - tensor.shape[0]
        new[first : first + vocabulary.n_codes] = audio_rows(codebooks, text, options).to(tensor.row_type)
    return new


def _write_index(
    folder: ModelFolder, tensors: list[StoredTensor], vocabulary: Vocabulary, added_bytes: int, output: Path
) -> None:
    if folder.index is None:
        return
    index = dict(folder.index)
    totals = dict(index.get("metadata") or {})
    if "total_size" in totals:
        totals["total_size"] += added_bytes
    if "total_parameters" in totals:
        totals["total_parameters"] += sum(
            (vocabulary.end - tensor.shape[0]) * torch.Size(tensor.shape[1:]).numel() for tensor in tensors
        )
    index["metadata"] = totals
    (output / INDEX_FILE).write_text(dump_json(index), encoding="utf-8")
