"""Reading token tables by id and by number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codectok import InputError
from codectok.tokens import table as table_module
from codectok.tokens.reader import TokenTable, open_table
from tests.helpers.tables import metadata, rows, write


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenTable:
    monkeypatch.setattr(table_module, "ROW_GROUP_CODES", 100)  # several groups a file
    everything = rows(37)
    for number, first in enumerate(range(0, 37, 10)):
        write(tmp_path / f"{number}.parquet", everything[first : first + 10], metadata())
    return open_table(tmp_path)


def test_rows_by_id_and_number(table: TokenTable) -> None:
    everything = rows(37)
    assert len(table) == 37
    assert len(table.groups) > 8
    assert [row.id for row in table] == [row.id for row in everything]
    for number in np.random.default_rng(0).permutation(37):
        for found in (table[everything[number].id], table.row(int(number))):
            assert found.id == everything[number].id
            np.testing.assert_array_equal(found.codes, everything[number].codes)
            assert found.text == everything[number].text
    with pytest.raises(InputError, match="has no row missing"):
        table["missing"]
