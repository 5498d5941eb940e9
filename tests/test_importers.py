"""Files as others have them: the layouts of the peers, to the letter, with what is odd about them."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sentorder.data.documents import Document, Item, Skipped, keep_orderable
from sentorder.data.formats import format_of, read_file
from sentorder.data.reading import Reading, SourceOptions
from sentorder.data.rows import Columns
from sentorder.data.sources import load_split, load_splits
from sentorder.data.text_files import File
from sentorder.errors import UserError


def read(text: str, format: str, name: str = "f") -> list[Item]:
    """What a file holds, of which this must be the layout that is found."""
    file = File(name, text.encode())
    assert format_of(file, Columns()) == format
    return list(read_file(file))


# --- ROCStories -----------------------------------------------------------------------------------------------------

ROC_HEADER = "storyid,storytitle,sentence1,sentence2,sentence3,sentence4,sentence5"


def test_rocstories_with_all_that_csv_allows() -> None:
    text = (
        f"\ufeff{ROC_HEADER}\r\n"
        '8bbe6d11-1e2e-413c-bf81-eaea05f4f1bd,David Drops the Weight,"David said, ""I am heavy.""",He ran., It rained. '
        ",He lost weight.,He was glad.\r\n"
        "\r\n"
        'two,"A title,\r\nin two lines","One\r\nline break.",A\ttab.,"A, comma.",Four.,Five.\r\n'
        "three,Short,One.,Two.,Three.,,\r\n"
        "three,Torn,One.,,Three.,Four.,Five.\r\n"
        "five,Cut off,One.,Two.\r\n"
        ",,,,,,\r\n"
    )
    found = read(text, "csv", "roc.csv")
    assert found[:2] == [
        Document(
            "8bbe6d11-1e2e-413c-bf81-eaea05f4f1bd",
            ['David said, "I am heavy."', "He ran.", "It rained.", "He lost weight.", "He was glad."],
            None,
            "roc.csv, line 2",
        ),
        Document("two", ["One\r\nline break.", "A\ttab.", "A, comma.", "Four.", "Five."], None, "roc.csv, line 4"),
    ]
    notes: list[str] = []
    kept = list(keep_orderable(found, "roc.csv", notes))
    assert [len(document.sentences) for document in kept] == [5, 5, 3, 2]
    assert [document.origin for document in kept[2:]] == ["roc.csv, line 7", "roc.csv, line 9"]
    assert notes == ["roc.csv: skipped 1 of 5 documents with an empty sentence (the first: roc.csv, line 8)."]


