"""The layouts in which documents are read: one table, and how one is told from another, by what is in a file."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from .cutting import cut
from .documents import Found, Item, Part, cleaned
from .folders import has_lists, is_saved, listed_parts, saved_parts
from .json_files import read_json, read_jsonl, read_sind
from .lines import read_blocks, read_separated, read_text
from .pairs import is_pair, read_pairs
from .reading import Reading
from .rows import Columns
from .tables import DELIMITERS, cells, csv_delimiter, read_csv, read_parquet
from .text_files import File


class Head(NamedTuple):
    """The beginning of a file, by which its layout is found."""

    file: File
    start: bytes
    lines: list[str]
    """The first lines that are not blank, if it is text."""

    @property
    def first(self) -> str:
        return self.lines[0] if self.lines else ""


@dataclass(frozen=True)
class Format:
    """A layout of files."""

    description: str
    read: Callable[[File, Columns], Iterator[Found]]
    fits: Callable[[Head, Columns], bool]
    """Whether a file looks like it, if it looks like none of the formats before it."""
    has_columns: bool = False
    """Whether ``--columns`` has a meaning."""
    running: bool = False
    """Whether it is running text, in which sentences are still to be found."""
    separator: str | None = None
    """What stands between the sentences of a document, where nothing but that makes the layout."""


@dataclass(frozen=True)
class FolderFormat:
    """A layout of folders."""

    description: str
    parts: Callable[[Path, Reading], dict[str, Part]]
    fits: Callable[[Path], bool]
    has_columns: bool = False


# --- what files look like -------------------------------------------------------------------------------------------

_PARQUET = b"PAR1"
_LINES_LOOKED_AT = 20


def _head(file: File) -> Head:
    with file.open_bytes() as data:
        start = data.read(len(_PARQUET))
    lines = [] if start == _PARQUET else [line for _, line in itertools.islice(file.lines(), _LINES_LOOKED_AT)]
    return Head(file, start, lines)


def _goes_on(line: str) -> bool:
    """Whether a JSON object begins in this line and does not end in it."""
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(line.rstrip())
    except (ValueError, RecursionError):
        pass
    return False


def _looks_like_sind(head: Head, columns: Columns) -> bool:
    if not head.first.lstrip().startswith("{"):
        return False
    try:
        if _goes_on(head.first):
            with head.file.open_text() as text:
                value: Any = json.load(text)
        else:
            value = json.loads(head.first)
    except (ValueError, RecursionError):
        return False
    annotations = value.get("annotations") if isinstance(value, dict) else None
    if not isinstance(annotations, list) or "sentences" in value:
        return False
    return all(isinstance(annotation, list) for annotation in annotations)


def _looks_like_json(head: Head, columns: Columns) -> bool:
    first = head.first.lstrip()
    if first.startswith("["):  # and not a text that begins with a bracket
        return re.match(r'\[\s*[\[{"]', " ".join(head.lines[:2]).lstrip()) is not None or head.first.strip() == "[]"
    return first.startswith("{") and _goes_on(first)


def _looks_like_csv(head: Head, columns: Columns) -> bool:
    # Where columns are named, a line of several cells must be a header; if it lacks them, reading it says so.
    cut_up = any(map(head.first.count, DELIMITERS))
    return csv_delimiter(head.first, columns) is not None or (columns.names_any and cut_up)


def _looks_like_pairs(head: Head, columns: Columns) -> bool:
    try:
        _, row = next(cells(head.lines, head.file.name, "\t"), (0, []))
    except UserError:
        return False
    return is_pair(row)


def _looks_like_tsv(head: Head, columns: Columns) -> bool:
    """Not if only a few lines have a tab: those of a text may be indented."""
    return 2 * sum("\t" in line.strip() for line in head.lines) >= len(head.lines)


def _half_have(separator: str) -> Callable[[Head, Columns], bool]:
    """A text may mention it."""
    return lambda head, columns: 2 * sum(separator in line for line in head.lines) >= len(head.lines)


def _ends_with(*endings: str) -> Callable[[Head, Columns], bool]:
    return lambda head, columns: head.file.name.lower().removesuffix(".gz").endswith(endings)


# --- the table ------------------------------------------------------------------------------------------------------

FORMATS: dict[str, Format | FolderFormat] = {
    "parquet": Format(
        "a Parquet table with sentences in one column or several",
        read_parquet,
        lambda head, columns: head.start == _PARQUET,
        has_columns=True,
    ),
    "sind": Format(
        "the *.story-in-sequence.json of SIND (VIST)", lambda file, columns: read_sind(file), _looks_like_sind
    ),
    "json": Format("a list of JSON objects with sentences", read_json, _looks_like_json, has_columns=True),
    "jsonl": Format(
        "JSON lines, objects with sentences",
        read_jsonl,
        lambda head, columns: head.first.lstrip().startswith("{"),
        has_columns=True,
    ),
    "csv": Format(
        "rows under a header that names columns of sentences, with commas, tabs or semicolons",
        read_csv,
        _looks_like_csv,
        has_columns=True,
    ),
    "btsort": Format("the pair files of B-TSort", lambda file, columns: read_pairs(file), _looks_like_pairs),
    "eos": Format(
        "lines with <eos> between sentences",
        lambda file, columns: read_separated(file, "<eos>"),
        _half_have("<eos>"),
        separator=" <eos> ",
    ),
    "at-eos": Format(
        "lines with @eos@ between sentences",
        lambda file, columns: read_separated(file, "@eos@"),
        _half_have("@eos@"),
        separator=" @eos@ ",
    ),
    "tsv": Format(
        "lines with a tab between sentences",
        lambda file, columns: read_separated(file, "\t"),
        _looks_like_tsv,
        separator="\t",
    ),
    "lines": Format(
        "one sentence per line, a blank line between documents",
        lambda file, columns: read_blocks(file),
        lambda head, columns: False,  # any text looks like it
        separator="\n",
    ),
    "markdown": Format(
        "Markdown, whose paragraphs are cut into sentences, and these into pieces",
        lambda file, columns: read_text(file, markdown=True),
        _ends_with(".md", ".markdown"),
        running=True,
    ),
    "text": Format(
        "running text, cut likewise",
        lambda file, columns: read_text(file, markdown=False),
        _ends_with(".txt", ".text"),  # what else there is in such a file was tried before
        running=True,
    ),
    "arrow": FolderFormat(
        "a folder that save_to_disk of the datasets library wrote", saved_parts, is_saved, has_columns=True
    ),
    "lists": FolderFormat(
        "a folder with lists of files in split/ and the files, one sentence per line, in txt_tokenized/",
        listed_parts,
        has_lists,
    ),
}
"""Every layout; the first that fits is taken."""


# --- reading --------------------------------------------------------------------------------------------------------


def format_of(file: File, columns: Columns, *, otherwise: str | None = None) -> str:
    """The name of the layout of a file.

    Args:
        file: whose first lines are looked at.
        columns: those that were asked for.
        otherwise: the layout if no other one fits; text is then not taken for running text.

    Raises:
        UserError: if it cannot be read, is empty, or no layout fits.
    """
    head = _head(file)
    if not head.lines and head.start != _PARQUET:
        raise UserError(f"{file.name}: the file holds no documents.")
    for name, format in FORMATS.items():
        if isinstance(format, Format) and format.fits(head, columns) and not (format.running and otherwise):
            return name
    if otherwise is not None:
        return otherwise
    known = ", ".join(f"{name} ({item.description})" for name, item in FORMATS.items() if isinstance(item, Format))
    raise UserError(
        f"{file.name}: this layout is not known. Known are {known}; --format NAME forces one, --columns names columns."
    )


def read_file(file: File, format: str | None = None, reading: Reading | None = None) -> Iterator[Item]:
    """Read the documents of a file one by one.

    How many sentences there are, and whether there is something in each, is not looked at: see
    :func:`~sentorder.data.documents.keep_orderable`.

    Args:
        file: what to read.
        format: a key of :data:`FORMATS`; None to find out.
        reading: which columns hold what, and what is cut into pieces.

    Raises:
        UserError: if it is missing, unreadable, not UTF-8, empty or malformed, naming file and line.
    """
    reading = reading or Reading()
    name = format or format_of(file, reading.columns)
    layout = FORMATS[name]
    if not isinstance(layout, Format):
        raise UserError(f"--format {name}: is {layout.description}, but {file.name} is a file.")
    _check_columns(name, reading.columns, file.name)
    empty = True
    for item in cleaned(cut(layout.read(file, reading.columns), reading.cutting)):
        empty = False
        yield item
    if empty:
        raise UserError(f"{file.name}: the file holds no documents.")


def folder_parts(path: Path, format: str | None, reading: Reading) -> dict[str, Part] | None:
    """The splits of a folder of a known layout; None if it is a folder of files.

    Raises:
        UserError: if it is not of the layout that was asked for, or cannot be read.
    """
    for name, layout in FORMATS.items():
        if isinstance(layout, FolderFormat) and (format == name or (format is None and layout.fits(path))):
            _check_columns(name, reading.columns, str(path))
            return layout.parts(path, reading)
    return None


def _check_columns(name: str, columns: Columns, source: str) -> None:
    if not FORMATS[name].has_columns and columns.names_any:
        raise UserError(f"--columns: {source} is of the format {name} ({FORMATS[name].description}), without columns.")
