"""Rows without an answer on a terminal: by code, or one by one."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.screen.words import counted
from shunt.report.report import BadRow

_MOST_LISTED = 50


def show_error_codes(
    console: Console, command: str, again: str, by_code: Mapping[str, Sequence[BadRow]]
) -> None:
    """The commonest code first, each with its first row. `command` and `again` list and retry rows
    of the run."""
    if not by_code:
        console.print("every row that has ended has an answer")
        return
    table = Table("code", "rows", "first row", "why", box=None)
    for code, rows in sorted(by_code.items(), key=lambda each: -len(each[1])):
        table.add_row(code, f"{len(rows):,}", escape(_place(rows[0])), escape(_why(rows[0])))
    console.print(table)
    console.print(f"the rows of one code: {command} --code CODE", soft_wrap=True)
    console.print(f"generate them again: {again} --where code=CODE", soft_wrap=True)


def show_bad_rows(console: Console, rows: Sequence[BadRow]) -> None:
    """In input order; the first of very many."""
    table = Table("id", "row", "why", box=None)
    for row in rows[:_MOST_LISTED]:
        table.add_row(escape(row.row_id), escape(_place(row)), escape(_why(row)))
    console.print(table)
    if (left := len(rows) - _MOST_LISTED) > 0:
        console.print(f"and {counted(left, 'row')} more: --json has all of them")


def _why(row: BadRow) -> str:
    """Without the place, which stands beside it."""
    return row.message.removeprefix(f"{row.file}:{row.line}: ").removeprefix(f"{_place(row)}: ")


def _place(row: BadRow) -> str:
    """By its file's name alone: the whole path is in --json."""
    return "-" if row.file is None else f"{row.file.rsplit('/', 1)[-1]}:{row.line}"
