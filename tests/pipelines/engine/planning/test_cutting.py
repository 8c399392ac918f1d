"""Units of a cut: their sources, sizes and splits."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

from codectok.pipelines.engine.planning.cutting import CuttingPolicy, cut_listing
from codectok.sources.listing.arguments import parse_arguments
from codectok.sources.listing.found import IntegerColumn
from codectok.sources.listing.sources import ListingBuilder, list_sources
from codectok.sources.manifests.row import ManifestRow


def test_units_hold_equal_share_of_every_dataset(tmp_path: Path) -> None:
    for dataset, sizes in (("a", [50, 1, 300]), ("b", [70]), ("c", [3])):
        (tmp_path / dataset).mkdir()
        for n, size in enumerate(sizes):
            (tmp_path / dataset / f"{n}.parquet").write_bytes(bytes(size))
    listing = list_sources(*parse_arguments([str(tmp_path / name) for name in "abc"]), ("parquet",))
    before = [(listing.datasets[i], listing.paths[i]) for i in range(5)]
    found = cut_listing(listing, range(5), CuttingPolicy(3600.0, unit_bytes=100))
    assert len(found.units) == 5
    covered: dict[tuple[str, str], list[tuple[int, int]]] = {name: [] for name in before}
    for unit in found.units:
        shares = {"a": 0, "b": 0, "c": 0}
        for place in range(unit.first_source, unit.first_source + unit.n_sources):
            i = found.positions[place]
            whole = listing.sizes[i]
            assert whole is not None
            first, last = found.ranges.get(place, (0, whole))
            shares[listing.datasets[i]] += last - first
            covered[listing.datasets[i], listing.paths[i]].append((first, last))
        assert 69 <= shares["a"] <= 71
        assert shares["b"] == 14
        assert shares["c"] <= 1
    for (dataset, path), ranges in covered.items():
        ordered = sorted(ranges)
        assert ordered[0][0] == 0
        assert ordered[-1][1] == (tmp_path / dataset / path).stat().st_size
        assert all(one[1] == other[0] for one, other in itertools.pairwise(ordered))


def test_cutting_time_is_linear_in_files() -> None:
    looked = 0

    class Counted(IntegerColumn):
        def __getitem__(self, place: Any) -> Any:
            nonlocal looked
            looked += 1
            return super().__getitem__(place)

    builder = ListingBuilder(roots={"a": "/a"})
    for n in range(2000):
        builder.add("a", f"{n:04d}.parquet", "parquet", 100, 0)
    listing = builder.build()
    listing = replace(listing, sizes=Counted(listing.sizes))
    found = cut_listing(listing, range(2000), CuttingPolicy(3600.0, unit_bytes=150))
    assert len(found.units) == 1334
    ranges = (found.ranges.get(place, (0, 100)) for place in range(len(found.positions)))
    assert sum(last - first for first, last in ranges) == 200_000
    assert looked < 20_000


def test_span_of_split_container_counts_once() -> None:
    builder = ListingBuilder(roots={"a": "/a"})
    builder.add("a", "large.tar", "tar", 3 * 30_000 * 60, 0, ManifestRow("large.tar", end=90.0))
    found = cut_listing(builder.build(), range(1), CuttingPolicy(60.0))
    assert [unit.estimated_seconds for unit in found.units] == [90.0, 60.0, 60.0]
