import json
from pathlib import Path

import pytest

from sentorder.data.formats import Document, load_split, load_splits, read_documents, split_documents
from sentorder.errors import UserError


def test_the_bundled_corpus_is_complete() -> None:
    splits = load_splits("stories")
    assert {name: len(documents) for name, documents in splits.items()} == {
        "train": 2857,
        "validation": 451,
        "test": 451,
    }
    everything = [document for documents in splits.values() for document in documents]
    assert sum(len(document.sentences) for document in everything) == 21774
    assert {document.genre for document in everything} == {"story", "procedure", "expository"}
    texts = {name: {tuple(document.sentences) for document in documents} for name, documents in splits.items()}
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["validation"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"id": 7, "genre": "g", "sentences": ["a b", "c"]}\n', [Document("7", ["a b", "c"], "g")]),
        ('\ufeff{"sentences": ["a", "b"]}\r\n\r\n{"sentences": ["c", "d"]}\r\n', [["a", "b"], ["c", "d"]]),
        ("a b\tc\td\t\t\ne\tf\n", [["a b", "c", "d"], ["e", "f"]]),
        ("a <eos> b <eos> c\nd <eos> e <eos>\n", [["a", "b", "c"], ["d", "e"]]),
        ('{"sentences": ["one\\u2028line", "two"]}', [["one\u2028line", "two"]]),
    ],
)
def test_layouts(tmp_path: Path, content: str, expected: list[object]) -> None:
    path = tmp_path / "file.data"
    path.write_bytes(content.encode())
    found = read_documents(path)
    if isinstance(expected[0], Document):
        assert found == expected
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
        (b'{"sentences": ["a"]}\n', "line 1: a document needs at least 2 sentences, this one has 1"),
        (b'{"sentences": ["a", " "]}\n', "line 1: a sentence is empty"),
        (b"a\tb\nc\t\td\n", "line 2: a sentence is empty"),
        (b'{"sentences": ["a", "\\ud83d"]}\n', "line 1: a sentence holds half a character"),
        (b'{"a":' * 20000 + b"\n", "line 1: not a document (the JSON is nested too deeply)"),
        (b"just some text\n", "this layout is not known"),
        (b'{"sentences": ["a", "\xff"]}\n', "not UTF-8 text"),
    ],
)
def test_malformed_files_name_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_documents(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_a_file_is_split_by_its_texts_alone() -> None:
    documents = [Document(str(number), [f"a {number}", f"b {number}"]) for number in range(50)]
    splits = split_documents(documents)
    assert {name: len(part) for name, part in splits.items()} == {"train": 40, "validation": 5, "test": 5}
    assert sorted(document.id for part in splits.values() for document in part) == sorted(d.id for d in documents)
    renamed = [Document(f"x{document.id}", document.sentences) for document in reversed(documents)]
    again = split_documents(renamed)
    for name in splits:
        assert {document.sentences[0] for document in splits[name]} == {d.sentences[0] for d in again[name]}


def test_equal_texts_stay_on_one_side_of_a_split() -> None:
    documents = [Document(str(number), [f"a {number % 10}", "b"]) for number in range(100)]
    splits = split_documents(documents)
    sides = [{document.sentences[0] for document in part} for part in splits.values()]
    assert sum(map(len, sides)) == 10 and all(sides)
    with pytest.raises(UserError, match="The file: 1 different documents cannot be split"):
        split_documents(documents[:1] * 5)


def test_evaluation_takes_a_single_file_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps({"sentences": [f"a{i}", "b"]}) + "\n" for i in range(30)))
    assert len(load_split(str(path), None)) == 30
    assert len(load_split(str(path), "test")) == 3
    assert len(load_split(f"test={path}", None)) == 30


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("tales", "no data set and no file of that name. Known data sets: stories"),
        ("missing/file.jsonl", "there is no such file"),
        ("train=a,dev=b", "expected train=FILE,validation=FILE,test=FILE"),
        ("train=", "expected train=FILE,validation=FILE,test=FILE"),
        ("train=a,train=b", "each at most once"),
    ],
)
def test_data_sets_that_are_not_there(dataset: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_splits(dataset)


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("a\tb\n")
    with pytest.raises(UserError, match="has no test split"):
        load_split(f"train={path}", "test")
