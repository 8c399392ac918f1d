"""Rules of CSV and TSV: quotation marks, separators, line ends, headers."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest

from codectok import InputError
from codectok.sources.manifests.lines import BadLine
from codectok.sources.manifests.read import read_manifest
from codectok.sources.manifests.tables import table_rows

HEADER = ("speaker", "path", "text", "language")


def rows(table: str, name: str = "x.csv") -> list[tuple[int, dict[str, str]] | BadLine]:
    return list(table_rows(io.StringIO(table, newline=""), name))


def texts(table: str, name: str = "x.csv") -> list[str]:
    return [line.problem if isinstance(line, BadLine) else line[1]["text"] for line in rows(table, name)]


def tsv(*sentences: str, end: str = "\n") -> str:
    lines = ["\t".join(HEADER), *(f"v{n}\tc{n}.mp3\t{text}\ten" for n, text in enumerate(sentences))]
    return end.join(lines) + end


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "sentences",
    [
        ['"Hello, world!', "A plain one.", 'and this ends with one"', "The last."],
        ['"Yes," he said.', 'He said "no"', '"', '""', 'a "b" c', '"a" and "b"', '5" nails'],
        ['ends"', '"begins', "plain"],
        ['"first', "plain", '"third'],
    ],
)
def test_quotation_marks_in_tsv_are_text(sentences: list[str], end: str) -> None:
    expected = ["" if text == '""' else text for text in sentences]
    assert texts(tsv(*sentences, end=end), "x.tsv") == expected


def test_cells_of_tsv_that_are_quoted_as_a_whole_are_read() -> None:
    assert texts(tsv('"a ""b"" c"', '"tab\there"', '"line\nend"', "plain"), "x.tsv") == [
        'a "b" c',
        "tab\there",
        "line\nend",
        "plain",
    ]


@pytest.mark.parametrize("dialect", [csv.excel, csv.unix_dialect, csv.excel_tab])
def test_tables_of_the_csv_module_are_read(dialect: type[csv.Dialect]) -> None:
    cells = [
        "a",
        'with "quotes"',
        "a, b",
        "two\nlines",
        "two\r\nlines",
        "tab\there",
        '"',
        "",
        " spaces ",
        "ü€😀\u2028\x1c",
    ]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, dialect)
    writer.writerows([["path", "text", "more"], *(["x.wav", cell, "end"] for cell in cells)])
    name = "x.tsv" if dialect is csv.excel_tab else "x.csv"
    assert texts(buffer.getvalue(), name) == cells


def test_unpaired_quotation_mark_in_csv_costs_its_line_only() -> None:
    lines = ['c0.wav,"Hello world', "c1.wav,plain", 'c2.wav,"and, ends"', 'c3.wav,"Yes," he said', 'c4.wav,5" nails']
    found = rows("path,text\n" + "\n".join(lines) + "\n")
    assert [line.number if isinstance(line, BadLine) else line[1]["text"] for line in found] == [
        2,
        "plain",
        "and, ends",
        5,
        '5" nails',
    ]
    assert all("twice" in line.problem for line in found if isinstance(line, BadLine))


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_quotation_mark_without_end_does_not_hold_the_file(name: str) -> None:
    between = "\t" if name == "x.tsv" else ","
    table = between.join(["path", "text"]) + "\n" + f'a.wav{between}"open\n' + f"b.wav{between}words\n" * 3000
    assert texts(table, name)[1:] == ["words"] * 3000


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_rows_that_do_not_fit_the_header_are_named(name: str, count: int) -> None:
    between = "\t" if name == "x.tsv" else ","
    lines = [
        ["path", "text", "speaker"],
        ["a.wav", "words", "ann"],
        ["b.wav", "b", "c", "d"][:count],
        ["c.wav", "w", "x"],
    ]
    found = rows("\n".join(between.join(cells) for cells in lines), name)
    assert [line.number if isinstance(line, BadLine) else line[0] for line in found] == [2, 3, 4]
    bad = found[1]
    assert isinstance(bad, BadLine)
    assert f"{count} cell" in bad.problem


@pytest.mark.parametrize("separator", [";", "|", "\t", " , ", ", "])
def test_separators_are_seen_in_the_header(separator: str) -> None:
    table = f"path{separator}text\na.wav{separator}some words\n\n"
    ((_, row),) = rows(table)  # type: ignore[misc]
    assert (row["path"].strip(), row["text"]) == ("a.wav", "some words")
    assert texts(f'path{separator}text\na.wav{separator}"some; words, | here"\n') == ["some; words, | here"]


def test_spaces_around_cells_are_dropped_if_the_header_has_them() -> None:
    ((_, row),) = rows('path, text ,speaker\na.wav , some words, "ann "\n')  # type: ignore[misc]
    assert row == {"path": "a.wav", "text": "some words", "speaker": "ann "}
    ((_, row),) = rows("path,text\n a.wav, words \n")  # type: ignore[misc]
    assert row == {"path": " a.wav", "text": " words "}


@pytest.mark.parametrize(
    ("header", "word"),
    [
        ("path,text,text", "twice"),
        ("path,,text", "cell 2"),
        ("path,text,", "cell 3"),
        ("text,speaker", "no column for the path"),
    ],
)
def test_headers_that_cannot_be_used_are_refused(header: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(header + "\na.wav,b,c\n")
    with pytest.raises(InputError, match=word):
        list(read_manifest(str(tmp_path), "x.csv"))


def test_lines_count_from_the_first_of_the_file(tmp_path: Path) -> None:
    table = '\r\npath,text\r\n"a.wav","two\r\nlines"\r\n\r\nb.wav\r\n'
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(table.encode("utf-8-sig")))
    good, bad = read_manifest(str(tmp_path), "x.csv.gz")
    assert good.text == "two\r\nlines"
    assert "Line 6" in (bad.problem or "")
