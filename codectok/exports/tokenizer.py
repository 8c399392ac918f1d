"""Loads tokenizers of `transformers`, and extends them with audio tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

from codectok.errors import CodectokError, InputError, shortened
from codectok.tokens.layouts.layout import is_private_use
from codectok.tokens.layouts.loading import default_layout
from codectok.tokens.layouts.record import LAYOUT_FILE, LayoutRecord, read_layout_record
from codectok.tokens.vocabulary import Vocabulary

from .optional import need_transformers

# Far more than rows that models have without a token; each of them becomes a token.
MAX_UNUSED_TOKENS = 1 << 20
# Far more than any vocabulary has.
MAX_TOKEN_ID = 1 << 26


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer in `folder`; nothing is downloaded.

    Raises:
        InputError: the folder holds no tokenizer, or transformers is not installed.
    """
    transformers = need_transformers()
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give the folder of a tokenizer.")
    with tokenizer_errors(f"{folder} holds no tokenizer that transformers can load"):
        _check_ids(folder)
        return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def _check_ids(folder: Path) -> None:
    """Raise an `InputError` if an id is absurd: the tokenizers library allocates memory for all ids below it."""
    for name in ("tokenizer.json", "vocab.json", "added_tokens.json"):
        path = folder / name
        if not path.is_file():
            continue
        ids = _ids_in(json.loads(path.read_bytes()))
        largest = max((value for value in ids if isinstance(value, int)), default=0)
        if largest > MAX_TOKEN_ID:
            raise InputError(f"{path} has a token of the id {largest}; the largest possible is {MAX_TOKEN_ID:,}.")


def _ids_in(data: object) -> Iterator[object]:
    """Yield all values at the places of ids in a file of a tokenizer."""
    if not isinstance(data, dict):
        return
    model, added = data.get("model"), data.get("added_tokens")
    for table in (data, model.get("vocab") if isinstance(model, dict) else None):
        if isinstance(table, dict):
            yield from table.values()
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict):
            yield token.get("id")


@contextmanager
def tokenizer_errors(what: str) -> Iterator[None]:
    """Report errors of the tokenizers library as an `InputError` that begins with `what`.

    It raises plain Exception, and for some damaged files the panics of Rust, which are no Exception.
    """
    try:
        yield
    except CodectokError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{what}: {shortened(error)}.") from None


def has_tokenizer(folder: Path) -> bool:
    """Return True if `folder` holds files of a tokenizer."""
    names = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
    return any((folder / name).is_file() for name in names)


def extend_tokenizer(folder: Path, output: Path, vocabulary: Vocabulary, tokenizer: Any = None) -> int:
    """Write the tokenizer of `folder` to `output`, extended with the tokens of `vocabulary` at their ids.

    Ids between its last token and the first audio token become `<|unused0|>`, `<|unused1|>` and so on, so that tokens
    added later get ids behind those of audio.

    Args:
        tokenizer: that of `folder`, if it is loaded already; it is changed.

    Returns:
        The number of unused tokens.

    Raises:
        InputError: the tokenizer has tokens at or behind the first audio token's id, or has audio tokens already.
    """
    tokenizer = load_tokenizer(folder) if tokenizer is None else tokenizer
    with tokenizer_errors(f"The tokenizer in {folder} cannot be extended"):
        return _extend(tokenizer, folder, output, vocabulary)


def _extend(tokenizer: Any, folder: Path, output: Path, vocabulary: Vocabulary) -> int:
    from tokenizers import AddedToken

    known: dict[str, int] = tokenizer.get_vocab()
    wanted, special = list(vocabulary.tokens()), vocabulary.special_tokens
    # At any offset: strings of old codes cannot be distinguished from strings of new ones.
    layouts = (vocabulary.layout, default_layout())
    old = (token for token in known if any(layout.is_code_token(token) for layout in layouts))
    taken = next((token for token in (*special, *old) if token in known), None)
    if taken is not None and len(taken) == 1 and not is_private_use(taken):
        raise InputError(
            f"{folder} has the token {taken}, a character of texts that the layout {vocabulary.layout.name} uses for a"
            " code; describe a layout with first_character: 0xF0000 in a file, and pass it as --layout."
        )
    if taken is not None:
        raise InputError(f"{folder} already has the token {taken}; give a tokenizer without audio tokens.")
    record = read_layout_record(folder)
    if record is not None:
        raise InputError(
            f"{folder} already has tokens of the layout {record.name}; give a tokenizer without audio tokens."
        )
    n_unused = vocabulary.first - max(known.values(), default=-1) - 1
    if n_unused > MAX_UNUSED_TOKENS:
        raise InputError(
            f"{folder} has tokens up to id {max(known.values())}, and the codes would begin {n_unused:,} ids later, at"
            f" {vocabulary.first}; pass --offset with the number of rows of the model's embedding."
        )
    if n_unused < 0:
        raise InputError(
            f"{folder} has tokens up to id {max(known.values())}, but the codes would begin at {vocabulary.first};"
            f" {_remedy(vocabulary)}."
        )
    names = (f"<|unused{number}|>" for number in count())
    unused = list(islice((name for name in names if name not in known and name not in special), n_unused))
    before = vocabulary.layout.n_before
    codes = wanted[before : before + vocabulary.n_codes]
    groups = (
        [(unused, False), (special, True), (codes, False)] if before else [((*unused, *codes), False), (special, True)]
    )
    for tokens, are_special in groups:
        if are_special and tokens:
            # Keep the tokenizer's special tokens, such as the marks of a conversation's turns.
            added = {"additional_special_tokens": list(tokens)}
            tokenizer.add_special_tokens(added, replace_extra_special_tokens=False)
        elif tokens:
            tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    if tokenizer.convert_tokens_to_ids(wanted) != list(range(vocabulary.first, vocabulary.end)):
        raise InputError(f"The tokenizer in {folder} cannot be extended: it does not number new tokens consecutively.")
    tokenizer.save_pretrained(output)
    if vocabulary.layout != default_layout():
        record = LayoutRecord.of(vocabulary.layout)
        (output / LAYOUT_FILE).write_text(record.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
    return n_unused


def _remedy(vocabulary: Vocabulary) -> str:
    """Return advice for a tokenizer that has tokens at the ids of codes."""
    if vocabulary.layout.first_id is not None:
        return f"the layout {vocabulary.layout.name} decides that id, so choose another --layout"
    return "pass --offset with the number of rows of the model's embedding"


def check_same_tokens(folder: Path, special_tokens: Mapping[str, int], rows: int, model: Path) -> None:
    """Check that the tokenizer in `folder` fits an extended language model.

    Args:
        special_tokens: ids of the model's special tokens around codes.
        rows: rows of the model's embedding.
        model: folder of the model, for messages.

    Raises:
        InputError: the tokenizer has a token without a row, or has special tokens at other ids.
    """
    known: dict[str, int] = load_tokenizer(folder).get_vocab()
    moved = [token for token, token_id in special_tokens.items() if known.get(token, token_id) != token_id]
    if moved:
        raise InputError(
            f"The tokenizer in {folder} has {moved[0]} at {known[moved[0]]}, but the model in {model} has it at"
            f" {special_tokens[moved[0]]}; give the tokenizer that was extended with the model."
        )
    last = max(known, key=known.__getitem__, default=None)
    if last is not None and known[last] >= rows:
        raise InputError(
            f"The tokenizer in {folder} has the token {last!r} at {known[last]}, but the embedding of {model} has"
            f" {rows} rows; resize the model with resize_token_embeddings, and save it, before you use the token."
        )
