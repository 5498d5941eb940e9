"""One row of a table, or one JSON object -> one document; and what ``--columns`` says about it.

| columns | a document is |
|---|---|
| ``sentences`` | that list, in gold order |
| ``shuffled_sentences``, ``gold_order`` | the list, and the position of each of its sentences |
| ``shuf_sents``, ``orig_sents`` (RE-BART) | the list, and where in it the first, the second, ... sentence stands |
| ``text``, ``so_targets`` (the tutorial) | ``[CLS] s_a [CLS] s_b ...``, and the position of each of these |
| ``sentence1``, ``sentence2``, ... (ROCStories) | one sentence per column |
| ``text`` alone | a piece of that running text |
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .documents import Article, Document

Row = Mapping[str, Any]

TUTORIAL_MARKER = "[CLS]"
"""What stands before each sentence in the tutorial's ``text``, whatever the tokenizer."""
_KINDS = ("sentences", "shuffled_sentences", "gold_order", "text", "id", "genre", "group")
_IDS = ("id", "storyid")
_PLACE = re.compile(r"<S(\d+)>|(\d+)")


@dataclass(frozen=True)
class Columns:
    """Which columns hold what; None or empty: those of the names above."""

    sentences: tuple[str, ...] = ()
    """One column of lists, or several with one sentence in each."""
    shuffled_sentences: str | None = None
    gold_order: str | None = None
    text: str | None = None
    """A column of running text."""
    id: str | None = None
    genre: str | None = None
    group: str | None = None
    as_they_stand: bool = False
    """Leave shuffled sentences as they stand, and ask for no order of them: what is to be predicted has none."""

    @property
    def names_any(self) -> bool:
        """Whether any column is named."""
        return self != Columns(as_they_stand=self.as_they_stand)


def parse_columns(text: str) -> Columns:
    """What ``--columns`` says: ``sentences=s1+s2+s3,id=doc``.

    Raises:
        UserError: if it cannot be meant.
    """
    named: dict[str, str] = {}
    for part in text.split(","):
        kind, _, name = (piece.strip() for piece in part.partition("="))
        if kind not in _KINDS or not name or kind in named:
            raise UserError(
                f"--columns {text}: expected KIND=COLUMN,... with the kinds {', '.join(_KINDS)} (each at most once), "
                f"found {part!r}."
            )
        named[kind] = name
    if "text" in named and {"sentences", "shuffled_sentences", "gold_order"} & named.keys():
        raise UserError(f"--columns {text}: a document is made of running text or of sentences; name one or the other.")
    shuffled = {kind: named[kind] for kind in ("shuffled_sentences", "gold_order") if kind in named}
    if shuffled and "sentences" in named:
        raise UserError(
            f"--columns {text}: sentences stand in the right order, shuffled_sentences with gold_order do not; give "
            "one or the other."
        )
    sentences = tuple(name.strip() for name in named.pop("sentences").split("+")) if "sentences" in named else ()
    if shuffled:  # the other one has its usual name
        shuffled = {kind: shuffled.get(kind, kind) for kind in ("shuffled_sentences", "gold_order")}
    others: dict[str, Any] = named | shuffled
    return Columns(sentences, **others)


# --- which columns there are ----------------------------------------------------------------------------------------

RowReader = Callable[[Row, str, str], Document | Article]
"""(row, where it stands, the id that it has without one of its own) -> document."""
_Sentences = Callable[[Row, str], list[str]]


def row_reader(names: Iterable[str], columns: Columns, where: str) -> RowReader:
    """How rows with these columns become documents.

    Args:
        names: the columns that there are.
        columns: those that were asked for.
        where: what errors call the table, or the single row.

    Raises:
        UserError: if nothing in them is known to hold sentences, or a column that was asked for is not there.
    """
    known = list(names)
    present = ", ".join(map(str, known)) or "nothing"
    for name in _missing(known, columns):
        raise UserError(f"{where}: --columns names {name!r}, which is not there; there is {present}.")
    read = _sentences_reader(known, columns)
    text = _text_column(known, columns)
    if read is None and text is None:
        running = "" if columns.as_they_stand else ', or running text as "text"'
        raise UserError(
            f'{where}: expected "sentences" (or "shuffled_sentences" and "gold_order", "shuf_sents" and "orig_sents", '
            f'"text" and "so_targets", "sentence1" and "sentence2" and so on{running}; others with --columns), found '
            f"{present}."
        )
    chosen = columns.sentences or columns.shuffled_sentences or columns.text or columns.as_they_stand
    if not chosen and "sentences" in known and "gold_order" in known:
        raise UserError(
            f'{where}: has "sentences" and "gold_order"; say with --columns sentences=sentences that they stand in '
            "the right order, or with --columns shuffled_sentences=sentences that they do not."
        )
    by_lower_case = {str(name).lower(): name for name in reversed(known)}
    ids = (columns.id,) if columns.id else tuple(by_lower_case[name] for name in _IDS if name in by_lower_case)
    genre_column, group_column = columns.genre or "genre", columns.group or "group"

    def document(row: Row, where: str, default_id: str) -> Document | Article:
        name = next((word for column in ids if (word := _word(row.get(column)))), default_id)
        genre, group = _word(row.get(genre_column)), _word(row.get(group_column))
        if read is None:
            words = "" if _is_nothing(row.get(str(text))) else row.get(str(text))
            if not isinstance(words, str):
                raise UserError(f'{where}: "{text}" must be a string.')
            return Article(name, words, genre, where, group)
        return Document(name, read(row, where), genre, where, group)

    return document


