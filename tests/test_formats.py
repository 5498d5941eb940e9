import csv
import gzip
import io
import json
import os
import string
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentorder.data.documents import Document, Item
from sentorder.data.formats import FORMATS, Format, format_of, read_file
from sentorder.data.reading import Reading
from sentorder.data.rows import Columns
from sentorder.data.text_files import File
from sentorder.errors import UserError
from sentorder.ordering import read_input


def sentences_of(items: list[Item]) -> list[list[str]]:
    return [item.sentences for item in items if isinstance(item, Document)]


@pytest.mark.parametrize(
    ("content", "format", "expected"),
    [
        ('\ufeff{"sentences": ["a", "b"]}\r\n\r\n{"sentences": ["c", "d"]}\r\n', "jsonl", [["a", "b"], ["c", "d"]]),
        ('{"sentences": ["one\\u2028line", "two <eos>"]}', "jsonl", [["one\u2028line", "two <eos>"]]),
        ('[{"sentences": ["a", "b"]}, {"sentences": [" c"]}]', "json", [["a", "b"], ["c"]]),
        ('[\n  {\n    "sentences": [\n      "a",\n      "b"\n    ]\n  }\n]\n', "json", [["a", "b"]]),
        ('{\n "sentences": ["a", "b"]\n}\n', "json", [["a", "b"]]),
        ("a b\tc\td\t\t\ne\tf\n", "tsv", [["a b", "c", "d"], ["e", "f"]]),
        ('"a" b\tc "d\n', "tsv", [['"a" b', 'c "d']]),
        ("alone\na\tb\n", "tsv", [["alone"], ["a", "b"]]),
        ("a <eos> b <eos> c\nd <eos> e <eos>\n", "eos", [["a", "b", "c"], ["d", "e"]]),
        ("alone .\r\n\r\na . <eos> b\t. <eos> <eos>\r\n", "eos", [["alone ."], ["a .", "b\t."]]),
        ("a <eos> <eos> b\n<eos>\n", "eos", [["a", "", "b"], []]),
        ("a @eos@ b @eos@ c <eos\nd @eos@ e @eos@", "at-eos", [["a", "b", "c <eos"], ["d", "e"]]),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_layouts(
    tmp_path: Path, content: str, format: str, expected: list[list[str]], pack: Callable[[bytes], bytes]
) -> None:
    """Found by what is in the file: its name says nothing here, not even that it is compressed."""
    path = tmp_path / "file.data"
    path.write_bytes(pack(content.encode()))
    assert format_of(File.at(path), Columns()) == format
    assert sentences_of(list(read_file(File.at(path)))) == sentences_of(list(read_file(File.at(path), format)))
    assert sentences_of(list(read_file(File.at(path)))) == expected


def test_a_sentence_may_be_longer_than_csv_likes() -> None:
    long = "x" * 200_000
    for content in (f"{long} <eos> b\n", f"sentence1,sentence2\n{long},b\n", f"{long}\tb\n"):
        assert sentences_of(list(read_file(File("f", content.encode())))) == [[long, "b"]]


def test_documents_know_where_they_stood() -> None:
    file = File("texts/file.jsonl.gz", b'{"id": 7, "genre": "g", "sentences": ["a b", "c"]}\n\n{"sentences": []}')
    assert list(read_file(file)) == [
        Document("7", ["a b", "c"], "g", "texts/file.jsonl.gz, line 1"),
        Document("file-3", [], None, "texts/file.jsonl.gz, line 3"),
    ]
    assert [item.id for item in read_file(File("x", b"a\tb", label="y/x")) if isinstance(item, Document)] == ["y/x-1"]


def test_what_is_to_be_predicted_stays_as_it_stands() -> None:
    contents = {
        "a @eos@ b": " @eos@ ",
        "a\nb": "\n",
        "a\tb": "\t",
        "sentence1,sentence2\na,b": None,
        '{"shuf_sents": ["a", "b"], "orig_sents": ["1", "0"]}': None,
        '{"shuffled_sentences": ["a", "b"]}': None,
    }
    for content, separator in contents.items():
        documents, found = read_input(File("f", content.encode()), None, Reading())
        assert [document.sentences for document in documents] == [["a", "b"]] and found == separator
    torn = File("f", b"1-2-1\ta\tb\t0\t0\t1\r\n")
    with pytest.raises(UserError, match="f, line 1: a document whose pairs contradict each other"):
        read_input(torn, None, Reading())


def test_lines_are_read_if_asked_for() -> None:
    file = File("f.doc", b"\n\nOne.\r\n  Two.\r\n \t\r\n\r\nThree.\rFour.\n")
    with pytest.raises(UserError, match="f.doc: this layout is not known. Known are .*jsonl \\(JSON lines.*--format"):
        list(read_file(file))
    assert list(read_file(file, "lines")) == [
        Document("f-3", ["One.", "Two."], None, "f.doc, line 3"),
        Document("f-7", ["Three.", "Four."], None, "f.doc, line 7"),
    ]
    assert format_of(File("f.txt", b"A text.\n\tIts second line.\nA third.\n"), Columns(), otherwise="lines") == "lines"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file holds no documents"),
        (b"\n \n", "the file holds no documents"),
        (b"[]", "the file holds no documents"),
        (gzip.compress(b""), "the file holds no documents"),
        (gzip.compress(b"a <eos> b\n" * 999)[:-9], "cannot be read (Compressed file ended before"),
        (b"\x1f\x8bnothing", "cannot be read ("),
        (gzip.compress(b"a <eos> b\n\xff"), "line 2: not UTF-8 text"),
        (b'{"sentences": ["a", "b"]}\n{"sentences": [}\n', "line 2: not valid JSON"),
        (b'{"story": "a"}\n', 'line 1: expected "sentences" (or '),
        (b'{"text": ["a", "b"]}\n', 'line 1: "text" must be a string'),
        (b'{"sentences": "a b"}\n', 'line 1: "sentences" must be a list of strings'),
        (b'{"sentences": ["a", 3]}\n', 'line 1: "sentences" must be a list of strings'),
        (b'{"sentences": ["a", "b"]}\n["a", "b"]\n', "line 2: expected an object"),
        (b'[["a", "b"]]', "row 0: expected an object"),
        (b'[\n{"sentences": ["a", "b"]},\n]', "line 3: not valid JSON"),
        (b'{\n"sentences": ["a", "b"]\n', "line 3: not valid JSON"),
        (b'{"sentences": ["a", "\\ud83d"]}\n', "holds half a character (a lone surrogate)"),
        (b'{"a":' * 20000 + b"\n", "line 1: not a document (the JSON is nested too deeply)"),
        (b"just some text, really\n", "this layout is not known"),
        (b"[1] A text\n", "this layout is not known"),
        (b'{"id": "\\ud800", "sentences": ["a", "b"]}\n', "line 1: '\\ud800' holds half a character"),
        (b'{"sentences": ["a", "b"], "n": ' + b"9" * 5000 + b"}\n", "line 1: not a document (Exceeds the limit"),
        (b'{"sentences": ["a", "b"]}\n{"sentences": ["a", "\xff"]}\n', "line 2: not UTF-8 text"),
        ("a\tb\n".encode("utf-16"), "line 1: not UTF-8 text"),
        (b"PAR1 and no more", "cannot be read as Parquet ("),
    ],
)
def test_malformed_files_name_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        list(read_file(File.at(path)))
    assert str(path) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("jsonl", "f, line 1: not valid JSON"),
        ("json", "f, line 1: not valid JSON"),
        ("sind", "f, line 1: not valid JSON"),
        ("csv", 'f, line 1: expected "sentences" .*, found A text, and more.'),
        ("btsort", "f, line 1: expected id, sentence, sentence and a label"),
        ("parquet", "f: cannot be read as Parquet"),
        ("arrow", "--format arrow: is a folder that save_to_disk .*, but f is a file"),
        ("lists", "--format lists: is a folder with lists .*, but f is a file"),
    ],
)
def test_a_format_that_does_not_fit_is_refused(format: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(read_file(File("f", b"A text; and more.\n"), format))


def test_only_some_formats_have_columns() -> None:
    named = Columns(sentences=("s",))
    for name, layout in FORMATS.items():
        if isinstance(layout, Format) and not layout.has_columns:
            with pytest.raises(UserError, match=f"--columns: f is of the format {name} \\(.*, without columns"):
                list(read_file(File("f", b"a"), name, Reading(named)))


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("a <eos> b\n" * 5000,))
    writer.start()
    assert len(list(read_file(File.at(path)))) == 5000
    writer.join()


