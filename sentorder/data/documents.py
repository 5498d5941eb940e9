"""Documents: what every reader gives, whatever it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from datasets import Dataset

from ..errors import UserError


@dataclass(frozen=True)
class Document:
    """One text: its sentences in the order of the source (the gold order, unless it is to be predicted)."""

    id: str
    sentences: list[str]
    genre: str | None = None
    origin: str = ""
    """The file and line, or table and row, for messages."""
    group: str | None = None
    """What it is a piece of, such as a book: where a source is split, pieces of one thing stay on one side."""


class Skipped(NamedTuple):
    """A document whose sentences or order cannot be known."""

    reason: str
    """What such documents have in common: it follows "skipped 3 of 20 documents"."""
    origin: str


class Article(NamedTuple):
    """Running text that is still to be cut into documents."""

    id: str
    text: str
    genre: str | None = None
    origin: str = ""
    group: str | None = None
    markdown: bool = False


Item = Document | Skipped
"""What a source is made of in the end."""
Found = Document | Article | Skipped
"""What the reader of a layout yields."""


class Part(NamedTuple):
    """Documents that can be read: a split, or a source without splits."""

    name: str
    """What messages call it."""
    read: Callable[[], Iterable[Item]]
    notes: tuple[str, ...] = ()
    """What there is to say about where it stands."""


WHOLE = "whole"
"""What a source without splits has in place of them."""


def cleaned(items: Iterable[Item]) -> Iterator[Item]:
    """Without white space around sentences: what a text was cut at would tell where a sentence stood.

    Raises:
        UserError: for text that cannot be written down in UTF-8.
    """
    for item in items:
        if isinstance(item, Skipped):
            yield item
            continue
        for text in (item.id, item.genre or "", *item.sentences):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise UserError(
                    f"{item.origin}: {text[:50]!r} holds half a character (a lone surrogate); repair the text."
                ) from None
        yield dataclasses.replace(item, sentences=[sentence.strip() for sentence in item.sentences])


def to_dataset(documents: Sequence[Document]) -> Dataset:
    """The documents as an Arrow table with the columns ``id``, ``genre``, ``group``, ``origin`` and ``sentences``."""
    return Dataset.from_dict(
        {
            "id": [document.id for document in documents],
            "genre": [document.genre for document in documents],
            "group": [document.group for document in documents],
            "origin": [document.origin for document in documents],
            "sentences": [document.sentences for document in documents],
        }
    )


def _reason_to_skip(document: Document) -> str | None:
    if len(document.sentences) < 2:
        return "with fewer than two sentences"
    return None if all(sentence.strip() for sentence in document.sentences) else "with an empty sentence"


def keep_orderable(items: Iterable[Item], name: str) -> tuple[list[Document], list[str]]:
    """Leave out documents that have nothing to order, and say so.

    Args:
        items: of one source.
        name: what the note calls it.

    Returns:
        The documents with two sentences or more and something in each, and a note for each reason to leave one out.

    Raises:
        UserError: if none is left.
    """
    kept: list[Document] = []
    left_out: dict[str, list[str]] = {}
    for item in items:
        if isinstance(item, Skipped):
            left_out.setdefault(item.reason, []).append(item.origin)
        elif reason := _reason_to_skip(item):
            left_out.setdefault(reason, []).append(item.origin)
        else:
            kept.append(item)
    total = len(kept) + sum(map(len, left_out.values()))
    notes = [
        f"{name}: skipped {len(origins)} of {total} documents {reason} (the first: {origins[0]})."
        for reason, origins in left_out.items()
    ]
    if not kept:
        raise UserError(" ".join([f"{name}: there is nothing to order in it.", *notes]))
    return kept, notes