def holds_documents(names: Collection[str], columns: Columns) -> bool:
    """Whether columns with these names are known to, or are those that were asked for."""
    known = _sentences_reader(names, columns) is not None or _text_column(names, columns) is not None
    return known and not _missing(names, columns)


def _text_column(names: Collection[str], columns: Columns) -> str | None:
    """The column of running text; what is to be predicted is no such thing."""
    return columns.text or ("text" if "text" in names and not columns.as_they_stand else None)


def _missing(names: Collection[str], columns: Columns) -> list[str]:
    order = None if columns.as_they_stand else columns.gold_order
    others = (order, columns.text, columns.id, columns.genre, columns.group)
    asked = (*columns.sentences, columns.shuffled_sentences, *others)
    return [name for name in asked if name is not None and name not in names]


def _sentences_reader(names: Collection[str], columns: Columns) -> _Sentences | None:
    loose = columns.as_they_stand
    if columns.text is not None:
        return None
    if columns.shuffled_sentences:
        return _shuffled(columns.shuffled_sentences, columns.gold_order or "gold_order", loose)
    if len(columns.sentences) > 1:
        return _one_per_column(columns.sentences)
    if columns.sentences or "sentences" in names:
        (column,) = columns.sentences or ("sentences",)
        return lambda row, where: _strings(row.get(column), column, where)
    for shuffled, order in (("shuffled_sentences", "gold_order"), ("shuf_sents", "orig_sents")):
        if shuffled in names and (order in names or loose):
            return _shuffled(shuffled, order, loose)
    if "text" in names and "so_targets" in names:
        return lambda row, where: _tutorial_sentences(row, where, loose)
    numbered = {match[1]: name for name in names if (match := re.fullmatch(r"sentence(\d+)", str(name).lower()))}
    if len(numbered) > 1:
        return _one_per_column([numbered[number] for number in sorted(numbered, key=int)])
    return None


# --- one kind of columns each ---------------------------------------------------------------------------------------


def _one_per_column(names: Collection[str]) -> _Sentences:
    def read(row: Row, where: str) -> list[str]:
        sentences = []
        for name in names:
            sentence = row.get(name)
            if not isinstance(sentence, str) and not _is_nothing(sentence):
                raise UserError(f'{where}: "{name}" must be a string.')
            sentences.append("" if _is_nothing(sentence) else str(sentence))
        while sentences and not sentences[-1]:  # of a document with fewer sentences than columns
            sentences.pop()
        return sentences

    return read


def _shuffled(column: str, order_column: str, as_they_stand: bool) -> _Sentences:
    def read(row: Row, where: str) -> list[str]:
        sentences = _strings(row.get(column), column, where)
        if as_they_stand or not sentences:
            return sentences
        order = _list(row.get(order_column))
        if order_column != "orig_sents":
            return _sorted_by(sentences, order, order_column, where)
        # Entry i is the place of the i-th sentence: the inverse of the positions of the shuffled ones.
        found = [_PLACE.fullmatch(str(place)) for place in order] if isinstance(order, list) else []
        places = [int(match[1] or match[2]) for match in found if match]
        if len(places) != len(found) or sorted(places) != list(range(len(sentences))):
            raise UserError(
                f'{where}: "orig_sents" must give the place (0, 1, ... or <S0>, <S1>, ...) of each of the '
                f'{len(sentences)} sentences of "{column}".'
            )
        return [sentences[place] for place in places]

    return read


def _tutorial_sentences(row: Row, where: str, as_they_stand: bool) -> list[str]:
    text = row["text"]
    if _is_nothing(text):
        return []
    if not isinstance(text, str):
        raise UserError(f'{where}: "text" must be a string.')
    before, *shuffled = (piece.strip() for piece in text.split(TUTORIAL_MARKER))
    if before:
        raise UserError(f'{where}: "text" must have a {TUTORIAL_MARKER} before each sentence.')
    return shuffled if as_they_stand else _sorted_by(shuffled, _list(row["so_targets"]), "so_targets", where)


def _sorted_by(sentences: list[str], positions: Any, column: str, where: str) -> list[str]:
    """``positions[k]`` is where sentence k belongs, not the inverse permutation."""
    whole = isinstance(positions, list) and all(type(position) is int for position in positions)
    if not whole or sorted(positions) != list(range(len(sentences))):
        raise UserError(
            f'{where}: "{column}" must give the position (0, 1, ...) of each of the {len(sentences)} shuffled '
            "sentences."
        )
    return [sentence for _, sentence in sorted(zip(positions, sentences, strict=True))]


def _strings(value: Any, column: str, where: str) -> list[str]:
    if _is_nothing(value):
        return []
    sentences = _list(value)
    if isinstance(sentences, list):
        sentences = ["" if _is_nothing(sentence) else sentence for sentence in sentences]
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise UserError(f'{where}: "{column}" must be a list of strings.')
    return sentences


def _is_nothing(value: Any) -> bool:
    """Whether it is what tables have where there is nothing: null, NaN, or an empty cell."""
    return (
        value is None or (isinstance(value, float) and value != value) or (isinstance(value, str) and not value.strip())
    )


def _word(value: Any) -> str | None:
    return None if _is_nothing(value) else str(value).strip()


def _list(value: Any) -> Any:
    """A cell of a CSV file holds a list as JSON, or as pandas writes it, which is Python."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    for parse in (json.loads, _python_list):
        try:
            return parse(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
            continue
    return value


def _python_list(text: str) -> Any:
    """NumPy's way, without commas, is refused: Python takes strings that stand side by side for one."""
    found = ast.literal_eval(text)
    strings = sum(token.type == tokenize.STRING for token in tokenize.generate_tokens(io.StringIO(text).readline))
    if isinstance(found, list) and strings > len(found):
        raise ValueError("no commas")
    return found
