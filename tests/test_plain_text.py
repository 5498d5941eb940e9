"""Documents out of running text."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentorder.data.cutting import Cutting, cut
from sentorder.data.document_tables import documents_of
from sentorder.data.documents import Article, Document, Skipped
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
from sentorder.evaluation import scores_of
from tests.conftest import Run

CORPUS = Path(__file__).parent / "corpus"


def test_headings_part_sections_and_wrapped_lines_are_one_paragraph() -> None:
    text = "CHAPTER I\n\nIt was late\nand dark. He\nslept.\n\nThen it rained.\n\nII\n\nA new day.\n\nThe end\n"
    text = text.replace("\n", "\r\n")
    assert list(sections_of_text(text)) == [["It was late and dark. He slept.", "Then it rained."], ["A new day."]]
    assert list(sections_of_text("One line each.\nNo blank one.\n")) == [["One line each.", "No blank one."]]
    assert list(sections_of_text("\nTitle\n\nWrapped here and\nthere. It ends.\n")) == [
        ["Wrapped here and there. It ends."]
    ]
    wrapped = "The old man walked along the\nriver until he saw a boat. He\nstopped and looked, and\nthen he sat."
    assert list(sections_of_text(wrapped)) == [[wrapped.replace("\n", " ")]]
    kept = "A first sentence. A second one, and a third without an end"
    assert list(sections_of_text(f"Heading\n\n{kept}\n\nIt ends.")) == [[kept, "It ends."]]
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
        ("so it was.[12]", True),
        ("_She wept._", True),
        ("“But you said—”", True),
        ("ends here.\u200f", True),
        ("as he wrote.²", True),
        ("(", False),
        ("", False),
    ],
)
def test_what_ends_like_a_sentence(line: str, ends: bool) -> None:
    assert ends_like_a_sentence(line) is ends


def test_what_site_generators_put_first_is_no_text() -> None:
    for head in ("---\r\ntitle: x\r\nsummary: A cat. A dog.\r\n---\r\n", '+++\ntitle = "x"\n+++\n'):
        assert list(sections_of_markdown(head + "The cat sat.\r\n")) == [["The cat sat."]]
    assert list(sections_of_markdown("---\n\nFirst.\n\n---\n\nSecond.\n")) == [["First."], ["Second."]]


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
    assert split_sentences("1. Mix the flour. 2. Bake it.", "en") == ["1. Mix the flour.", "2. Bake it."]


@pytest.mark.parametrize("language", ["ar", "de", "es", "fr", "hi", "it", "ja", "ru", "tr", "zh"])
def test_passages_in_ten_languages_fall_into_their_sentences(language: str) -> None:
    for line in (CORPUS / "multilingual" / f"{language}.jsonl").read_text(encoding="utf-8").splitlines():
        sentences = json.loads(line)["sentences"]
        assert split_sentences(("" if language in ("ja", "zh") else " ").join(sentences), language) == sentences


@given(st.integers(0, 40), st.integers(2, 9), st.integers(1, 12))
def test_windows(length: int, size: int, stride: int) -> None:
    units = [str(number) for number in range(length)]
    found = list(windows(units, size, stride))
    for start, piece in found:
        assert 2 <= len(piece) <= size and list(piece) == units[start : start + len(piece)]
        assert (start % stride == 0 and len(piece) == size) or start + len(piece) == length
    if stride <= size and length > 1:  # nothing is left out, and nothing is a part of another piece
        assert {unit for _, piece in found for unit in piece} == set(units)
        ends = [start + len(piece) for start, piece in found]
        assert len(set(ends)) == len(ends)


@pytest.mark.parametrize("package", ["sentencex", "markdown_it"])
def test_without_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    markdown = package == "markdown_it"
    with pytest.raises(UserError, match=r'needs the extra "text": pip install "sentorder\[text\]"'):
        list(cut([Article("a", "One. Two.", markdown=markdown)], Cutting()))


def test_articles_and_long_documents_are_cut() -> None:
    article = Article("a", "One. Two. Three.\n\nFour.\n\nII\n\nFive. Six.", "tale", "a.txt")
    cutting = Cutting(window=3, stride=2)
    long = Document("d", list("12345"), origin="d, line 1")
    found = list(cut([article, long, Document("e", ["x"])], cutting))
    group = long.text_name
    (text,) = {document.group for document in found[:3] if isinstance(document, Document)}
    assert found == [
        Document("a-1", ["One.", "Two.", "Three."], "tale", "a.txt, sentences 1 to 3", text),
        Document("a-3", ["Three.", "Four."], "tale", "a.txt, sentences 3 to 4", text),
        Document("a-5", ["Five.", "Six."], "tale", "a.txt, sentences 5 to 6", text),
        Document("d-1", ["1", "2", "3"], None, "d, line 1, sentences 1 to 3", group),
        Document("d-3", ["3", "4", "5"], None, "d, line 1, sentences 3 to 5", group),
        Document("e", ["x"]),
    ]
    assert {document.key for document in found[3:5] if isinstance(document, Document)} == {long.key}
    (again,) = {
        d.group for d in cut([article._replace(id="x", origin="y", text=article.text.replace(" ", "\n"))], cutting)
    }
    assert again == text  # whatever its name is
    (paragraphs,) = cut([article], Cutting(unit="paragraph"))
    assert isinstance(paragraphs, Document) and paragraphs.sentences == ["One. Two. Three.", "Four."]
    (nothing,) = cut([Article("b", "Alone.", origin="b.txt")], Cutting())
    assert isinstance(nothing, Skipped) and nothing.origin == "b.txt"
    with pytest.raises(UserError, match="c.txt: .* holds half a character"):
        list(cut([Article("c", "Half \ud800. Two.", origin="c.txt")], Cutting()))
    for wrong, message in (
        (SourceOptions(stride=2), "--stride 2: goes with --window"),
        (SourceOptions(window=3, stride=4), "--stride 4: beyond --window 3"),
        (SourceOptions(language="German"), "--language German: give a code"),
    ):
        with pytest.raises(UserError, match=message):
            wrong.reading()
    assert SourceOptions(language="de_AT").reading().cutting.language == "de"


TEXT = " ".join(f"This is sentence {number}." for number in range(14))


def test_a_folder_of_texts_is_split_by_file(tmp_path: Path) -> None:
    for number in range(10):
        text = f"Chapter {number}\n\n{TEXT} The end of {number}.\n"
        (tmp_path / f"chapter{number}.txt").write_text(text, encoding="utf-8")
    splits = load_splits(str(tmp_path)).splits
    assert {name: len(documents) for name, documents in splits.items()} == {"train": 24, "validation": 3, "test": 3}
    groups = [set(documents["group"]) for documents in splits.values()]
    assert [len(names) for names in groups] == [8, 1, 1] and len(set.union(*groups)) == 10
    assert [len(sentences) for sentences in splits["test"]["sentences"]] == [6, 6, 3]
    name, _, first = str(splits["test"][1]["id"]).partition("-")
    assert first == "7" and splits["test"][1]["origin"] == f"{tmp_path / name}.txt, sentences 7 to 12"
    for path in list(tmp_path.iterdir()):  # the split depends on texts, not on names, and copies stay on their side
        path.with_name(f"copy of {path.name}").write_bytes(path.read_bytes())
    assert [set(documents["group"]) for documents in load_splits(str(tmp_path)).splits.values()] == groups


def test_a_column_of_articles(tmp_path: Path) -> None:
    path = tmp_path / "articles.csv"
    path.write_text(f'url,text\na.org,"{TEXT}"\nb.org,"Short. Text."\n', encoding="utf-8")
    documents, _ = load_split(str(path), None, SourceOptions(columns="id=url", window=10))
    assert [(row["id"], len(row["sentences"])) for row in documents] == [
        ("a.org-1", 10),
        ("a.org-11", 4),
        ("b.org-1", 2),
    ]
    assert [documents["group"].index(group) for group in documents["group"]] == [0, 0, 2]
    again, _ = load_split(str(path), None, SourceOptions(columns="text=text,group=url", window=10))
    assert again["sentences"][:] == documents["sentences"][:] and again["group"][:] == ["a.org", "a.org", "b.org"]
    with pytest.raises(UserError, match="name one or the other"):
        load_split(str(path), None, SourceOptions(columns="text=text,sentences=url"))


def test_the_german_novella_by_chapter() -> None:
    options = SourceOptions(language="de", window=8)
    splits = load_splits(str(CORPUS / "german-novella"), options).splits
    documents = [document for split in splits.values() for document in documents_of(split)]
    assert sum(len(document.sentences) for document in documents) == 799  # one of the 798 stands in two pieces
    assert {name: len(set(texts["group"])) for name, texts in splits.items()} == {
        "train": 10,
        "validation": 1,
        "test": 1,
    }
    assert not any(sentence.startswith("#") for document in documents for sentence in document.sentences)


def test_a_novella_is_trained_on_and_whole_chapters_are_put_into_order(
    run: Run, tiny_encoder: str, tmp_path: Path
) -> None:
    chapters = [str(CORPUS / "german-novella" / f"kapitel-{number:02}.txt") for number in (1, 2, 3)]
    dataset = ",".join(map("=".join, zip(("train", "validation", "test"), chapters, strict=True)))
    out = tmp_path / "run"
    trained = run(
        *("python", "-m", "sentorder.train", "--dataset", dataset, "--language", "de", "--window", "6"),
        *("--model_name_or_path", tiny_encoder, "--max_steps", "3", "--output_dir", str(out)),
    )
    assert trained.returncode == 0, trained.stderr
    lengths = [len(json.loads(line)["order"]) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert max(lengths) == 6 and min(lengths) > 1
    sentences = sum(lengths)
    for pieces in ((), ("--piece_length", "12")):
        # A chapter as a whole: against the order of all its sentences.
        scored = run(
            *("python", "-m", "sentorder.evaluation", "--model_path", str(out / "model"), "--dataset", chapters[2]),
            *("--language", "de", "--window", "500", "--output_dir", str(tmp_path / "scored"), *pieces),
        )
        assert scored.returncode == 0, scored.stderr
        rows = [json.loads(line) for line in (tmp_path / "scored/predictions.jsonl").read_text().splitlines()]
        assert sum(len(row["order"]) for row in rows) == sentences and max(len(row["order"]) for row in rows) > 20
        results = json.loads((tmp_path / "scored/results.json").read_text())
        assert results["kendall_tau"] == pytest.approx(scores_of([row["order"] for row in rows])["kendall_tau"])


@pytest.mark.parametrize("language", ["ar", "ja"])
def test_other_scripts_are_trained_on_and_predicted(run: Run, tiny_encoder: str, tmp_path: Path, language: str) -> None:
    file = CORPUS / "multilingual" / f"{language}.jsonl"
    out = tmp_path / "run"
    trained = run(
        *("python", "-m", "sentorder.train", "--dataset", str(file), "--model_name_or_path", tiny_encoder),
        *("--max_steps", "2", "--output_dir", str(out)),
    )
    assert trained.returncode == 0, trained.stderr
    sentences = json.loads(file.read_text(encoding="utf-8").splitlines()[0])["sentences"]
    done = run("python", "-m", "sentorder.predict", "--model_path", str(out / "model"), stdin="\n".join(sentences))
    assert done.returncode == 0 and sorted(done.stdout.splitlines()) == sorted(sentences), done.stderr


def test_running_text_is_rated(run: Run, model_path: str) -> None:
    chapter = str(CORPUS / "german-novella" / "kapitel-03.txt")
    command = ("python", "-m", "sentorder.predict", "--model_path", model_path, "--format", "text", "--score")
    done = run(*command, "--language", "de", "--window", "9", chapter)
    assert done.returncode == 0, done.stderr
    expected, _ = load_split(chapter, None, SourceOptions(format="text", language="de", window=9))
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(row["order"]) for row in rows] == [len(sentences) for sentences in expected["sentences"]]
    assert max(len(row["order"]) for row in rows) == 9
    done = run(*command, "--language", "German", chapter)
    assert done.returncode == 2 and "--language German: give a code" in done.stderr
    done = run("python", "-m", "sentorder.predict", "--model_path", model_path, chapter)
    assert done.returncode == 0 and "--format text or markdown reads running text" in done.stderr
