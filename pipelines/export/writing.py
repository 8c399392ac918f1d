"""Writes documents as packed sequences, to one output or to several by their length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

from codectok.exports.sequences.documents import Document
from codectok.exports.sequences.packing import Packer, PackingOptions


class Writer(Protocol):
    """Writes sequences to files."""

    def write(self, sequence: Sequence[Document]) -> None:
        """Append a sequence."""


OpenWriter = Callable[[str, int | None], AbstractContextManager[Writer]]
"""Opens the writer of a folder (its name; "" for the output folder itself) for sequences of a length."""


def packed(
    documents: Iterable[Document], packings: Mapping[str, PackingOptions]
) -> Iterator[tuple[str, list[Document]]]:
    """Pack documents into sequences, each in the first folder whose length holds it, else in the last one.

    Args:
        documents: in order.
        packings: packing of each folder, the shortest length first.

    Yields:
        Names of folders, and sequences.
    """
    packers = {folder: Packer(packing) for folder, packing in packings.items()}
    *shorter, longest = packings
    lengths = [(folder, packings[folder].length or 0) for folder in shorter]
    for document in documents:
        folder = longest
        for name, length in lengths:
            if len(document.ids) <= length:
                folder = name
                break
        sequence = packers[folder].add(document)
        if sequence is not None:
            yield folder, sequence
    for folder, packer in packers.items():
        for sequence in packer.finish():
            yield folder, sequence


def write_sequences(
    sequences: Iterable[tuple[str, list[Document]]], packings: Mapping[str, PackingOptions], open_writer: OpenWriter
) -> None:
    """Write sequences to their folders; a folder without sequences gets no files."""
    writers: dict[str, Writer] = {}
    with ExitStack() as stack:
        for folder, sequence in sequences:
            if folder not in writers:
                writers[folder] = stack.enter_context(open_writer(folder, packings[folder].length))
            writers[folder].write(sequence)
