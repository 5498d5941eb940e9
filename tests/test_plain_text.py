"""Documents out of running text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentorder.data.plain_text import (
    ends_like_a_sentence,
    sections_of_markdown,
    sections_of_text,
    split_sentences,
    windows,
)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "corpus"


def test_headings_part_sections_and_wrapped_lines_are_one_paragraph() -> None:
    text = "CHAPTER I\n\nIt was late\nand dark. He\nslept.\n\nThen it rained.\n\nII\n\nA new day.\n\nThe end\n"
    text = text.replace("\n", "\r\n")
    assert list(sections_of_text(text)) == [["It was late and dark. He slept.", "Then it rained."], ["A new day."]]
    assert list(sections_of_text("One line each.\nNo blank one.\n")) == [["One line each.", "No blank one."]]
    assert list(sections_of_text("彼は\n寝た。\n\n그는\n잤다.\n")) == [["彼は寝た。", "그는 잤다."]]
    assert list(sections_of_text("\n\n")) == list(sections_of_text("")) == []


def test_markdown_is_read_as_its_words() -> None:
    text = """---
title: not text
---
# Rivers

A [river](http://example.org/a_b) is *long*,
and `deep`.

- It starts small. It grows.
- It ends in the sea.

> Said *someone*.

| a | b |
|---|---|
| not | text |

```
not text either
```

See ![a picture](x.png) here.

Lakes
-----

<div>nor this</div>

A lake stands.
"""
    assert list(sections_of_markdown(text)) == [
        [
            "A river is long, and deep.",
            "It starts small. It grows.",
            "It ends in the sea.",
            "Said someone.",
            "See here.",
        ],
        ["A lake stands."],
    ]


@pytest.mark.parametrize(
    ("line", "ends"),
    [
        ("He said: “Go.”", True),
        ("Was it?)", True),
        ("終わった。」", True),
        ("ما هذا؟", True),
        ("यह है।", True),
        ("Chapter 4", False),
        ("»Ja«", False),
        ("(", False),
        ("", False),
    ],
)
def test_what_ends_like_a_sentence(line: str, ends: bool) -> None:
    assert ends_like_a_sentence(line) is ends


def test_sentences_of_german_prose() -> None:
    text = (
        "Am 3. April kam Dr. Siev. „Sie sind die vom Amt.“ Der Stand war 4,12. Um 9 Uhr ging er, z. B. nach Nr. 4417."
    )
    assert split_sentences(text, "de") == [
        "Am 3. April kam Dr. Siev.",
        "„Sie sind die vom Amt.“",
        "Der Stand war 4,12.",
        "Um 9 Uhr ging er, z. B. nach Nr. 4417.",
    ]
    assert split_sentences("There were 3. Then 4.", "en") == ["There were 3.", "Then 4."]


@pytest.mark.skipif(not SHARED.exists(), reason="the project's corpus is not beside the repository")
@pytest.mark.parametrize("language", ["ar", "de", "es", "fr", "hi", "it", "ja", "ru", "tr", "zh"])
def test_passages_in_ten_languages_fall_into_their_sentences(language: str) -> None:
    for line in (SHARED / "multilingual" / f"{language}.jsonl").read_text(encoding="utf-8").splitlines():
        sentences = json.loads(line)["sentences"]
        assert split_sentences(("" if language in ("ja", "zh") else " ").join(sentences), language) == sentences


@given(st.integers(0, 40), st.integers(2, 9), st.integers(1, 12))
def test_windows(length: int, size: int, stride: int) -> None:
    units = [str(number) for number in range(length)]
    found = list(windows(units, size, stride))
    for start, piece in found:
        assert start % stride == 0 and 2 <= len(piece) <= size
        assert list(piece) == units[start : start + len(piece)]
        assert len(piece) == size or start + len(piece) == length
    if stride < size and length > 1:  # nothing is left out, and nothing is a part of another piece
        assert {unit for _, piece in found for unit in piece} == set(units)
        ends = [start + len(piece) for start, piece in found]
        assert len(set(ends)) == len(ends)
