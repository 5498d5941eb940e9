"""Documents in lines of text: sentences with something between them, or one sentence per line."""

from __future__ import annotations

from collections.abc import Iterator

from .documents import Article, Document
from .text_files import File


def read_separated(file: File, separator: str) -> Iterator[Document]:
    """One document per line, with the separator between its sentences.

    Raises:
        UserError: if the file cannot be read.
    """
    for number, line in file.lines():
        sentences = [part.strip() for part in line.split(separator)]
        # The separator may also close the line, and spreadsheets pad short rows with empty cells.
        while sentences and not sentences[-1]:
            sentences.pop()
        yield Document(file.default_id(number), sentences, origin=f"{file.name}, line {number}")


def read_blocks(file: File) -> Iterator[Document]:
    """Documents as people type them: one sentence per line, a blank line between documents.

    Raises:
        UserError: if the file cannot be read.
    """
    sentences: list[str] = []
    start = before = 0
    for number, line in file.lines():
        if sentences and number > before + 1:
            yield Document(file.default_id(start), sentences, origin=f"{file.name}, line {start}")
            sentences = []
        if not sentences:
            start = number
        sentences.append(line.strip())
        before = number
    if sentences:
        yield Document(file.default_id(start), sentences, origin=f"{file.name}, line {start}")


def read_text(file: File, *, markdown: bool) -> Iterator[Article]:
    """Running text: all of the file.

    Raises:
        UserError: if the file cannot be read.
    """
    with file.open_text() as text:
        yield Article(file.stem, text.read(), origin=file.name, markdown=markdown)
