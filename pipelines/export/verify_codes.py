"""Verifier of exported codes: numbers of rows and codes."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codectok.errors import VerificationError
from codectok.pipelines.engine.output.records import UnitRecord
from codectok.pipelines.engine.verifier import OutputVerifier


class CodesVerifier(OutputVerifier):
    """Checks the output of `export codes`."""

    def check(self, record: UnitRecord, name: str) -> None:
        """Compare the rows and codes of a part, or of all `.npy` files of one, with the record."""
        if name.endswith(".npy"):
            names = [file.name for file in record.files if file.name.endswith(".npy")]
            if name != names[0]:
                return
            rows, codes = len(names), sum(self._size_of_array(one) for one in names)
        else:
            rows, codes = self._size_of_lines(name) if name.endswith(".jsonl") else self._size_of_parquet(name)
        total = record.total
        if (rows, codes) != (total.rows, total.codes):
            raise VerificationError(
                f"{self.storage.url}/{name} has {rows} rows of {codes} codes, but its record says {total.rows} of"
                f" {total.codes}."
            )

    def _size_of_array(self, name: str) -> int:
        with self.storage.open(name) as file:
            size: int = np.load(file, allow_pickle=False).size
            return size

    def _size_of_lines(self, name: str) -> tuple[int, int]:
        rows = codes = 0
        with self.storage.open(name) as file:
            for line in file:
                rows, codes = rows + 1, codes + np.asarray(json.loads(line)["tokens"]).size
        return rows, codes

    def _size_of_parquet(self, name: str) -> tuple[int, int]:
        rows = codes = 0
        with self.storage.open(name) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            for batch in file.iter_batches(1024, columns=["audio_codes"], use_threads=False):
                values = batch["audio_codes"].flatten()
                rows += len(batch)
                codes += len(values.flatten() if pa.types.is_list(values.type) else values)
        return rows, codes
