"""Checks of the lists of documents beside Megatron's indexed datasets."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow.parquet as pq

from codectok.errors import VerificationError, first_line
from codectok.exports.sequences.sidecar import SIDECAR_SCHEMA, SIDECAR_SUFFIX
from codectok.parquet_damage import PARQUET_DAMAGE
from codectok.pipelines.engine.output.records import UnitRecord
from codectok.storage import Storage

from .verify_description import description_of

NUMBERS = ["document", "start", "length", "dataset"]


def check_sidecar(
    storage: Storage, prefix: str, record: UnitRecord, lengths: np.ndarray, described: bool
) -> tuple[Counter[str], np.ndarray]:
    """Compare the list of documents beside `PREFIX.idx` with the lengths of its sequences.

    Args:
        storage, prefix, record: of the dataset.
        lengths: of its sequences.
        described: the list has a description of the ids.

    Returns:
        The number of documents by dataset, and the places of those with ids among the ids of the `.bin` file.

    Raises:
        VerificationError: the list is missing or damaged, or does not agree with the index.
    """
    name = f"{prefix}{SIDECAR_SUFFIX}"
    where = f"{storage.url}/{name}"
    if name not in {file.name for file in record.files}:
        raise VerificationError(f"{where} is missing: the list of the documents of {prefix}.bin.")
    found = np.zeros(len(lengths), np.int64)
    datasets: Counter[str] = Counter()
    position, document = 0, -1
    places = [np.zeros(0, np.int64)]
    try:
        with storage.open(name) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            if not file.schema_arrow.equals(SIDECAR_SCHEMA):
                raise VerificationError(f"{where} has other columns than a list of documents.")
            if described:
                description_of(file, where, "codectok.documents")
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, use_threads=False)
                numbers, starts, sizes = (table[column].to_numpy() for column in NUMBERS[:3])
                steps = np.diff(numbers, prepend=document)
                ends = position + np.cumsum(sizes)
                if not (np.isin(steps, (0, 1)).all() and (sizes >= 0).all() and (starts == ends - sizes).all()):
                    raise VerificationError(f"{where} does not list the documents of {prefix}.bin in order.")
                if len(numbers) and (numbers[-1] >= len(found) or numbers[0] < 0):
                    raise VerificationError(f"{where} lists documents that {prefix}.idx does not have.")
                np.add.at(found, numbers, sizes)
                places.append(starts[sizes > 0])
                if len(numbers):
                    position, document = int(ends[-1]), int(numbers[-1])
                datasets.update(table["dataset"].to_pylist())
                if not all(table["ids"].to_pylist()):
                    raise VerificationError(f"{where} has a document without the id of a clip.")
    except (*PARQUET_DAMAGE, OSError) as error:
        raise VerificationError(f"{where} cannot be read: {first_line(error)}") from None
    if not np.array_equal(found, lengths):
        raise VerificationError(f"{where} does not match {prefix}.idx: documents have other lengths.")
    return datasets, np.concatenate(places)
