"""A tokenizer folder of `transformers`, and the same with audio tokens."""

from __future__ import annotations

from itertools import count, islice
from pathlib import Path
from typing import Any

from codectok.errors import InputError, first_line
from codectok.tokens.vocabulary import SPECIAL_TOKENS, Vocabulary, is_code_token

from .optional import need_transformers


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`; nothing is downloaded.

    Raises:
        InputError: there is none, or transformers is not installed.
    """
    transformers = need_transformers()
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give that of a tokenizer.")
    try:
        return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises nothing more precise
        raise InputError(f"{folder} holds no tokenizer that transformers can load: {first_line(error)}") from None


def has_tokenizer(folder: Path) -> bool:
    """Whether there are a tokenizer's files in `folder`."""
    names = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
    return any((folder / name).is_file() for name in names)


def extend_tokenizer(folder: Path, output: Path, vocabulary: Vocabulary) -> int:
    """Write the tokenizer of `folder` to `output`, with the tokens of `vocabulary` at their ids.

    Ids between its own tokens and the audio tokens become `<|unused0|>`, `<|unused1|>` and so on.

    Returns:
        How many unused tokens there are.

    Raises:
        InputError: it reaches into the audio tokens' ids, or has audio tokens already.
    """
    from tokenizers import AddedToken

    tokenizer = load_tokenizer(folder)
    known = tokenizer.get_vocab()
    wanted = list(vocabulary.tokens())
    # Codes of any offset: nobody could tell them from those that come now.
    taken = next((token for token in (*SPECIAL_TOKENS, *filter(is_code_token, known)) if token in known), None)
    if taken is not None:
        raise InputError(f"{folder} already has the token {taken}; give a tokenizer without audio tokens.")
    n_unused = vocabulary.offset - max(known.values()) - 1
    if n_unused < 0:
        raise InputError(
            f"{folder} has tokens up to id {max(known.values())}, but the codes would begin at {vocabulary.offset};"
            " the offset is the number of rows of the model's embedding."
        )
    names = (f"<|unused{number}|>" for number in count())
    unused = list(islice((name for name in names if name not in known and name not in SPECIAL_TOKENS), n_unused))
    codes = wanted[: -len(SPECIAL_TOKENS)]
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in (*unused, *codes)])
    # Without replacing those that the tokenizer has, such as the marks of a conversation's turns.
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(SPECIAL_TOKENS)}, replace_extra_special_tokens=False
    )
    if tokenizer.convert_tokens_to_ids(wanted) != list(range(vocabulary.offset, vocabulary.end)):
        raise InputError(f"{folder} holds a tokenizer that does not number new tokens one after the other.")
    tokenizer.save_pretrained(output)
    return n_unused
