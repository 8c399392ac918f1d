"""Listings of object stores: page by page, folder by folder, in little memory."""

from __future__ import annotations

import itertools

import fsspec
import pytest

from benchmarks.listing import measure
from codectok.sources.listing.arguments import Argument
from codectok.sources.listing.found import FoundFile, IntegerColumn
from codectok.sources.listing.walk import find_files
from codectok.storage import open_storage
from codectok.store_listing import glob_store, list_store

NAMES = [
    *(f"a/{n:02d}.wav" for n in range(12)),
    *(f"a/05/{n:02d}.wav" for n in range(9)),
    *("a-b/x.wav", "a/05/c/y.wav", "a.wav", "b ü+%/z.wav", "b ü+%/_codectok/no.wav", ".hidden/x.wav", "a/.x.wav"),
]


@pytest.fixture(scope="module")
def tree(s3: str) -> str:
    files = fsspec.filesystem("s3")
    for name in NAMES:
        files.pipe_file(f"corpora/tree/{name}", name.encode())
    files.call_s3("put_object", Bucket="corpora", Key="tree/a/empty/", Body=b"")
    files.pipe_file("corpora/tree-2/other.wav", b"of another folder")
    return f"{s3}/tree"


@pytest.fixture(params=[7, 1000])
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Number of keys in a page of the server."""
    number: int = request.param
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", str(number))
    return number


def found(url: str) -> list[FoundFile]:
    return list(find_files(Argument(dataset="tree", kind="folder"), url, None))


def test_all_pages_are_listed(tree: str, page: int) -> None:
    shown = [name for name in NAMES if "_codectok" not in name and "/." not in f"/{name}"]
    files = found(tree)
    assert sorted(file.path for file in files) == sorted(shown)
    assert all(file.size == len(file.path.encode()) and file.modified and file.content for file in files)
    assert set(open_storage(tree).sizes()) == {*NAMES}
    assert open_storage(f"{tree}/a/00.wav").sizes() == {"": len("a/00.wav")}
    assert open_storage(f"{tree}/nothing").sizes() == {}


def test_folders_come_together_and_after_the_folder_that_holds_them(tree: str, page: int) -> None:
    """The layout of a corpus is recognised by all files of a folder."""
    folders = [file.path.rpartition("/")[0] for file in found(tree)]
    assert [folder for folder, _ in itertools.groupby(folders)] == ["", "a-b", "a", "a/05", "a/05/c", "b ü+%"]


def test_listing_leaves_nothing_in_the_cache(tree: str) -> None:
    files = fsspec.filesystem("s3")
    files.invalidate_cache()
    found(tree)
    open_storage(tree).sizes()
    assert not [path for path in files.dircache if "tree" in path]


@pytest.mark.parametrize(
    "pattern",
    [
        "*.wav",
        "a/0*.wav",
        "**/*.wav",
        "*/*.wav",
        "a*/*",
        "a/*/c/*.wav",
        "a/0?/0[1-3].wav",
        "a/**",
        "**/c/*",
        "a/*/c/y.wav",
    ],
)
def test_patterns_match_as_those_of_fsspec(tree: str, page: int, pattern: str) -> None:
    files = fsspec.filesystem("s3")
    files.invalidate_cache()
    expected = {n for n, info in files.glob(f"corpora/tree/{pattern}", detail=True).items() if info["type"] == "file"}
    expected = {name for name in expected if not name.endswith("/")}
    assert {name for name, _ in glob_store(files, "corpora/tree", pattern)} == expected
    assert expected


def test_other_stores_are_listed_as_a_whole() -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/store/one/a.wav", b"abc")
    assert [(name, info["size"]) for name, info in list_store(files, "/store")] == [("/store/one/a.wav", 3)]
    assert [name for name, _ in glob_store(files, "/store", "*/a.*")] == ["/store/one/a.wav"]
    assert list(list_store(files, "/nothing")) == []
    files.rm("/store", recursive=True)


def test_integers_beyond_64_bits_are_unknown() -> None:
    column = IntegerColumn([5, None, -3, 1 << 63, 1 << 70])
    assert list(column) == [5, None, -3, None, None]
    assert list(column.without({0, 3})) == [None, -3, None]
    assert (len(column), column[2]) == (5, -3)


@pytest.mark.slow
def test_listing_takes_little_memory_for_a_file() -> None:
    """Above all for its path; clients of stores take more than a kilobyte."""
    few, many = (measure("list_sources", files) for files in (100_000, 400_000))
    assert (few.count, many.count) == (100_000, 400_000)
    assert (many.peak_bytes - few.peak_bytes) / 300_000 < 450
