"""Read documents from files and tables in the layouts that people have, as lists of sentences in gold order.

| layout | one document is | recognised by |
|---|---|---|
| JSONL | a line ``{"sentences": [...]}``, with ``id`` and ``genre`` if there are any | a first line with ``{`` |
| ``<eos>`` lines | a line ``sentence <eos> sentence <eos> ...`` (BERSON, NAON) | ``<eos>`` in the first line |
| TSV | a row, one sentence per cell (STaCK) | a tab in the first line |
| table (Arrow folder, Hub) | a row with ``sentences``, with ``id`` and ``genre`` if there are any | that column |
| the tutorial's table | ``text`` (``[CLS] s_a [CLS] s_b ...``) and ``so_targets``, their positions | those columns |
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from datasets import Dataset

from ..errors import UserError, first_line


@dataclass(frozen=True)
class Document:
    """One text: its sentences in the order of the source (the gold order, unless it is to be predicted)."""

    id: str
    sentences: list[str]
    genre: str | None = None
    origin: str = ""
    """The file and line, or table and row, for messages."""


# --- one layout each: numbered lines -> documents -------------------------------------------------------------------


def _json_document(line: str, where: str, default_id: str) -> Document:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg} at column {error.colno}).") from None
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{where}: not a document ({first_line(error)}).") from None
    except RecursionError:
        raise UserError(f"{where}: not a document (the JSON is nested too deeply).") from None
    if not isinstance(row, dict) or "sentences" not in row:
        raise UserError(f'{where}: expected an object with a "sentences" list, as in {{"sentences": ["...", "..."]}}.')
    sentences = row["sentences"]
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise UserError(f'{where}: "sentences" must be a list of strings.')
    name, genre = row.get("id"), row.get("genre")
    return Document(default_id if name is None else str(name), sentences, None if genre is None else str(genre))


def _eos_document(line: str, where: str, default_id: str) -> Document:
    sentences = [part.strip() for part in line.split("<eos>")]
    # The separator may also close the line.
    return Document(default_id, sentences[:-1] if sentences[-1] == "" else sentences)


def _tsv_document(line: str, where: str, default_id: str) -> Document:
    # Spreadsheets pad short rows with empty cells at the end.
    return Document(default_id, line.rstrip("\t ").split("\t"))


LineReader = Callable[[str, str, str], Document]


def _layout_of(first_line: str, name: str) -> LineReader:
    if first_line.lstrip().startswith("{"):
        return _json_document
    if "<eos>" in first_line:
        return _eos_document
    if "\t" in first_line:
        return _tsv_document
    raise UserError(
        f'{name}: this layout is not known. Give JSON lines with a "sentences" list, rows with one sentence per '
        "tab-separated cell, or lines with <eos> between the sentences."
    )


def parse_documents(lines: Iterable[str], name: str) -> Iterator[Document]:
    """Read documents from the lines of one source, whose layout is found by its first line that is not blank.

    How many sentences there are, and whether there is something in each, is not looked at: see :func:`keep_orderable`.

    Args:
        lines: the lines of a text file.
        name: what errors call the source; with the line number also the id of a document that has none.

    Raises:
        UserError: for a malformed entry, naming source and line.
    """
    layout: LineReader | None = None
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        layout = layout or _layout_of(line, name)
        where = f"{name}, line {number}"
        document = layout(line, where, f"{Path(name).stem}-{number}")
        for text in (document.id, document.genre or "", *document.sentences):
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise UserError(f"{where}: {text[:50]!r} holds half a character (a lone surrogate); repair the text.")
        yield dataclasses.replace(document, sentences=_stripped(document.sentences), origin=where)


def _stripped(sentences: Sequence[str]) -> list[str]:
    """Without white space around them: what a text was cut at would tell where a sentence stood."""
    return [sentence.strip() for sentence in sentences]


def read_file(path: str | Path) -> list[Document]:
    """Read all documents of a file.

    Raises:
        UserError: if the file is missing, unreadable, not UTF-8, empty or malformed.
    """
    with open_text(path) as lines:
        documents = list(parse_documents(lines, str(path)))
    if not documents:
        raise UserError(f"{path}: the file holds no documents.")
    return documents


@contextlib.contextmanager
def open_text(path: str | Path) -> Iterator[TextIO]:
    """A file of UTF-8 text, with or without a byte-order mark.

    Raises:
        UserError: if it is missing or cannot be read, or something in it that is read is not UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig") as lines:
            yield lines
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise not_utf8(Path(path).read_bytes(), str(path)) from None


