"""Documents made of running text: paragraphs and headings, sentences, and windows over them."""

from __future__ import annotations

import itertools
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
SENTENCE_ENDS = frozenset(".!?…‥:;—–。．｡！？：；‼⁇⁈⁉।॥؟؛۔։׃።፧᙮᠃။៕")
HEADING = 60
"""The most letters of a line that may be a heading."""
_ENDS = "".join(sorted(SENTENCE_ENDS - set(":;—–：；؛")))
_END_INSIDE = re.compile(rf"[{re.escape(_ENDS)}][^\w\s]*\s+\w|[。！？]\w")
_NOTE = re.compile(r"\[\w{1,4}\]$")
_DAY = re.compile(r"(?:^|[\s(])(?:[1-9]|[12]\d|3[01])\.$")
_NUMERAL = re.compile(r"\(?\d{1,3}[.)]")
_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)\n\s*[\w\"'-]+\s*[:=].*?\n(?:\1|\.\.\.)\s*\n", re.DOTALL)


def sections_of_text(text: str) -> Iterator[list[str]]:
    """The paragraphs of each section: what stands between two headings.

    Blank lines part paragraphs, and the lines of one (a text may be wrapped) are joined. In a text without any blank
    line each line is a paragraph if most of them end like sentences; otherwise it is wrapped, and one paragraph. A
    heading is a paragraph of one short line that neither ends like a sentence nor has one end inside.

    Args:
        text: plain text; the kind of line ends does not matter.
    """
    lines = [line.strip() for line in text.strip().splitlines()]
    if all(lines) and 2 * sum(map(ends_like_a_sentence, lines)) >= len(lines):
        blocks = [[line] for line in lines]
    else:
        blocks = [list(block) for filled, block in itertools.groupby(lines, key=bool) if filled]
    section: list[str] = []
    for block in blocks:
        if len(block) == 1 and _is_heading(block[0]):
            if section:
                yield section
            section = []
        else:
            section.append(_joined(block))
    if section:
        yield section


def _is_heading(line: str) -> bool:
    return len(line) <= HEADING and not ends_like_a_sentence(line) and _END_INSIDE.search(line) is None


def sections_of_markdown(text: str) -> Iterator[list[str]]:
    """The same of Markdown: headings, code, tables, pictures and raw HTML are left out, and links are their words.

    Raises:
        UserError: if the package that reads Markdown is missing.
    """
    try:
        from markdown_it import MarkdownIt
    except ImportError:
        raise _missing("Markdown") from None
    text = _FRONT_MATTER.sub("", "\n".join(text.lstrip("\ufeff").splitlines()) + "\n")  # of site generators
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
    """Whether the last letter is one that ends sentences, in any script; closing quotes, notes and the like aside."""
    end = line.rstrip()
    while end and (end[-1] in "\"'*_†‡" or unicodedata.category(end[-1]) in ("Pe", "Pf", "Pi", "Cf", "No")):
        end = _NOTE.sub("", end) if _NOTE.search(end) else end[:-1]
    return end[-1:] != "" and end[-1] in SENTENCE_ENDS


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
        last = sentences[-1] if sentences else ""
        ordinal = language in ORDINALS_WITH_A_POINT and _DAY.search(last) and piece[0].isalpha()
        if ordinal or _NUMERAL.fullmatch(last):  # the number of an item is no sentence
            sentences[-1] = f"{sentences[-1]} {piece}"
        else:
            sentences.append(piece)
    return sentences


def _missing(what: str) -> UserError:
    return UserError(f'Reading {what} needs the extra "text": pip install "sentorder[text]".')


def windows(units: Sequence[str], size: int, stride: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Pieces of so many units; the last may be shorter, and ends where the text ends.

    Args:
        units: of a section, in order.
        size: 2 or more.
        stride: from the beginning of one piece to that of the next; below ``size`` they overlap.

    A unit that would be left alone takes the one before it along. Fewer than two units make no piece.

    Yields:
        The number of the first unit, and the units.
    """
    for start in range(0, len(units), stride):
        first = min(start, max(0, len(units) - 2))
        if len(units) > 1:
            yield first, units[first : start + size]
        if start + size >= len(units):
            return
