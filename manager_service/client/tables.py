"""A table that stays readable in 80 columns: its columns are narrowed in turn, and broken between words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from manager_service.client.words import safe

GAP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A head, and how narrow its column may become: `least` cells, or unset its longest word.

    A `spare` column is left out where the table would not fit even so, the last one first.
    """

    head: str
    least: int | None = None
    spare: bool = False


@dataclass(frozen=True, slots=True)
class FittedTable:
    """Rows of text beneath columns; what rich draws of it fits its width, columns without a value are left out."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        drawn = self._fitting(options.max_width)
        columns = [self.columns[place] for place in drawn]
        rows = [[safe(row[place]) for place in drawn] for row in self.rows]
        drawing = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for column, width in zip(columns, widths(columns, rows, options.max_width), strict=True):
            drawing.add_column(column.head, width=width, overflow="fold")
        for row in rows:
            drawing.add_row(*map(Text, row))
        yield drawing

    def _fitting(self, room: int) -> list[int]:
        """Return the places of the columns that are drawn."""
        drawn = [
            place for place, _ in enumerate(self.columns) if not self.rows or any(row[place] for row in self.rows)
        ]
        for place in [place for place in reversed(drawn) if self.columns[place].spare]:
            rows = [[safe(row[one]) for one in drawn] for row in self.rows]
            if sum(widths([self.columns[one] for one in drawn], rows, room)) + GAP * (len(drawn) - 1) <= room:
                break
            drawn.remove(place)
        return drawn


def widths(columns: Sequence[Column], rows: Iterable[Sequence[str]], room: int) -> list[int]:
    """Return a width per column: as wide as its text, or narrowed where `room` asks for it, the widest first."""
    heads = [column.head for column in columns]
    texts = list(zip(heads, *rows, strict=True))
    wanted = [max(map(cell_len, cells)) for cells in texts]
    least = [
        min(
            want,
            max(cell_len(word) for cell in cells for word in cell.split())
            if column.least is None
            else column.least,
        )
        for column, cells, want in zip(columns, texts, wanted, strict=True)
    ]
    excess = sum(wanted) + GAP * (len(wanted) - 1) - room
    while excess > 0 and wanted != least:
        widest = max(range(len(wanted)), key=lambda place: (wanted[place] > least[place], wanted[place]))
        wanted[widest] -= 1
        excess -= 1
    return wanted