# --- any documents come back ----------------------------------------------------------------------------------------


def in_csv(rows: list[list[str]], delimiter: str = ",") -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue()


def header(texts: list[list[str]]) -> list[str]:
    return [f"sentence{number}" for number in range(1, 1 + max(map(len, texts)))]


WRITERS: dict[str, Callable[[list[list[str]]], str]] = {
    "jsonl": lambda texts: "".join(json.dumps({"sentences": text}) + "\n" for text in texts),
    "json": lambda texts: json.dumps([{"sentences": text} for text in texts], indent=1, ensure_ascii=False),
    "csv": lambda texts: in_csv([header(texts), *texts], ";"),
    "sind": lambda texts: json.dumps(
        {
            "annotations": [
                [{"story_id": str(story), "original_text": sentence}]
                for story, text in enumerate(texts)
                for sentence in text
            ]
        }
    ),
    "btsort": lambda texts: in_csv(
        [
            [f"train-{number}-{i}", *(pair if label else pair[::-1]), str(label)]
            for number, text in enumerate(texts)
            for i, first in enumerate(text)
            for second in text[i + 1 :]
            for pair, label in (([first, second], 1), ([first, second], 0))
        ],
        "\t",
    ),
    "eos": lambda texts: "".join(" <eos> ".join(text) + "\n" for text in texts),
    "at-eos": lambda texts: "".join(" @eos@ ".join(text) + "\r\n" for text in texts),
    "tsv": lambda texts: "".join("\t".join(text) + "\n" for text in texts),
    "lines": lambda texts: "\n".join("\n".join(text) + "\n" for text in texts),
}
ANYTHING = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff"), min_size=1)
IN_A_LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff\t\n\r<@"), min_size=1)


def texts_of(sentence: st.SearchStrategy[str]) -> st.SearchStrategy[list[list[str]]]:
    stripped = sentence.map(str.strip).filter(bool)
    return st.lists(st.lists(stripped, min_size=2, max_size=6, unique=True), min_size=1, max_size=5)


@pytest.mark.parametrize("format", WRITERS)
@settings(max_examples=30)
@given(st.data())
def test_any_documents_come_back(format: str, data: st.DataObject) -> None:
    separated = format in ("eos", "at-eos", "tsv", "lines")
    texts = data.draw(texts_of(IN_A_LINE if separated else ANYTHING))
    written = WRITERS[format](texts).encode()
    assert sentences_of(list(read_file(File("f", written), format))) == texts
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        path.write_bytes(gzip.compress(written))
        assert sentences_of(list(read_file(File.at(path), format))) == texts


@pytest.mark.parametrize("format", set(WRITERS) - {"lines"})
@settings(max_examples=30)
@given(texts=texts_of(st.text(string.ascii_letters + " ,;'\"äß。", min_size=1)))
def test_each_layout_is_told_from_the_others(format: str, texts: list[list[str]]) -> None:
    assert format_of(File("f", WRITERS[format](texts).encode()), Columns()) == format