def not_utf8(data: bytes, name: str) -> UserError:
    """The error for a file whose bytes are not UTF-8, naming the line of the first that is not."""
    try:
        data.decode("utf-8")
        line = 1
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    return UserError(f"{name}, line {line}: not UTF-8 text; convert the file to UTF-8 first.")


# --- tables ---------------------------------------------------------------------------------------------------------

TUTORIAL_MARKER = "[CLS]"
"""What stands before each sentence in the tutorial's ``text``, whatever the tokenizer."""


def read_table(table: Dataset, name: str) -> list[Document]:
    """The documents of a table with ``sentences``, or with the tutorial's ``text`` and ``so_targets``.

    Args:
        table: one document per row.
        name: what errors call it; with the row number also the id of a document that has none.

    Raises:
        UserError: if it has other columns or no rows, or a row is malformed.
    """
    columns = table.column_names
    if "sentences" in columns:
        read: Callable[[Any, str], list[str]] = _sentences_of_row
    elif {"text", "so_targets"} <= set(columns):
        read = _sentences_of_tutorial_row
    else:
        raise UserError(
            f'{name}: expected a column "sentences" (or "text" and "so_targets"); its columns are: '
            f"{', '.join(columns) or 'none'}."
        )
    documents = []
    for number, row in enumerate(table):
        where = f"{name}, row {number}"
        identity = next(
            (row[key] for key in ("id", "storyid") if row.get(key) is not None), f"{Path(name).stem}-{number}"
        )
        sentences, genre = _stripped(read(row, where)), row.get("genre")
        documents.append(Document(str(identity), sentences, None if genre is None else str(genre), where))
    if not documents:
        raise UserError(f"{name}: the table holds no documents.")
    return documents


def _sentences_of_row(row: dict[str, Any], where: str) -> list[str]:
    sentences = row["sentences"]
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise UserError(f'{where}: "sentences" must be a list of strings.')
    return sentences


def _sentences_of_tutorial_row(row: dict[str, Any], where: str) -> list[str]:
    text, targets = row["text"], row["so_targets"]
    if not isinstance(text, str) or not isinstance(targets, list):
        raise UserError(f'{where}: "text" must be a string and "so_targets" a list of positions.')
    before, *shuffled = (piece.strip() for piece in text.split(TUTORIAL_MARKER))
    if before or None in targets or sorted(targets) != list(range(len(shuffled))):
        raise UserError(
            f'{where}: "so_targets" must give the position (0, 1, ...) of each of the {len(shuffled)} sentences that '
            f'follow a {TUTORIAL_MARKER} in "text".'
        )
    return [sentence for _, sentence in sorted(zip(targets, shuffled, strict=True))]


def to_dataset(documents: Sequence[Document]) -> Dataset:
    """The documents as an Arrow table with the columns ``id``, ``genre``, ``origin`` and ``sentences``."""
    return Dataset.from_dict(
        {
            "id": [document.id for document in documents],
            "genre": [document.genre for document in documents],
            "origin": [document.origin for document in documents],
            "sentences": [document.sentences for document in documents],
        }
    )


# --- what can be ordered --------------------------------------------------------------------------------------------


def keep_orderable(documents: Sequence[Document], name: str) -> tuple[list[Document], list[str]]:
    """Leave out documents that have nothing to order, and say so.

    Args:
        documents: of one source.
        name: what the note calls it.

    Returns:
        The documents with two sentences or more and something in each, and a note for each reason to leave one out.

    Raises:
        UserError: if none is left.
    """
    reasons: dict[str, Callable[[Document], bool]] = {
        "with fewer than two sentences": lambda document: len(document.sentences) < 2,
        "with an empty sentence": lambda document: not all(sentence.strip() for sentence in document.sentences),
    }
    kept: list[Document] = []
    left_out = {reason: list[Document]() for reason in reasons}
    for document in documents:
        reason = next((reason for reason, applies in reasons.items() if applies(document)), None)
        (kept if reason is None else left_out[reason]).append(document)
    notes = [
        f"{name}: skipped {len(found)} of {len(documents)} documents {reason} (the first: {found[0].origin})."
        for reason, found in left_out.items()
        if found
    ]
    if not kept:
        raise UserError(f"{name}: there is nothing to order in it. " + " ".join(notes))
    return kept, notes
