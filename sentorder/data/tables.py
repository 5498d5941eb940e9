"""Documents in the rows of CSV, Parquet and Arrow tables."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet
from datasets import Dataset

from ..errors import UserError, first_line
from .documents import Found
from .rows import Columns, Row, holds_documents, row_reader
from .text_files import File

DELIMITERS = (",", "\t", ";")
_ROWS_AT_ONCE = 1000
csv.field_size_limit(2**31 - 1)  # a list of sentences, or a line that is no CSV, may be longer than the usual limit


def csv_delimiter(header: str, columns: Columns) -> str | None:
    """What is between the cells of a CSV file, if this is its header: names under which sentences are known."""
    for delimiter in DELIMITERS:
        names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
        if holds_documents(names, columns):
            return delimiter
    return None


def cells(lines: Iterable[str], name: str, delimiter: str, *, start: int = 1) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file as csv reads them, with the line where each begins; the first one is ``start``.

    Raises:
        UserError: if quotes do not match.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    before = 0  # lines that were read already
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield start + before, row
            before = reader.line_num
    except csv.Error as error:
        raise UserError(f"{name}, line {start + before}: not a row of CSV ({first_line(error)}).") from None


def read_csv(file: File, columns: Columns) -> Iterator[Found]:
    """A header and rows, separated by commas, tabs or semicolons; cells in quotes may hold any of these, and lines.

    Raises:
        UserError: if the file cannot be read, or a row is malformed.
    """
    with file.open_text() as text:
        start, header = next(((number, line) for number, line in enumerate(text, start=1) if line.strip()), (1, ""))
        # If no delimiter gives known names, that which gives most of them makes the best error.
        delimiter = csv_delimiter(header, columns) or max(DELIMITERS, key=header.count)
        rows = cells(itertools.chain([header], text), file.name, delimiter, start=start)
        names = [name.strip() for name in next(rows, (start, []))[1]]
        twice = next((name for name in names if name and names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{file.name}, line {start}: two columns are called {twice!r}.")
        read = row_reader(names, columns, f"{file.name}, line {start}")
        for number, row in rows:
            where = f"{file.name}, line {number}"
            if any(cell.strip() for cell in row[len(names) :]):
                raise UserError(f"{where}: has {len(row)} cells, and the header {len(names)}.")
            yield read(dict(zip(names, row, strict=False)), where, file.default_id(number))


def read_parquet(file: File, columns: Columns) -> Iterator[Found]:
    """The rows of a Parquet file, a thousand in memory at a time.

    Raises:
        UserError: if the file cannot be read, or a row is malformed.
    """
    with file.open_bytes() as data:
        try:
            table = pyarrow.parquet.ParquetFile(data)
            batches = (batch.to_pylist() for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE))
            yield from _documents(batches, table.schema_arrow.names, file, columns)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise UserError(f"{file.name}: cannot be read as Parquet ({first_line(error)}).") from None


def read_table(table: Dataset, name: str, columns: Columns) -> Iterator[Found]:
    """The rows of a table of the datasets library.

    Args:
        table: one document per row.
        name: what errors call it; with the row number also the id of a document that has none.
        columns: those that were asked for.

    Raises:
        UserError: if it has other columns or no rows, or a row is malformed.
    """
    batches = (batch.to_pylist() for batch in table.with_format("arrow").iter(batch_size=_ROWS_AT_ONCE))
    if not len(table):
        raise UserError(f"{name}: the table holds no documents.")
    yield from _documents(batches, table.column_names, File(name), columns)


def _documents(batches: Iterable[Sequence[Row]], names: Sequence[str], file: File, columns: Columns) -> Iterator[Found]:
    read = row_reader(names, columns, file.name)
    for number, row in enumerate(itertools.chain.from_iterable(batches)):
        yield read(row, f"{file.name}, row {number}", file.default_id(number))
