"""Documents made of running text: paragraphs and headings, sentences, and windows over them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal

from ..errors import UserError

Unit = Literal["sentence", "paragraph"]

# fmt: off
ORDINALS_WITH_A_POINT = frozenset([
    "bs", "cs", "da", "de", "et", "fi", "fo", "hr", "hu", "is", "lb", "lv", "nb", "nn", "no", "pl", "se", "sk", "sl",
    "sr", "tr",
])
# fmt: on
"""Languages that write "the 3rd of April" as "3. April"."""
SENTENCE_ENDS = frozenset(".!?…:;。｡！？：；।॥؟؛۔։።፧᙮។៕།")
_DAY = re.compile(r"(?:^|[\s(])(?:[1-9]|[12]\d|3[01])\.$")


def sections_of_text(text: str) -> Iterator[list[str]]:
    """The paragraphs of each section: what stands between two headings.

    Blank lines part paragraphs, and the lines of one (a text may be wrapped) are joined; in a text without any blank
    line each line is a paragraph. A heading is a paragraph of one line that does not end like a sentence.

    Args:
        text: plain text; the kind of line ends does not matter.
    """
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    blocks: list[list[str]] = [[]]
    if all(lines):
        blocks = [[line] for line in lines]
    else:
        for line in lines:
            if line:
                blocks[-1].append(line)
            elif blocks[-1]:
                blocks.append([])
    section: list[str] = []
    for block in blocks:
        if len(block) == 1 and not ends_like_a_sentence(block[0]):
            if section:
                yield section
            section = []
        elif block:
            section.append(_joined(block))
    if section:
        yield section


def sections_of_markdown(text: str) -> Iterator[list[str]]:
    """The same of Markdown: headings, code, tables, pictures and raw HTML are left out, and links are their words.

    Raises:
        UserError: if the package that reads Markdown is missing.
    """
    try:
        from markdown_it import MarkdownIt
    except ImportError:
        raise _missing("Markdown") from None
    if text.startswith("---\n"):  # what site generators put before a page
        text = re.sub(r"\A---\n.*?\n(?:---|\.\.\.)\n", "", text, count=1, flags=re.DOTALL)
    section: list[str] = []
    inside = [""]  # the blocks that are open
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.nesting:
            inside = [*inside, token.type] if token.nesting > 0 else inside[:-1]
        if token.type in ("heading_open", "hr"):
            if section:
                yield section
            section = []
        elif token.type == "inline" and inside[-1] == "paragraph_open":
            words = "".join(
                part.content if part.type in ("text", "code_inline") else "\n" * part.type.endswith("break")
                for part in token.children or ()
            )
            if words.strip():  # a picture leaves two spaces
                section.append(_joined([" ".join(line.split()) for line in words.split("\n")]))
    if section:
        yield section


def _joined(lines: Sequence[str]) -> str:
    """The lines of a paragraph as one: with a space, but not between two letters of a script that has none."""
    joined = ""
    for line in filter(None, lines):
        space = " " if joined and not (_without_spaces(joined[-1]) and _without_spaces(line[0])) else ""
        joined += space + line
    return joined


def _without_spaces(letter: str) -> bool:
    return unicodedata.east_asian_width(letter) in "WF" and not "\uac00" <= letter <= "\ud7a3"  # Korean has spaces


def ends_like_a_sentence(line: str) -> bool:
    """Whether the last letter but for closing quotes and brackets is one that ends sentences, in any script."""
    end = line.rstrip()
    while (end and unicodedata.category(end[-1]) in ("Pe", "Pf", "Pi", "Ps")) or end[-1:] in ('"', "'"):
        end = end[:-1]
    return end[-1:] in tuple(".!?…:;。｡！？：；।॥؟؛۔։።፧᙮။។៕།") and end != ""


def split_sentences(paragraph: str, language: str) -> list[str]:
    """The sentences of a paragraph.

    Args:
        paragraph: running text.
        language: a code such as ``de``; it says which abbreviations there are. What ends a sentence is known in every
            script, whatever the language.

    Raises:
        UserError: if the package that splits sentences is missing.
    """
    try:
        import sentencex
    except ImportError:
        raise _missing("running text") from None
    sentences: list[str] = []
    for piece in sentencex.segment(language, paragraph):
        piece = piece.strip()
        if not piece:
            continue
        if sentences and language in ORDINALS_WITH_A_POINT and _DAY.search(sentences[-1]) and piece[0].isalpha():
            sentences[-1] = f"{sentences[-1]} {piece}"
        else:
            sentences.append(piece)
    return sentences


def _missing(what: str) -> UserError:
    return UserError(f'Reading {what} needs the extra "text": pip install "sentorder[text]".')


def windows(units: Sequence[str], size: int, stride: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Pieces of so many units; the last may be shorter, but has two or more and ends where the text ends.

    Args:
        units: of a section, in order.
        size: 2 or more.
        stride: from the beginning of one piece to that of the next; below ``size`` they overlap.

    Yields:
        The number of the first unit, and the units.
    """
    for start in range(0, len(units), stride):
        piece = units[start : start + size]
        if len(piece) > 1:
            yield start, piece
        if start + size >= len(units):
            return
