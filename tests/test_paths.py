"""Folders and globs of files."""

import gzip
import json
import os
from pathlib import Path

import pytest
from datasets import Dataset

from sentorder.data.reading import SourceOptions
from sentorder.data.sources import load_split, load_splits
from sentorder.errors import UserError


def write(path: Path, *documents: str) -> None:
    """One document per letter, in the layout that the name promises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [[f"{letter} first", f"{letter} then"] for letter in documents]
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "jsonl":
        text = "".join(json.dumps({"sentences": text}) + "\n" for text in texts)
    elif kind == "csv":
        text = "sentence1,sentence2\n" + "".join(",".join(text) + "\n" for text in texts)
    else:
        text = "".join(" <eos> ".join(text) + "\n" for text in texts)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def letters(dataset: str) -> dict[str, str]:
    """The documents of each split, by their letters."""
    splits = load_splits(dataset).splits
    return {name: "".join(document["sentences"][0][0] for document in documents) for name, documents in splits.items()}


def test_files_that_are_named_by_split_become_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.txt.gz", "a", "b")
    write(tmp_path / "dev.jsonl", "c")
    write(tmp_path / "test.csv", "d")
    write(tmp_path / "test_results.jsonl", "e")
    write(tmp_path / ".train.jsonl", "f")
    write(tmp_path / "more" / "train.jsonl", "g")
    assert letters(str(tmp_path)) == {"train": "ab", "validation": "c", "test": "d"}
    assert letters(f"train={tmp_path}:dev,validation={tmp_path}:test,test={tmp_path}:train") == {
        "train": "c",
        "validation": "d",
        "test": "ab",
    }
    documents, notes = load_split(str(tmp_path), None)
    assert [document["origin"] for document in documents] == [f"{tmp_path}/test.csv, line 2"]
    assert notes == [f"{tmp_path}: left out 1 files that are not named after a split (the first: test_results.jsonl)."]
    with pytest.raises(UserError, match="has no validation split, only train, dev, test"):
        load_splits(f"train={tmp_path}:validation")
    write(tmp_path / "train.csv", "h")
    with pytest.raises(UserError, match="train.csv and train.txt.gz are both called train; choose with train=FILE"):
        load_splits(str(tmp_path))


def test_pieces_of_a_split_are_one(tmp_path: Path) -> None:
    for number, letter in enumerate("cab"):
        write(tmp_path / f"train-{number:05}-of-00003.jsonl", letter)
    write(tmp_path / "validation-00000-of-00001.jsonl", "d")
    assert letters(str(tmp_path)) == {"train": "cab", "validation": "d"}


def test_other_folders_are_one_source(tmp_path: Path) -> None:
    """Split by texts, as a single file is; each document knows its file."""
    write(tmp_path / "part2.jsonl", *"abcdefgh")
    write(tmp_path / "part1.csv", *"ij")
    splits = load_splits(str(tmp_path)).splits
    assert {name: len(documents) for name, documents in splits.items()} == {"train": 8, "validation": 1, "test": 1}
    documents, notes = load_split(str(tmp_path), None)
    assert [document["sentences"][0][0] for document in documents] == list("ijabcdefgh")
    assert documents[0]["id"] == "part1-2" and documents[0]["origin"] == f"{tmp_path}/part1.csv, line 2"
    assert documents[2]["id"] == "part2-1" and "this is all of it" in notes[0]
    (tmp_path / "README.md").write_text("What this is. It tells about the others.")
    documents, notes = load_split(str(tmp_path), None)
    assert len(documents) == 10
    assert notes[0] == f"{tmp_path}: left out README.md."
    (tmp_path / "letter").write_text("What this is.")
    with pytest.raises(UserError, match="letter: this layout is not known"):
        load_splits(str(tmp_path))
    write(tmp_path / "one" / "train.jsonl", *"abcde")  # a train split and no other
    assert {name: len(part) for name, part in load_splits(str(tmp_path / "one")).splits.items()} == {
        "train": 3,
        "validation": 1,
        "test": 1,
    }


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.txt")
    Path(name).write_text("It rained. We ran.")
    for source in (name, str(tmp_path)):
        with pytest.raises(UserError, match="the name of the file is not UTF-8; rename it"):
            load_split(source, None)


def test_globs(tmp_path: Path) -> None:
    write(tmp_path / "a" / "part.txt.gz", "a", "b")
    write(tmp_path / "b" / "part.txt.gz", "c")
    write(tmp_path / "b" / "train.jsonl", "d")
    documents, _ = load_split(f"{tmp_path}/**/part.*.gz", None)
    assert [document["sentences"][0][0] for document in documents] == list("abc")
    assert len({document["id"] for document in documents}) == 3  # although the files have one name
    assert documents[2]["origin"] == f"{tmp_path}/b/part.txt.gz, line 1"
    assert letters(f"train={tmp_path}/a/*.gz,test={tmp_path}/b/[pt]*") == {"train": "ab", "test": "cd"}
    with pytest.raises(UserError, match=r"\*.tsv: there is no such file"):
        load_splits(f"{tmp_path}/*.tsv")
    (tmp_path / "odd[1].txt").write_text("a <eos> b\n")  # a file may be called like a glob
    assert len(load_split(str(tmp_path / "odd[1].txt"), None)[0]) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: the folder holds no files"):
        load_splits(str(tmp_path / "empty"))


def test_a_format_and_columns_for_all_files(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"{name} one.\nTwo.\n\nThree.\nFour.\n")
    documents, _ = load_split(str(tmp_path), None, SourceOptions(format="lines"))
    assert [document["id"] for document in documents] == ["a-1", "a-4", "b-1", "b-4"]
    (tmp_path / "t.csv").write_text("doc,steps\nx,\"['a', 'b']\"\n")
    Dataset.from_dict({"doc": ["y"], "steps": [["c", "d"]]}).save_to_disk(str(tmp_path / "saved"))
    sources = f"train={tmp_path}/t.csv,test={tmp_path}/saved"
    splits = load_splits(sources, SourceOptions(columns="sentences=steps,id=doc")).splits
    assert [(part[0]["id"], part[0]["sentences"]) for part in splits.values()] == [("x", ["a", "b"]), ("y", ["c", "d"])]
    with pytest.raises(UserError, match="saved: is not a folder that save_to_disk|has no folders split"):
        load_splits(str(tmp_path / "saved"), SourceOptions(format="lists"))


def test_flags_that_mean_nothing() -> None:
    with pytest.raises(UserError, match="--format csv: only files and folders have one, and stories, a/b is none"):
        load_splits("train=stories,test=a/b", SourceOptions(format="csv"))
    with pytest.raises(UserError, match="--columns: has no meaning for stories, which is bundled"):
        load_splits("stories", SourceOptions(columns="id=x"))
    with pytest.raises(UserError, match="--format excel: choose one of parquet, sind, json, jsonl, csv, btsort"):
        load_splits("stories", SourceOptions(format="excel"))
