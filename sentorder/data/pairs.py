"""The pair files of B-TSort: each row two sentences of a document, and which of them comes first.

Both kinds are what Python's csv writes with tabs. Rows to train on are ``split-document-pair, s1, s2, label``; rows to
test on ``document-sentences-pairs, s1, s2, label, position of s1, position of s2`` (and predictions behind them).
"""

from __future__ import annotations

import graphlib
import itertools
import re
from collections.abc import Iterator, Sequence

from ..errors import UserError
from .documents import Document, Item, Skipped
from .tables import cells
from .text_files import File

_TRAIN_ID, _TEST_ID = re.compile(r"(.+)-\d+"), re.compile(r"(\d+)-\d+-\d+")
_TEST_CELLS = 6
_CONTRADICTION = "whose pairs contradict each other"
_INCOMPLETE = "whose order does not follow from the pairs that are there"
Row = Sequence[str]


def is_pair(row: Row) -> bool:
    """Whether a row is one of a pair file."""
    if len(row) < 4 or row[3] not in ("0", "1"):
        return False
    if len(row) == 4:
        return row[0].count("-") >= 2 and _TRAIN_ID.fullmatch(row[0]) is not None
    places = row[4:_TEST_CELLS]
    return len(places) == 2 and all(place.isdecimal() for place in places) and _TEST_ID.fullmatch(row[0]) is not None


def read_pairs(file: File) -> Iterator[Item]:
    """The documents of a pair file.

    Pairs of more than 100 tokens were never written to a file to train on: a document whose order does not follow from
    the others is skipped, and a sentence that is in none of them is lost. In a file to test on such sentences were cut,
    differently in each pair: the longest is taken.

    Raises:
        UserError: if the file cannot be read, or a row is malformed.
    """
    with file.open_text() as text:
        for (document, tested), group in itertools.groupby(_rows(text, file), key=lambda found: found[0]):
            numbered = list(group)
            pairs = [row for _, _, row in numbered]
            origin = f"{file.name}, line {numbered[0][1]}"
            found = _from_places(pairs) if tested else _from_labels(pairs)
            yield Skipped(found, origin) if isinstance(found, str) else Document(document, found, origin=origin)


def _rows(text: Iterator[str], file: File) -> Iterator[tuple[tuple[str, bool], int, Row]]:
    """Each row with the id of its document, and whether it is one to test on."""
    for number, row in cells(text, file.name, "\t"):
        if not is_pair(row):
            raise UserError(
                f"{file.name}, line {number}: expected id, sentence, sentence and a label of 0 or 1, in files to test "
                "on two positions as well, as B-TSort writes them."
            )
        tested = len(row) > 4
        found = (_TEST_ID if tested else _TRAIN_ID).fullmatch(row[0])
        assert found is not None
        yield (found[1], tested), number, row


def _from_labels(pairs: Sequence[Row]) -> list[str] | str:
    """Sentences in the one order that the pairs allow, or why there is none."""
    graph: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for _, first, second, label in pairs:
        before, after = (first, second) if label == "1" else (second, first)
        graph.add(after, before)
    try:
        graph.prepare()
    except graphlib.CycleError:
        return _CONTRADICTION
    sentences: list[str] = []
    while graph.is_active():
        ready = graph.get_ready()
        if len(ready) > 1:
            return _INCOMPLETE
        sentences += ready
        graph.done(*ready)
    return sentences


def _from_places(pairs: Sequence[Row]) -> list[str] | str:
    """Sentences by the positions that each pair gives, or why they cannot be known."""
    texts: dict[int, set[str]] = {}
    for _, first, second, label, *places in pairs:
        one, two = (int(place) for place in places[:2])
        if (one < two) != (label == "1"):
            return _CONTRADICTION
        texts.setdefault(one, set()).add(first)
        texts.setdefault(two, set()).add(second)
    count = int(pairs[0][0].split("-")[1])
    if sorted(texts) != list(range(count)):
        return _INCOMPLETE
    sentences = []
    for place in range(count):
        # A sentence that was cut went through the tokenizer, which left its markers.
        whole = {text for text in texts[place] if not text.startswith("[CLS]")}
        if len(whole) > 1:
            return _CONTRADICTION
        sentences.append(whole.pop() if whole else _unmarked(max(texts[place], key=len)))
    return sentences


def _unmarked(text: str) -> str:
    return text.removeprefix("[CLS]").removesuffix("[SEP]")
