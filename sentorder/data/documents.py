"""Documents: what every reader gives, whatever it reads."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

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

    @property
    def fingerprint(self) -> int:
        """A digest of the texts alone, equal for documents that are equal."""
        return _digest("\0".join(self.sentences))

    @property
    def text_name(self) -> str:
        """A name for what it says; that of its group if it has no other one, so that its pieces are on its side."""
        return text_name("\0".join(sentence.strip() for sentence in self.sentences))

    @property
    def key(self) -> int:
        """A digest of the group, or else of the texts: documents of one key stay on one side of a split."""
        return _digest(self.group or self.text_name)


def text_name(text: str) -> str:
    """A name that is equal for equal texts."""
    return f"text {_digest(text):016x}"


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


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
    depends_on: tuple[Any, ...] | None = None
    """What changes when the documents may have changed; None if that cannot be known, as of a pipe."""
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
        for text in (item.id, item.genre or "", item.group or "", *item.sentences):
            check_encodable(text, item.origin)
        yield dataclasses.replace(item, sentences=[sentence.strip() for sentence in item.sentences])


def check_encodable(text: str, origin: str) -> None:
    """Whether it can be written down.

    Raises:
        UserError: if it cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{origin}: {text[:50]!r} holds half a character (a lone surrogate); repair the text."
        ) from None


def _reason_to_skip(document: Document) -> str | None:
    if len(document.sentences) < 2:
        return "with fewer than two sentences"
    return None if all(sentence.strip() for sentence in document.sentences) else "with an empty sentence"


def keep_orderable(items: Iterable[Item], name: str, notes: list[str]) -> Iterator[Document]:
    """Leave out documents that have nothing to order, and say so at the end.

    Args:
        items: of one source.
        name: what the notes call it.
        notes: gets one for each reason to leave a document out.

    Yields:
        The documents with two sentences or more and something in each.

    Raises:
        UserError: if there is none.
    """
    kept = 0
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for item in items:
        reason = item.reason if isinstance(item, Skipped) else _reason_to_skip(item)
        if reason is not None:
            counts[reason] += 1
            first.setdefault(reason, item.origin)
        elif isinstance(item, Document):
            kept += 1
            yield item
    total = kept + counts.total()
    found = [
        f"{name}: skipped {count} of {total} documents {reason} (the first: {first[reason]})."
        for reason, count in counts.items()
    ]
    if not kept:
        raise UserError(" ".join([f"{name}: there is nothing to order in it.", *found]))
    notes += found
