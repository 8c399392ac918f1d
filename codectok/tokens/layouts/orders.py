"""Orders of the codes of several codebooks in a sequence of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .layout import TokenLayout

PADDING, UNKNOWN, MISSING = -1, -2, -3
"""Numbers of cells without a code: the padding token, a token in the place of a code, and no token."""


@dataclass(frozen=True)
class LayoutProblem:
    """Part of a text or of ids that does not fit the layout.

    Attributes:
        position: character in the text, or token in the ids; their length for a part that is missing at the end.
        kind: "unknown": not a token of the codec; "missing": a code or mark is absent; "misplaced": a code stands where
            the order has none.
        message: one sentence without the position.
    """

    position: int
    kind: Literal["unknown", "missing", "misplaced"]
    message: str


@dataclass(frozen=True)
class Cell:
    """A token in the place of a code: its position, and the number of the code (or PADDING, UNKNOWN or MISSING)."""

    position: int
    number: int


def arrange(values: np.ndarray, layout: TokenLayout, padding: int | None = None) -> np.ndarray:
    """Flatten values [n_frames, n_codebooks] to the order of a layout; `padding` fills the empty places of a delay."""
    if layout.order == "parallel":
        return values.T.reshape(-1)
    if layout.order == "flat" or not len(values):
        return values.reshape(-1)
    n_frames, n_codebooks = values.shape
    assert padding is not None, "layouts with a delay have padding"
    delayed = np.full((n_frames + (n_codebooks - 1) * layout.delay, n_codebooks), padding, values.dtype)
    for codebook in range(n_codebooks):
        start = codebook * layout.delay
        delayed[start : start + n_frames, codebook] = values[:, codebook]
    return delayed.reshape(-1)


def frames_of(
    cells: Sequence[Cell], end: int, layout: TokenLayout, n_codebooks: int, stride: int, problems: list[LayoutProblem]
) -> np.ndarray:
    """Restore frames from tokens in the order of a layout, the inverse of `arrange`.

    Args:
        cells: tokens in the places of codes.
        end: position behind the last one.
        layout: its order and delay.
        n_codebooks: codes per frame.
        stride: numbers of each codebook.
        problems: receives what does not fit.

    Returns:
        Numbers of codes int64 [n_frames, n_codebooks] of the frames that are complete.
    """
    if layout.order == "parallel":
        grid = _columns(cells, end, n_codebooks, stride, problems)
    else:
        grid = _rows(cells, end, n_codebooks, stride, problems)
    if layout.order == "delayed":
        grid = _without_delay(grid, end, layout.delay, n_codebooks, problems)
    else:
        message = "Padding stands in the place of a code."
        cells_of_padding = [cell for row in grid for cell in row if cell.number == PADDING]
        problems += [LayoutProblem(cell.position, "misplaced", message) for cell in cells_of_padding]
    numbers = [[cell.number for cell in row] for row in grid if all(cell.number >= 0 for cell in row)]
    return np.array(numbers, np.int64).reshape(-1, n_codebooks)


def _rows(
    cells: Sequence[Cell], end: int, n_codebooks: int, stride: int, problems: list[LayoutProblem]
) -> list[list[Cell]]:
    """Cut tokens into rows of one cell per codebook; a code of an earlier codebook than expected begins a row."""
    rows: list[list[Cell]] = []
    row: list[Cell] = []

    def fill(until: int, position: int) -> None:
        for codebook in range(len(row), until):
            message = f"Frame {len(rows)} lacks the code of codebook {codebook}."
            problems.append(LayoutProblem(position, "missing", message))
            row.append(Cell(position, MISSING))

    for cell in cells:
        codebook = cell.number // stride if cell.number >= 0 else len(row)
        if codebook < len(row):
            fill(n_codebooks, cell.position)
            rows.append(row)
            row = []
        fill(codebook, cell.position)
        row.append(cell)
        if len(row) == n_codebooks:
            rows.append(row)
            row = []
    if row:
        fill(n_codebooks, end)
        rows.append(row)
    return rows


def _columns(
    cells: Sequence[Cell], end: int, n_codebooks: int, stride: int, problems: list[LayoutProblem]
) -> list[list[Cell]]:
    """Cut tokens into a column per codebook, and return their rows.

    If the tokens can be cut into columns of equal length, and every known code lies in its own column, they are cut
    there. Otherwise each code's codebook decides, and an unknown token joins the column of the code before it.
    """
    n_rows, rest = divmod(len(cells), n_codebooks)
    if not rest and all(cell.number < 0 or cell.number // stride == n // n_rows for n, cell in enumerate(cells)):
        return [list(cells[row::n_rows]) for row in range(n_rows)]
    columns: list[list[Cell]] = [[] for _ in range(n_codebooks)]
    ends = [end] * n_codebooks
    current = 0
    for cell in cells:
        codebook = cell.number // stride if cell.number >= 0 else current
        if codebook < current:
            message = f"A code of codebook {codebook} stands among those of codebook {current}."
            problems.append(LayoutProblem(cell.position, "misplaced", message))
            continue
        ends[current:codebook] = [cell.position] * (codebook - current)
        current = codebook
        columns[codebook].append(cell)
    n_frames = max(map(len, columns))
    for codebook, (column, column_end) in enumerate(zip(columns, ends, strict=True)):
        lacking = n_frames - len(column)
        if lacking:
            message = f"The column of codebook {codebook} lacks {lacking} of {n_frames} codes; frames may be shifted."
            problems.append(LayoutProblem(column_end, "missing", message))
            column += [Cell(column_end, MISSING)] * lacking
    return [list(row) for row in zip(*columns, strict=True)]


def _without_delay(
    rows: list[list[Cell]], end: int, delay: int, n_codebooks: int, problems: list[LayoutProblem]
) -> list[list[Cell]]:
    """Undo the delay of each codebook, and check that all other places are padding."""
    n_frames = len(rows) - (n_codebooks - 1) * delay
    if rows and n_frames < 1:
        message = f"There are {len(rows)} rows, too few for a delay of {(n_codebooks - 1) * delay}."
        problems.append(LayoutProblem(end, "missing", message))
        return []
    for place, row in enumerate(rows):
        for codebook, cell in enumerate(row):
            frame = place - codebook * delay
            if 0 <= frame < n_frames and cell.number == PADDING:
                message = f"Frame {frame} has padding in the place of the code of codebook {codebook}."
                problems.append(LayoutProblem(cell.position, "missing", message))
            elif not 0 <= frame < n_frames and cell.number >= 0:
                message = f"A code of codebook {codebook} stands in the place of padding."
                problems.append(LayoutProblem(cell.position, "misplaced", message))
    return [
        [rows[frame + codebook * delay][codebook] for codebook in range(n_codebooks)]
        for frame in range(max(n_frames, 0))
    ]
