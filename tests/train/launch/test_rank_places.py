"""Numbers of ranks after machines are lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from codectok.train.launch.rank_places import RankLimits, fit_accumulation
from tests.train.conftest import tiny_config


@pytest.mark.parametrize(
    ("places", "least", "ranks"), [(8, 1, 8), (20, 1, 8), (7, 1, 6), (5, 1, 4), (1, 1, 1), (7, 7, None), (0, 1, None)]
)
def test_fewer_ranks_share_a_batch_evenly(places: int, least: int, ranks: int | None) -> None:
    assert RankLimits(8, least, 24, "GPU").usable(places) == ranks


def test_fewer_ranks_have_microbatches_that_are_not_larger(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, tmp_path / "run", "data.batch_size=24", "accumulation=2")
    for ranks in (6, 4, 3, 2, 1):
        fitted = fit_accumulation(config, ranks, wanted=6)
        assert 24 % (ranks * fitted.accumulation) == 0
        assert 24 // (ranks * fitted.accumulation) <= 24 // (6 * 2)
        assert fitted.model_copy(update={"accumulation": 2}) == config
    assert fit_accumulation(config, 6, wanted=6) is config
