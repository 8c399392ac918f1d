"""Packing: no token is lost or repeated, lengths are limited, results are deterministic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from codectok import InputError
from codectok.exports.choices import Packing, TooLong
from codectok.exports.sequences import packing
from codectok.exports.sequences.documents import CodeSpan, Document
from codectok.exports.sequences.packing import Packer, PackingOptions, fit


def documents(*lengths: int) -> list[Document]:
    first = np.cumsum([0, *lengths])
    return [
        Document(
            np.arange(first[n], first[n] + length, dtype=np.int32), str(n), "d", 1.0, (CodeSpan(0, length, 1, 0, 0),)
        )
        for n, length in enumerate(lengths)
    ]


def pack(documents: Iterable[Document], options: PackingOptions) -> Iterator[list[Document]]:
    packer = Packer(options)
    for document in documents:
        sequence = packer.add(document)
        if sequence is not None:
            yield sequence
    yield from packer.finish()


def names(sequences: Iterator[list[Document]]) -> list[str]:
    return [" ".join(document.id for document in sequence) for sequence in sequences]


def test_next_fit_and_first_fit_pack_by_definition() -> None:
    made = documents(6, 5, 4, 3, 9, 1)
    assert names(pack(made, PackingOptions())) == ["0", "1", "2", "3", "4", "5"]
    assert names(pack(made, PackingOptions(Packing.NEXT_FIT, 10))) == ["0", "1 2", "3", "4 5"]
    assert names(pack(made, PackingOptions(Packing.FIRST_FIT, 10))) == ["0 2", "1 3 5", "4"]


def test_first_fit_limits_open_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "OPEN_SEQUENCES", 2)
    # Document 2 closes the sequence of 0, so that 3 is not added to it.
    assert names(pack(documents(6, 8, 7, 4), PackingOptions(Packing.FIRST_FIT, 10))) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("kind", Packing)
@pytest.mark.parametrize("too_long", TooLong)
def test_packing_and_too_long_policies_keep_tokens(kind: Packing, too_long: TooLong) -> None:
    lengths = np.random.default_rng(0).integers(1, 130, 500).tolist()
    made = documents(*lengths)
    dropped: list[Document] = []
    options = PackingOptions(kind, 100, too_long)
    sequences = list(pack(fit(made, options, lambda document, _: dropped.append(document)), options))
    sizes = [sum(len(document.ids) for document in sequence) for sequence in sequences]
    assert all(size <= 100 or (too_long == "keep" and len(s) == 1) for size, s in zip(sizes, sequences, strict=True))
    found = np.sort(np.concatenate([document.ids for sequence in sequences for document in sequence]))
    kept = {
        "drop": [document.ids for document in made if len(document.ids) <= 100],
        "truncate": [document.ids[:100] for document in made],
        "split": [document.ids for document in made],
        "keep": [document.ids for document in made],
    }[too_long]
    np.testing.assert_array_equal(found, np.concatenate(kept))
    assert len(dropped) == (sum(length > 100 for length in lengths) if too_long == "drop" else 0)
    seconds = sum(document.seconds for sequence in sequences for document in sequence)
    cut = sum(1 - 100 / length for length in lengths if length > 100) if too_long == "truncate" else 0
    assert seconds == pytest.approx(len(made) - len(dropped) - cut)
    if kind != "none":
        # No two consecutive sequences would fit into one.
        assert len(sequences) < 2 * sum(sizes) / 100 + 65
    again = list(pack(fit(documents(*lengths), options), options))
    assert names(iter(again)) == names(iter(sequences))


def audio_document(words: int, frames: int, n_codebooks: int) -> Document:
    """A tts document: words (1), begin (2), codes (from 10), end (3), end of sequence (4)."""
    codes = 10 + np.arange(frames * n_codebooks)
    ids = np.concatenate([np.ones(words), [2], codes, [3, 4]]).astype(np.int32)
    span = CodeSpan(words + 1, words + 1 + len(codes), n_codebooks, 1, 1)
    return Document(ids, "a", "d", 1.0, (span,), 1)


@pytest.mark.parametrize("n_codebooks", [1, 3])
@pytest.mark.parametrize("words", [0, 4])
def test_truncated_document_keeps_closing_tokens(words: int, n_codebooks: int) -> None:
    document = audio_document(words, 8, n_codebooks)
    whole = document.ids.tolist()
    for length in range(1, len(whole)):
        found = list(fit([document], PackingOptions(Packing.NONE, length, TooLong.TRUNCATE)))
        if not found:  # only the end would be left
            assert length - 1 <= (words or 2 + n_codebooks)
            assert not words or length == 1
            continue
        (made,) = found
        ids = made.ids.tolist()
        assert ids[-1] == 4
        codes = [one for one in ids if one >= 10]
        assert ids == [*whole[: min(words, length - 1)], *([2, *codes, 3] if codes else []), 4]
        assert codes == whole[words + 1 :][: len(codes)]
        assert len(codes) % n_codebooks == 0
        assert length - n_codebooks < len(ids) <= length or not codes


@pytest.mark.parametrize("length", range(1, 20))
def test_split_documents_have_whole_frames(length: int) -> None:
    document = audio_document(4, 8, 3)
    chunks = list(fit([document], PackingOptions(Packing.NONE, length, TooLong.SPLIT)))
    assert np.concatenate([chunk.ids for chunk in chunks]).tolist() == document.ids.tolist()
    assert max(len(chunk.ids) for chunk in chunks) <= length
    for chunk in chunks if length >= 3 else ():
        assert sum(one >= 10 for one in chunk.ids) % 3 == 0
    assert sum(chunk.seconds for chunk in chunks) == pytest.approx(1)


def test_first_fit_packs_tighter_than_next_fit() -> None:
    made = documents(*np.random.default_rng(1).integers(1, 90, 2000).tolist())
    counts = {kind: len(list(pack(made, PackingOptions(kind, 100)))) for kind in (Packing.NEXT_FIT, Packing.FIRST_FIT)}
    assert counts[Packing.FIRST_FIT] < 0.85 * counts[Packing.NEXT_FIT]


def test_packing_reads_documents_lazily() -> None:
    taken = []

    def endless() -> Iterator[Document]:
        for n in range(10**9):
            taken.append(n)
            yield Document(np.zeros(60, np.int32), str(n), "d")

    for kind, most in ((Packing.NEXT_FIT, 2), (Packing.FIRST_FIT, 65)):
        taken.clear()
        next(pack(endless(), PackingOptions(kind, 100)))
        assert len(taken) == most


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"packing": "next-fit"}, "needs a length"),
        ({"packing": "best-fit", "length": 8}, "no 'best-fit'"),
        ({"too_long": "wrap", "length": 8}, "no 'wrap'"),
        ({"length": 0}, "impossible"),
    ],
)
def test_invalid_packing_options_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PackingOptions(**values)
