import dataclasses
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from sentorder.data.formats import Document, keep_orderable, read_file, read_table
from sentorder.errors import UserError


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"id": 7, "genre": "g", "sentences": ["a b", "c"]}\n', [Document("7", ["a b", "c"], "g", "line 1")]),
        ('\ufeff{"sentences": ["a", "b"]}\r\n\r\n{"sentences": ["c", "d"]}\r\n', [["a", "b"], ["c", "d"]]),
        ("a b\tc\td\t\t\ne\tf\n", [["a b", "c", "d"], ["e", "f"]]),
        ("a <eos> b <eos> c\nd <eos> e <eos>\n", [["a", "b", "c"], ["d", "e"]]),
        ('{"sentences": ["one\\u2028line", "two"]}', [["one\u2028line", "two"]]),
    ],
)
def test_layouts(tmp_path: Path, content: str, expected: list[object]) -> None:
    path = tmp_path / "file.data"
    path.write_bytes(content.encode())
    found = read_file(path)
    if isinstance(expected[0], Document):
        assert [dataclasses.replace(d, origin=d.origin.split(", ")[-1]) for d in found] == expected
    else:
        assert [document.sentences for document in found] == expected
        assert found[0].id == "file-1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file holds no documents"),
        (b"\n \n", "the file holds no documents"),
        (b'{"sentences": ["a", "b"]}\n{"sentences": [}\n', "line 2: not valid JSON"),
        (b'{"text": "a"}\n', 'line 1: expected an object with a "sentences" list'),
        (b'{"sentences": null}\n', 'line 1: "sentences" must be a list of strings'),
        (b'{"sentences": "a b"}\n', 'line 1: "sentences" must be a list of strings'),
        (b'{"sentences": ["a", 3]}\n', 'line 1: "sentences" must be a list of strings'),
        (b'{"sentences": ["a", "\\ud83d"]}\n', "holds half a character (a lone surrogate)"),
        (b'{"a":' * 20000 + b"\n", "line 1: not a document (the JSON is nested too deeply)"),
        (b"just some text\n", "this layout is not known"),
        (b'{"id": "\\ud800", "sentences": ["a", "b"]}\n', "line 1: '\\ud800' holds half a character"),
        (b'{"sentences": ["a", "b"], "n": ' + b"9" * 5000 + b"}\n", "line 1: not a document (Exceeds the limit"),
        (b'{"sentences": ["a", "b"]}\n{"sentences": ["a", "\xff"]}\n', "line 2: not UTF-8 text"),
    ],
)
def test_malformed_files_name_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_file(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_documents_with_nothing_to_order_are_counted() -> None:
    texts = [["a", "b"], ["a"], [], ["a", " "], ["c", "d", "e"], ["", "x"]]
    documents = [Document(str(number), text, origin=f"f, line {number}") for number, text in enumerate(texts)]
    kept, notes = keep_orderable(documents, "f")
    assert [document.id for document in kept] == ["0", "4"]
    assert notes == [
        "f: skipped 2 of 6 documents with fewer than two sentences (the first: f, line 1).",
        "f: skipped 2 of 6 documents with an empty sentence (the first: f, line 3).",
    ]
    with pytest.raises(UserError, match="f: there is nothing to order in it. f: skipped 1 of 1 documents with fewer"):
        keep_orderable(documents[1:2], "f")


def test_tables() -> None:
    rows = {"id": ["x", None], "sentences": [["b", "a"], ["c", "d", "e"]], "genre": ["g", None], "more": [1, 2]}
    found = read_table(Dataset.from_dict(rows), "some/name:train")
    assert found[0] == Document("x", ["b", "a"], "g", "some/name:train, row 0")
    assert found[1].id == "name:train-1" and found[1].sentences == ["c", "d", "e"]


def test_the_tutorials_table_comes_out_in_gold_order() -> None:
    """``so_targets[k]`` is the original place of the k-th shuffled sentence, not the inverse permutation."""
    table = Dataset.from_dict(
        {
            "storyid": ["one", "two"],
            "text": ["[CLS] fourth one [CLS] second [CLS] third [CLS] first", "[CLS] b [CLS] a"],
            "so_targets": [[3, 1, 2, 0], [1, 0]],
        }
    )
    assert read_table(table, "t") == [
        Document("one", ["first", "second", "third", "fourth one"], None, "t, row 0"),
        Document("two", ["a", "b"], None, "t, row 1"),
    ]


TUTORIAL = {"text": ["[CLS] a [CLS] b"], "so_targets": [[0, 1]]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"story": ["a"], "title": ["b"]}, 't: expected a column "sentences" .* its columns are: story, title'),
        ({"sentences": [None]}, 't, row 0: "sentences" must be a list of strings'),
        ({"sentences": [["a", "b"], ["a", None]]}, 't, row 1: "sentences" must be a list of strings'),
        ({"sentences": ["a b"]}, 't, row 0: "sentences" must be a list of strings'),
        ({"sentences": []}, "t: the table holds no documents"),
        (TUTORIAL | {"so_targets": [[0, 2]]}, 't, row 0: "so_targets" must give the position'),
        (TUTORIAL | {"so_targets": [[None, 1]]}, 't, row 0: "so_targets" must give the position'),
        (TUTORIAL | {"so_targets": [[0]]}, 't, row 0: "so_targets" must give the position'),
        (TUTORIAL | {"text": ["x [CLS] a [CLS] b"]}, 't, row 0: "so_targets" must give the position'),
        (TUTORIAL | {"text": [None]}, 't, row 0: "text" must be a string'),
    ],
)
def test_malformed_tables_name_the_row(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_table(Dataset.from_dict(columns), "t")
