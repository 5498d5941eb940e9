"""Documents out of running text."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentorder.data.cutting import Cutting, cut
from sentorder.data.documents import Article, Document, Skipped, documents_of
from sentorder.data.plain_text import (
    ends_like_a_sentence,
    sections_of_markdown,
    sections_of_text,
    split_sentences,
    windows,
)
from sentorder.data.reading import SourceOptions
from sentorder.data.sources import load_split, load_splits
from sentorder.errors import UserError

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


@pytest.mark.parametrize("package", ["sentencex", "markdown_it"])
def test_without_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    markdown = package == "markdown_it"
    with pytest.raises(UserError, match=r'needs the extra "text": pip install "sentorder\[text\]"'):
        list(cut([Article("a", "One. Two.", markdown=markdown)], Cutting(), "s"))


def test_articles_and_long_documents_are_cut() -> None:
    article = Article("a", "One. Two. Three.\n\nFour.\n\nII\n\nFive. Six.", "tale", "a.txt")
    cutting = Cutting(window=3, stride=2)
    found = list(cut([article, Document("d", list("12345"), origin="d, line 1"), Document("e", ["x"])], cutting, "s"))
    assert found == [
        Document("a-1", ["One.", "Two.", "Three."], "tale", "a.txt, sentences 1 to 3", "a"),
        Document("a-3", ["Three.", "Four."], "tale", "a.txt, sentences 3 to 4", "a"),
        Document("a-5", ["Five.", "Six."], "tale", "a.txt, sentences 5 to 6", "a"),
        Document("d-1", ["1", "2", "3"], None, "d, line 1, sentences 1 to 3", "d"),
        Document("d-3", ["3", "4", "5"], None, "d, line 1, sentences 3 to 5", "d"),
        Document("e", ["x"]),
    ]
    (paragraphs,) = cut([article], Cutting(unit="paragraph"), "s")
    assert isinstance(paragraphs, Document) and paragraphs.sentences == ["One. Two. Three.", "Four."]
    (nothing,) = cut([Article("b", "Alone.", origin="b.txt")], Cutting(), "s")
    assert isinstance(nothing, Skipped) and nothing.origin == "b.txt"
    with pytest.raises(UserError, match="--language de: is about running text, and s holds sentences"):
        list(cut([Document("d", ["a", "b"])], Cutting(language="de"), "s"))


TEXT = " ".join(f"This is sentence {number}." for number in range(14))


def test_a_folder_of_texts_is_split_by_file(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"chapter{number}.txt").write_text(f"Chapter {number}\n\n{TEXT}\n", encoding="utf-8")
    splits = load_splits(str(tmp_path)).splits
    assert {name: len(documents) for name, documents in splits.items()} == {"train": 24, "validation": 3, "test": 3}
    groups = [set(documents["group"]) for documents in splits.values()]
    assert [len(names) for names in groups] == [8, 1, 1] and len(set.union(*groups)) == 10
    assert [len(sentences) for sentences in splits["test"]["sentences"]] == [6, 6, 2]
    (name,) = groups[2]
    assert splits["test"][1]["id"] == f"{name}-7"
    assert splits["test"][1]["origin"] == f"{tmp_path / str(name)}.txt, sentences 7 to 12"


def test_a_column_of_articles(tmp_path: Path) -> None:
    path = tmp_path / "articles.csv"
    path.write_text(f'url,text\na.org,"{TEXT}"\nb.org,"Short. Text."\n', encoding="utf-8")
    documents, _ = load_split(str(path), None, SourceOptions(columns="id=url", window=10))
    assert [(row["id"], len(row["sentences"]), row["group"]) for row in documents] == [
        ("a.org-1", 10, "a.org"),
        ("a.org-11", 4, "a.org"),
        ("b.org-1", 2, "b.org"),
    ]
    again, _ = load_split(str(path), None, SourceOptions(columns="text=text,group=url", window=10))
    assert again["sentences"][:] == documents["sentences"][:]
    with pytest.raises(UserError, match="name one or the other"):
        load_split(str(path), None, SourceOptions(columns="text=text,sentences=url"))


@pytest.mark.skipif(not SHARED.exists(), reason="the project's corpus is not beside the repository")
def test_the_german_novella_by_chapter() -> None:
    options = SourceOptions(language="de", window=8)
    splits = load_splits(str(SHARED / "german-novella"), options).splits
    documents = [document for split in splits.values() for document in documents_of(split)]
    assert sum(len(document.sentences) for document in documents) == 797  # and one that is left alone at an end
    assert {name: len(set(texts["group"])) for name, texts in splits.items()} == {
        "train": 10,
        "validation": 1,
        "test": 1,
    }
    assert not any(sentence.startswith("#") for document in documents for sentence in document.sentences)
