"""Running text and long documents, cut into pieces that can be ordered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .documents import Article, Document, Found, Item, Skipped, check_encodable, text_name
from .plain_text import Unit, sections_of_markdown, sections_of_text, split_sentences, windows

WINDOW = 6
"""Sentences of a piece of running text, unless asked otherwise."""
LANGUAGE = "en"
"""Of running text, unless asked otherwise."""


@dataclass(frozen=True)
class Cutting:
    """How; None is what is usual."""

    language: str | None = None
    """Of running text, a code such as ``de``."""
    unit: Unit | None = None
    """What of running text is put into order: sentences, or whole paragraphs."""
    window: int | None = None
    """The most units of a piece, of running text and of documents; without it documents stay whole."""
    stride: int | None = None
    """Units from the beginning of one piece to that of the next; without it pieces do not overlap."""


def cut(found: Iterable[Found], cutting: Cutting) -> Iterator[Item]:
    """Articles fall into pieces of their sections, documents beyond the window into pieces.

    What is cut from one thing is a group (see :class:`Document`): the one that it has, or else one named by its text.

    Args:
        found: what was read.
        cutting: how.

    Raises:
        UserError: if the package that splits sentences is missing, or running text cannot be written in UTF-8.
    """
    for item in found:
        if isinstance(item, Article):
            check_encodable(item.text, item.origin)
            yield from _pieces_of_article(item, cutting)
        elif isinstance(item, Document) and cutting.window is not None and len(item.sentences) > cutting.window:
            group = item.group or item.text_name
            yield from _pieces(item, item.sentences, 0, cutting, group)
        else:
            yield item


def _pieces_of_article(article: Article, cutting: Cutting) -> Iterator[Item]:
    sections = (sections_of_markdown if article.markdown else sections_of_text)(article.text)
    group = article.group or text_name(" ".join(article.text.split()))
    before, any_piece = 0, False
    for paragraphs in sections:
        units = paragraphs
        if cutting.unit != "paragraph":
            language = cutting.language or LANGUAGE
            units = [sentence for paragraph in paragraphs for sentence in split_sentences(paragraph, language)]
        for piece in _pieces(article, units, before, cutting, group):
            any_piece = True
            yield piece
        before += len(units)
    if not any_piece:
        yield Skipped("of running text in which no two sentences follow each other", article.origin)


def _pieces(
    whole: Article | Document, units: list[str], before: int, cutting: Cutting, group: str
) -> Iterator[Document]:
    size = cutting.window or WINDOW
    for start, piece in windows(units, size, cutting.stride or size):
        first, last = before + start + 1, before + start + len(piece)
        yield Document(
            f"{whole.id}-{first}",
            list(piece),
            whole.genre,
            f"{whole.origin}, {cutting.unit or 'sentence'}s {first} to {last}",
            group,
        )
