"""Published results."""

from __future__ import annotations

import math

import pytest

from codectok.evaluation.published import PUBLISHED, PUBLISHED_HEADER, PublishedResult, published_rows


def test_rows_have_all_columns_and_name_their_test_set() -> None:
    rows = published_rows()
    assert len(rows) == len(PUBLISHED) == 15
    assert {len(row) for row in rows} == {len(PUBLISHED_HEADER)}
    assert all(row[PUBLISHED_HEADER.index("test set")] for row in rows)
    assert rows[0][:5] == ("EnCodec", "6,000", "0.94", "2.75", "3.07")


@pytest.mark.parametrize("result", PUBLISHED, ids=lambda result: f"{result.codec}-{result.bits_per_second}")
def test_figures_are_possible(result: PublishedResult) -> None:
    assert result.bits_per_second == pytest.approx(result.tokens_per_second * math.log2(result.codebook_size), rel=0.08)
    for value, low, high in (
        (result.stoi, 0, 1),
        (result.pesq, 1, 4.65),
        (result.utmos, 1, 5),
        (result.used_share, 0, 1),
    ):
        assert value is None or low <= value <= high
    assert result.perplexity is None or result.perplexity <= result.codebook_size
