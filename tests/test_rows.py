"""Tables of all kinds, and which of their columns hold what."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from sentorder.data.documents import Document, cleaned, keep_orderable
from sentorder.data.formats import format_of, read_file
from sentorder.data.reading import Reading, SourceOptions
from sentorder.data.rows import Columns, parse_columns
from sentorder.data.sources import load_split, load_splits
from sentorder.data.tables import read_table
from sentorder.data.text_files import File
from sentorder.errors import UserError

NONE = Columns()


def test_tables() -> None:
    rows = {"id": ["x", None], "sentences": [["b", " a"], ["c", "d", "e"]], "genre": ["g", None], "more": [1, 2]}
    found = list(cleaned(read_table(Dataset.from_dict(rows), "some/name:train", NONE)))
    assert found[0] == Document("x", ["b", "a"], "g", "some/name:train, row 0")
    assert found[1] == Document("name:train-1", ["c", "d", "e"], None, "some/name:train, row 1")


def test_parquet_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "table"
    Dataset.from_dict({"sentences": [[f"a {row}", "b"] for row in range(2500)]}).to_parquet(path)
    found = list(read_file(File.at(path)))
    assert format_of(File.at(path), NONE) == "parquet" and len(found) == 2500
    assert found[2499] == Document("table-2499", ["a 2499", "b"], None, f"{path}, row 2499")


# --- an order in numbers --------------------------------------------------------------------------------------------


def test_the_tutorials_table_comes_out_in_gold_order() -> None:
    """``so_targets[k]`` is the original place of the k-th shuffled sentence, not the inverse permutation."""
    table = Dataset.from_dict(
        {
            "storyid": ["one", "two"],
            "text": ["[CLS] fourth one [CLS] second [CLS] third [CLS] first", "[CLS] b [CLS] c [CLS] a"],
            "so_targets": [[3, 1, 2, 0], [1, 2, 0]],
        }
    )
    assert list(read_table(table, "t", NONE)) == [
        Document("one", ["first", "second", "third", "fourth one"], None, "t, row 0"),
        Document("two", ["a", "b", "c"], None, "t, row 1"),
    ]


SHUFFLED = {"shuffled_sentences": ["third", "fourth", "first", "second"], "gold_order": [2, 3, 0, 1]}
TURNED = {"shuffled_sentences": ["second", "third", "first"], "gold_order": [1, 2, 0]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [(SHUFFLED, ["first", "second", "third", "fourth"]), (TURNED, ["first", "second", "third"])],
)
def test_gold_order_gives_each_shuffled_sentence_its_position(row: dict[str, Any], expected: list[str]) -> None:
    """The second row tells it from its inverse, which would be 2, 0, 1."""
    file = File("f", json.dumps(row).encode())
    (document,) = read_file(file)
    (unsorted,) = read_file(file, None, Reading(Columns(as_they_stand=True)))
    assert isinstance(document, Document) and document.sentences == expected
    assert isinstance(unsorted, Document) and unsorted.sentences == row["shuffled_sentences"]


def test_sentences_with_an_order_need_a_word() -> None:
    """Are they shuffled or not? Only the owner knows."""
    file = File("f", b'{"sentences": ["second", "third", "first"], "gold_order": [1, 2, 0]}')
    with pytest.raises(
        UserError, match='f, line 1: has "sentences" and "gold_order"; say with --columns sentences=sen'
    ):
        list(read_file(file))
    with pytest.raises(UserError, match='f, line 1: has "sentences" and "gold_order"'):
        list(read_file(File("f", b"sentences,gold_order\n")))
    for text, expected in (
        ("sentences=sentences", ["second", "third", "first"]),
        ("shuffled_sentences=sentences", ["first", "second", "third"]),
    ):
        (document,) = read_file(file, None, Reading(parse_columns(text)))
        assert isinstance(document, Document) and document.sentences == expected


TUTORIAL = {"text": ["[CLS] a [CLS] b"], "so_targets": [[0, 1]]}
ORDERED = {"shuffled_sentences": [["a", "b"]], "gold_order": [[1, 0]]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"story": ["a"], "title": ["b"]}, 't: expected "sentences" .*--columns\\), found story, title'),
        ({"gold_order": [[0, 1]]}, 't: expected "sentences" .*, found gold_order'),
        ({"sentence1": ["a"]}, 't: expected "sentences" .*, found sentence1'),
        ({"sentences": ["a b"]}, 't, row 0: "sentences" must be a list of strings'),
        ({"sentences": ["['a' b"]}, 't, row 0: "sentences" must be a list of strings'),
        ({"sentences": []}, "t: the table holds no documents"),
        ({"sentence1": ["a"], "sentence2": [3]}, 't, row 0: "sentence2" must be a string'),
        (TUTORIAL | {"so_targets": [[0, 2]]}, 't, row 0: "so_targets" must give the position'),
        (TUTORIAL | {"so_targets": [[None, 1]]}, 't, row 0: "so_targets" must give the position'),
        (TUTORIAL | {"so_targets": [[0]]}, 't, row 0: "so_targets" must give the position'),
        (TUTORIAL | {"so_targets": [None]}, 't, row 0: "so_targets" must give the position'),
        (TUTORIAL | {"text": ["x [CLS] a [CLS] b"]}, r't, row 0: "text" must have a \[CLS\] before each sentence'),
        (TUTORIAL | {"text": [3]}, 't, row 0: "text" must be a string'),
        (ORDERED | {"gold_order": [[1, 2]]}, 't, row 0: "gold_order" must give the position .* of the 2 shuffled'),
        (ORDERED | {"gold_order": [["1", "0"]]}, 't, row 0: "gold_order" must give the position'),
    ],
)
def test_malformed_tables_name_the_row(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(read_table(Dataset.from_dict(columns), "t", NONE))


def test_nothing_in_a_cell_is_no_sentence() -> None:
    """A table of a thousand documents shall not end at the one that is missing: it is skipped and counted."""
    rows = {"sentences": [None, ["a", "b"], ["a", None, "c"]]}
    notes: list[str] = []
    kept = list(keep_orderable(read_table(Dataset.from_dict(rows), "t", NONE), "t", notes))  # type: ignore[arg-type]
    assert [document.sentences for document in kept] == [["a", "b"]]
    assert notes == [
        "t: skipped 1 of 3 documents with fewer than two sentences (the first: t, row 0).",
        "t: skipped 1 of 3 documents with an empty sentence (the first: t, row 2).",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", 'id,sentences\n1,\n2,"[""a"", ""b""]"\n'),
        ("t.jsonl", '{"sentences": ["a", NaN]}\n{"sentences": ["a", "b"]}\n'),
        ("t.jsonl", '{"sentence1": "a", "sentence2": NaN}\n{"sentence1": "a", "sentence2": "b"}\n'),
        ("t.jsonl", '{"shuffled_sentences": null, "gold_order": null}\n'
                    '{"shuffled_sentences": ["b", "a"], "gold_order": [1, 0]}\n'),
        ("t.jsonl", '{"text": null, "so_targets": null}\n{"text": "[CLS] b [CLS] a", "so_targets": [1, 0]}\n'),
        ("t.jsonl", '{"text": null}\n{"text": "It rained. Then came b."}\n'),
    ],
)  # fmt: skip
def test_nothing_is_said_in_many_ways(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    documents, notes = load_split(str(tmp_path / name), None)
    assert [sentences[-1][-2:].strip(".") for sentences in documents["sentences"]] == ["b"]
    assert notes[0].startswith(f"{tmp_path / name}: skipped 1 of 2 documents ")


# --- --columns ------------------------------------------------------------------------------------------------------


def test_columns_are_named() -> None:
    assert parse_columns("sentences=a, id=b,genre = c") == Columns(("a",), id="b", genre="c")
    assert parse_columns("sentences=a+b c+d") == Columns(("a", "b c", "d"))
    assert parse_columns("gold_order=o") == Columns(shuffled_sentences="shuffled_sentences", gold_order="o")
    assert parse_columns("shuffled_sentences=s") == Columns(shuffled_sentences="s", gold_order="gold_order")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "steps",
            "expected KIND=COLUMN,... with the kinds sentences, shuffled_sentences, gold_order, text, id, genre, gr",
        ),
        ("sentence=steps", "\\(each at most once\\), found 'sentence=steps'"),
        ("id=", "found 'id='"),
        ("id=a,id=b", "found 'id=b'"),
        ("", "found ''"),
        ("sentences=a,gold_order=b", "sentences stand in the right order, shuffled_sentences with gold_order do not"),
    ],
)
def test_columns_that_cannot_be_meant(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"--columns {text}: .*{message}|--columns {text}: {message}"):
        load_splits("missing.csv", SourceOptions(columns=text))


@pytest.mark.parametrize(
    ("content", "columns", "format"),
    [
        ('doc,kind,s1,s2,s3\nx,g,a,b,""\n', "sentences=s1+s2+s3,id=doc,genre=kind", "csv"),
        ('kind;doc;steps\ng;x;"[""a"", ""b""]"\n', "sentences=steps,id=doc,genre=kind", "csv"),
        ("kind;doc;steps\ng;x;['a', 'b']\n", "sentences=steps,id=doc,genre=kind", "csv"),
        ('k\td\tm\to\ng\tx\t"[""b"", ""a""]"\t[1, 0]\n', "shuffled_sentences=m,gold_order=o,id=d,genre=k", "csv"),
        ('{"doc": "x", "kind": "g", "steps": ["a", "b"]}', "sentences=steps,id=doc,genre=kind", "jsonl"),
        ('{"doc": "x", "kind": "g", "one": "a", "two": "b"}', "sentences=one+two,id=doc,genre=kind", "jsonl"),
        ('[{"doc": "x", "kind": "g", "m": ["b", "a"], "gold_order": [1, 0]}]', "shuffled_sentences=m,id=doc", "json"),
    ],
)
def test_named_columns(content: str, columns: str, format: str) -> None:
    file, named = File("f", content.encode()), parse_columns(columns)
    assert format_of(file, named) == format
    (found,) = read_file(file, None, Reading(named))
    assert isinstance(found, Document)
    assert (found.id, found.sentences) == ("x", ["a", "b"])
    assert found.genre == (None if format == "json" else "g")


@pytest.mark.parametrize(
    ("content", "where"),
    [("a,b\nc,d\n", "f, line 1"), ('{"a": "c", "b": "d"}', "f, line 1"), ('[{"a": 1}]', "f, row 0")],
)
def test_columns_that_are_not_there(content: str, where: str) -> None:
    with pytest.raises(UserError, match=f"{where}: --columns names 'steps', which is not there; there is a"):
        list(read_file(File("f", content.encode()), None, Reading(Columns(sentences=("steps",)))))
    with pytest.raises(UserError, match="t: --columns names 'doc', which is not there; there is sentences"):
        list(read_table(Dataset.from_dict({"sentences": [["a", "b"]]}), "t", Columns(id="doc")))
