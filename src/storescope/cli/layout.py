"""Columns of text, as wide as their content or as the terminal lets them be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Final

from rich.console import Console
from rich.text import Text

#: Spaces between columns, and where the terminal is too narrow for that.
GAP: Final = 2
NARROW_GAP: Final = 1
#: Rich measures text with a console, whichever.
_MEASURING: Final = Console(file=StringIO())
_UNLIMITED: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its title, the side it is aligned to, and how far it may shrink (None: not at all)."""

    title: str
    right: bool = False
    minimum: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns that have found their widths."""

    columns: Sequence[Column]
    widths: Sequence[int]
    gap: int

    @classmethod
    def fit(cls, columns: Sequence[Column], rows: Iterable[Sequence[Text]], width: int | None) -> Layout:
        """Make columns as wide as their cells; where that exceeds `width`, narrow gaps, then the widest column."""
        natural = [len(column.title) for column in columns]
        for row in rows:
            natural = [max(known, cell.cell_len) for known, cell in zip(natural, row, strict=True)]
        layout = cls(columns, natural, GAP)
        if width is None or layout.width <= width:
            return layout
        return cls(columns, _shrunk(columns, natural, width - NARROW_GAP * (len(columns) - 1)), NARROW_GAP)

    @property
    def width(self) -> int:
        """Return the width of a line."""
        return sum(self.widths) + self.gap * (len(self.widths) - 1)

    def line(self, cells: Sequence[Text]) -> Text:
        """Join cells, each cut or padded to its column's width."""
        joined = Text(" " * self.gap).join(
            _aligned(cell, column, width)
            for cell, column, width in zip(cells, self.columns, self.widths, strict=True)
        )
        joined.rstrip()
        return joined

    def titles(self, first: str) -> Text:
        """Return the line of titles, with another one for the first column."""
        return self.line([Text(first, "dim"), *(Text(column.title, "dim") for column in self.columns[1:])])


def fold(text: Text, indent: int, width: int | None) -> Iterator[Text]:
    """Yield a text as indented lines that fit into `width`; as one line if it is None."""
    for part in text.wrap(_MEASURING, _UNLIMITED if width is None else max(20, width - indent)):
        part.rstrip()
        yield Text(" " * indent) + part


def _shrunk(columns: Sequence[Column], widths: Sequence[int], total: int) -> list[int]:
    """Take from the widest column that may still shrink, until `total` is reached or none may."""
    widths = list(widths)
    minima = [width if c.minimum is None else c.minimum for c, width in zip(columns, widths, strict=True)]
    while sum(widths) > total:
        shrinkable = [number for number, width in enumerate(widths) if width > minima[number]]
        if not shrinkable:
            break
        widths[max(shrinkable, key=lambda number: widths[number])] -= 1
    return widths


def _aligned(cell: Text, column: Column, width: int) -> Text:
    cell = cell.copy()
    cell.truncate(width, overflow="ellipsis")
    padding = Text(" " * (width - cell.cell_len))
    return padding + cell if column.right else cell + padding
