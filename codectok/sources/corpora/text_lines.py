"""Lines of text files that describe a corpus."""

from __future__ import annotations

from collections.abc import Iterator

from codectok.errors import InputError
from codectok.sources.encodings import UndecodableError, decode_text
from codectok.sources.manifests.text_files import open_binary, open_text, place_of

LONGEST_TEXT = 1 << 20


def text_lines(root: str, name: str, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that are not empty, with their numbers.

    Raises:
        InputError: the file cannot be read, or is in another encoding than its mark, or `encoding`, says.
    """
    try:
        with open_text(root, name, encoding) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UndecodableError as error:
        raise InputError(f"{place_of(root, name)} cannot be read: {error}.") from None
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{place_of(root, name)} cannot be read: {reason}.") from None


def read_text(root: str, name: str, encoding: str | None = None) -> str:
    """Text of a small file, in the encoding of its byte-order mark, in `encoding`, or in UTF-8.

    Raises:
        ValueError: it cannot be read, or is in another encoding; the message is the end of a sentence.
    """
    try:
        with open_binary(root, name) as file:
            data = file.read(LONGEST_TEXT + 1)
    except (OSError, EOFError) as error:
        raise ValueError(f"{name} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if len(data) > LONGEST_TEXT:
        raise ValueError(f"{name} is too long for the text of a clip")
    try:
        return decode_text(data, encoding).strip()
    except UndecodableError as error:
        raise ValueError(f"{name} cannot be read ({error})") from None