@pytest.mark.parametrize(
    "header",
    [
        "storyid\tstorytitle\tsentence1\tsentence2\tsentence3\tsentence4\tsentence5",  # 2016 also came with tabs
        "StoryID;StoryTitle;Sentence1;Sentence2;Sentence3;Sentence4;Sentence5",
        '"storyid",storytitle ,"sentence1","sentence2","sentence3","sentence4","sentence5"',
    ],
)
def test_rocstories_of_other_years_and_programs(header: str) -> None:
    cells = ["x", "T", "a", "b", "c", "d", "e"]
    delimiter = next(sign for sign in "\t;," if sign in header)
    assert read(f"{header}\n{delimiter.join(cells)}\n", "csv") == [
        Document("x", ["a", "b", "c", "d", "e"], None, "f, line 2")
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('x,T,"a,b,c,d,e\n', "f, line 2: not a row of CSV \\(unexpected end of data"),
        ('x,T,"a" b,c,d,e,f\n', "f, line 2: not a row of CSV"),
        ("x,T,a,b,c,d,e\ny,T,a,b,c,d,e,f\n", "f, line 3: has 8 cells, and the header 7"),
        ("", "f: the file holds no documents"),
    ],
)
def test_torn_rows_of_csv(rows: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(f"{ROC_HEADER}\n{rows}", "csv")
    with pytest.raises(UserError, match="f, line 1: two columns are called 'sentence1'"):
        read("sentence1,sentence2,sentence1\na,b,c\n", "csv")


# --- RE-BART --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [["2", "0", "3", "1"], ["<S2>", "<S0>", "<S3>", "<S1>"], [2, 0, 3, 1]])
def test_rebart_names_the_place_of_each_sentence(places: list[Any]) -> None:
    """Entry i is where in ``shuf_sents`` the i-th sentence stands; the inverse would be 1, 3, 0, 2."""
    row = {"orig_sents": places, "shuf_sents": ["second .", "fourth .", "first .", "third ."]}
    (document,) = read(json.dumps(row) + "\n", "jsonl")
    assert isinstance(document, Document)
    assert document.sentences == ["first .", "second .", "third .", "fourth ."]


@pytest.mark.parametrize(
    "row",
    [
        {"orig_sents": ["<S1>", "<S1>"], "shuf_sents": ["a", "b"]},
        {"orig_sents": ["<S1>", "<S0>", "<eos>"], "shuf_sents": ["a", "b"]},
        {"orig_sents": ["1", "2"], "shuf_sents": ["a", "b"]},
        {"orig_sents": "<S1> <S0>", "shuf_sents": ["a", "b"]},
    ],
)
def test_rebart_places_that_are_no_order(row: dict[str, Any]) -> None:
    with pytest.raises(UserError, match='f, line 1: "orig_sents" must give the place .* of the 2 sentences of "shuf_s'):
        read(json.dumps(row), "jsonl")


def test_rebart_without_an_order_can_be_predicted() -> None:
    file = File("f", b'{"shuf_sents": ["b", "a"]}\n{"orig_sents": ["1", "0"], "shuf_sents": ["d", "c"]}')
    found = [
        item.sentences
        for item in read_file(file, None, Reading(Columns(as_they_stand=True)))
        if isinstance(item, Document)
    ]
    assert found == [["b", "a"], ["d", "c"]]
    with pytest.raises(UserError, match='f, line 1: expected "sentences"'):
        list(read_file(file))


# --- SIND -----------------------------------------------------------------------------------------------------------


def annotation(story: Any, text: str | None, place: int | None = None) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {
        "original_text": text,
        "album_id": "44277",
        "photo_flickr_id": "1741642",
        "setting": "first-2-pick-and-tell",
        "worker_id": "FJROI8NWDRIPAM1",
        "story_id": story,
        "tier": "story-in-sequence",
        "worker_arranged_photo_order": place,
        "text": "the text in lower case .",
        "storylet_id": "227650",
    }
    return [{key: value for key, value in entry.items() if value is not None}]


SIND = {
    "images": [{"id": "1741642", "title": "photo", "text": ""}],
    "info": {"year": 2016},
    "annotations": [
        annotation("45530", "The parish holds a craft show.", 0),
        annotation("45531", "Told in the order of the file.", None),
        annotation("45530", "Lots of folks come out.", 2),
        annotation("45530", "  The local people sell things.\n", 1),
        [],
        annotation("45531", "This one second.", 0),
        annotation("45532", "A photo and a text.", 0),
        annotation("45532", None, 1),
        annotation("45533", "Here are two", 0),
        annotation("45533", "for one photo.", 0),
        annotation("45534", "Only this one.", 0),
        annotation(45535, "a", "10"),
        annotation(45535, "b", "9"),
    ],
    "type": "story-in-sequence",
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("order", [list, lambda keys: reversed(list(keys))])
def test_sind_is_grouped_by_story(indent: int | None, order: Callable[[Any], Any]) -> None:
    found = read(json.dumps({key: SIND[key] for key in order(SIND)}, indent=indent), "sind", "val.json")
    assert found[0] == Document(
        "45530",
        ["The parish holds a craft show.", "The local people sell things.", "Lots of folks come out."],
        None,
        "val.json, annotation 0",
    )
    notes: list[str] = []
    kept = list(keep_orderable(found, "val.json", notes))
    assert [(document.id, document.sentences[0]) for document in kept[1:]] == [
        ("45531", "Told in the order of the file."),
        ("45535", "b"),
    ]
    assert notes == [
        "val.json: skipped 1 of 6 documents with an empty sentence (the first: val.json, annotation 6).",
        "val.json: skipped 1 of 6 documents with two sentences for one photo (the first: val.json, annotation 8).",
        "val.json: skipped 1 of 6 documents with fewer than two sentences (the first: val.json, annotation 10).",
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"annotations": [[{"original_text": "a"}]]}, 'f, annotation 0: expected a list of an object with "story_id"'),
        ({"annotations": [[], ["a"]]}, "f, annotation 1: expected a list of an object"),
        ({"annotations": [[{"story_id": "1", "original_text": 3}]]}, 'f, annotation 0: "original_text" must be a str'),
    ],
)
def test_other_annotations_are_refused(value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(json.dumps(value), "sind")
    with pytest.raises(UserError, match='f, line 1: expected an object with "annotations"'):
        list(read_file(File("f", b"[]"), "sind"))


def test_a_folder_of_sind(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.story-in-sequence.json").write_text(json.dumps(SIND))
    (tmp_path / "README.txt").write_text("About.")
    splits, notes = load_splits(str(tmp_path))
    assert {name: len(documents) for name, documents in splits.items()} == {"train": 3, "validation": 3, "test": 3}
    assert notes[0] == f"{tmp_path}: left out 1 files that are not named after a split (the first: README.txt)."
    assert len(notes) == 10
    assert notes[-1].startswith(f"{tmp_path}:test: skipped 1 of 6 documents with fewer than two")
    assert splits["train"][0]["origin"] == f"{tmp_path}/train.story-in-sequence.json, annotation 0"


# --- B-TSort --------------------------------------------------------------------------------------------------------


def tabs(*rows: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter="\t").writerows(rows)
    return text.getvalue()


def both(id: str, first: str, second: str) -> list[list[Any]]:
    return [[id, first, second, 1], [id, second, first, 0]]


def test_btsort_pairs_to_train_on() -> None:
    """As prepare_data.py writes them: a pair twice, numbered through the file, none of more than 100 tokens."""
    text = tabs(
        *both("2013le_papers-1-1", 'a "quoted" word', "b"),
        *both("2013le_papers-1-2", 'a "quoted" word', "c, with\ta tab"),
        *both("2013le_papers-1-3", "b", "c, with\ta tab"),
        *both("2013le_papers-2-4", "one", "two"),  # (one, three) was too long, the order follows all the same
        *both("2013le_papers-2-5", "two", "three"),
        *both("2013le_papers-3-6", "p", "q"),  # (q, r) was too long: which of the two is second?
        *both("2013le_papers-3-7", "p", "r"),
        *both("2013le_papers-4-8", "x", "y"),
        *both("2013le_papers-4-9", "y", "x"),  # the same sentence twice, as in x, y, x
        ["2013le_papers-5-10", "later", "sooner", 0],
    )
    assert '"a ""quoted"" word"' in text and text.count("\r\n") == 19
    assert read(text, "btsort") == [
        Document("2013le_papers-1", ['a "quoted" word', "b", "c, with\ta tab"], None, "f, line 1"),
        Document("2013le_papers-2", ["one", "two", "three"], None, "f, line 7"),
        Skipped("whose order does not follow from the pairs that are there", "f, line 11"),
        Skipped("whose pairs contradict each other", "f, line 15"),
        Document("2013le_papers-5", ["sooner", "later"], None, "f, line 19"),
    ]


def test_btsort_pairs_to_test_on() -> None:
    """Each pair once, in either order, with positions; long sentences went through the tokenizer."""
    text = tabs(
        ["1-3-3", "a", "b", 1, 0, 1],
        ["1-3-3", "c", "a", 0, 2, 0],
        ["1-3-3", "b", "c", 1, 1, 2],
        ["2-3-3", "y", "x", 0, 1, 0],
        ["2-3-3", "[CLS] a very long", "x", 0, 2, 0],
        ["2-3-3", "y", "[CLS] a very long sentence [SEP]", 1, 1, 2],
        ["3-3-3", "a", "b", 1, 0, 1],  # the other two pairs are gone
        ["4-2-1", "a", "b", 0, 0, 1],
        ["5-3-3", "a", "b", 1, 0, 1],
        ["5-3-3", "z", "c", 1, 0, 2],
        ["5-3-3", "b", "c", 1, 1, 2],
        ["6-2-1", "b", "a", 0, 1, 0, 0.5, -0.5, 0],  # with what a model said
    )
    assert read(text, "btsort") == [
        Document("1", ["a", "b", "c"], None, "f, line 1"),
        Document("2", ["x", "y", "a very long sentence"], None, "f, line 4"),
        Skipped("whose order does not follow from the pairs that are there", "f, line 7"),
        Skipped("whose pairs contradict each other", "f, line 8"),
        Skipped("whose pairs contradict each other", "f, line 9"),
        Document("6", ["a", "b"], None, "f, line 12"),
    ]


def test_a_row_that_is_no_pair_is_named() -> None:
    text = tabs(*both("train-1-1", "a", "b") * 10, ["train-1-2", "a", "b"])
    with pytest.raises(UserError, match="f, line 21: expected id, sentence, sentence and a label of 0 or 1"):
        read(text, "btsort")
    assert format_of(File("f", b"a-1-1\tb\tc\td\n"), Columns()) == "tsv"  # sentences, not pairs


# --- NIPS, AAN, NSF -------------------------------------------------------------------------------------------------


def write_lists(folder: Path, lists: dict[str, list[str]], files: dict[str, str]) -> None:
    for name in ("split", "txt_tokenized"):
        (folder / name).mkdir(parents=True)
    for name, lines in lists.items():
        (folder / "split" / name).write_text("".join(f"{line}\n" for line in lines))
    for name, text in files.items():
        (folder / "txt_tokenized" / name).write_bytes(text.encode())


def test_lists_of_files(tmp_path: Path) -> None:
    lists = {"train": ["P01-1.txt", "P01-2.txt"], "valid": ["P02-1.txt", ""], "test": ["P03-1.txt"]}
    files = {
        "P01-1.txt": "we show a .\r\n\r\n  then b .\r\n",
        "P01-2.txt": "alone .\n",
        "P02-1.txt": "\ufeffone .\ntwo .",
        "P03-1.txt": "three .\nfour .\nfive .\n",
        "P04-1.txt": "in no list .\n",
    }
    write_lists(tmp_path / "aan", lists, files)
    splits, notes = load_splits(str(tmp_path / "aan"))
    assert {name: [document["sentences"] for document in part] for name, part in splits.items()} == {
        "train": [["we show a .", "then b ."]],
        "validation": [["one .", "two ."]],
        "test": [["three .", "four .", "five ."]],
    }
    path = tmp_path / "aan" / "txt_tokenized"
    assert splits["train"][0]["id"] == "P01-1.txt" and splits["train"][0]["origin"] == str(path / "P01-1.txt")
    assert notes == [
        f"{tmp_path / 'aan'}:train: skipped 1 of 2 documents with fewer than two sentences (the first: "
        f"{path / 'P01-2.txt'})."
    ]
    (tmp_path / "aan" / "split" / "test").write_text("P03-1.txt\nP05-1.txt\n")
    with pytest.raises(UserError, match=r"split/test, line 2: there is no .*/P05-1.txt, and no .*/aP05-1.txt.txt"):
        load_splits(str(tmp_path / "aan"))
    (tmp_path / "aan" / "split" / "test").write_text("P03-1.txt\n../split/test\n")
    with pytest.raises(UserError, match=r"split/test, line 2: ../split/test is not in .*txt_tokenized"):
        load_splits(str(tmp_path / "aan"))
    with pytest.raises(UserError, match="--columns: .*aan is of the format lists .*, without columns"):
        load_splits(str(tmp_path / "aan"), SourceOptions(columns="sentences=s"))
    with pytest.raises(UserError, match=r"has no folders split/ \(lists of files\) and txt_tokenized/"):
        load_splits(str(tmp_path), SourceOptions(format="lists"))


def test_nips_has_years_and_numbers(tmp_path: Path) -> None:
    lists = {"2013le_papers": ["12", "13"], "2014_papers": ["5000"], "2015_papers": ["6000"]}
    write_lists(tmp_path, lists, {f"a{name}.txt": f"{name} .\nthen .\n" for name in (12, 13, 5000, 6000)})
    splits = load_splits(str(tmp_path)).splits
    assert [[document["id"] for document in part] for part in splits.values()] == [["12", "13"], ["5000"], ["6000"]]
    assert list(splits) == ["train", "validation", "test"]
    assert load_split(f"test={tmp_path}:2014_papers", None)[0][0]["sentences"] == ["5000 .", "then ."]
