"""``python -m sentorder.data``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from datasets import load_from_disk

from sentorder.data.documents import Document
from sentorder.data.inspection import OFTEN, describe, inspect, says_its_numbers, warnings
from sentorder.data.sources import load_splits
from tests.conftest import Run


@pytest.mark.parametrize(
    ("sentences", "numbered"),
    [
        (["1. Boil.", "2. Pour.", "3. Drink."], True),
        (["Step 1: Boil.", "STEP 2 - Pour.", "And drink."], True),
        (["(1) Boil.", "(2) Pour."], True),
        (["2. Pour.", "1. Boil."], False),
        (["1. Boil.", "Pour.", "Drink."], False),
        (["1912 was cold.", "1913 was not."], False),
        (["10 eggs.", "20 cups."], False),
        ([], False),
    ],
)
def test_sentences_that_say_their_numbers(sentences: list[str], numbered: bool) -> None:
    assert says_its_numbers(sentences) is numbered


def test_what_is_wrong_is_said() -> None:
    train = [Document(str(n), [f"First, {n}.", f"Then {n}.", f"It was {n}."]) for n in range(OFTEN)]
    train += [Document("again", train[0].sentences), Document("numbers", ["1. A", "2. B"]), Document("x", ["y", "y"])]
    test = [Document("t", train[1].sentences), Document("u", ["a", "b"])]
    splits = {"train": inspect(train), "test": inspect(test)}
    assert warnings(splits) == [
        "1 different documents of test are in train too: scores would be too high.",
        "train: 1 of 23 documents stand there for a second time.",
        'train: in 1 of 23 documents the sentences say their own numbers ("1.", "Step 2:"): that is read, not '
        "understood. Take them out.",
        'train: of 21 sentences that begin with "First", 100% are the first of their document.',
        'train: of 21 sentences that begin with "It", 100% are the last of their document.',
    ]
    assert splits["train"].repeating == 1 and splits["train"].median == 3 and splits["train"].number_of_sentences == 67


def test_a_table_of_what_there_is() -> None:
    documents = [Document(str(n), ["word " * 40] * (2 + n), "tale" if n % 2 else None) for n in range(50)]
    lines = describe({"train": inspect(documents), "test": inspect(documents[:1])}, width=60).splitlines()
    assert max(map(len, lines)) <= 60
    figures = {re.split(r"  +", line)[0]: re.split(r"  +", line)[1:] for line in lines[1:8]}
    assert figures["documents"] == ["50", "1"] and figures["of a document, the most"] == ["51", "2"]
    assert figures["genre tale"] == ["25", "0"] and figures["letters of a sentence"] == ["200.0", "200.0"]
    bars = [line for line in lines if "#" in line]
    assert len(bars) == 17 and bars[0].split("#")[0].strip() == "2 to 4" and bars[0].endswith(" 3")
    assert sum(int(line.split()[-1]) for line in bars) == 50


def test_what_a_terminal_would_obey_is_not_shown() -> None:
    shown = describe({"train": inspect([Document("x\x1b[2J", ["a\x1b]0;title\x07", "b"], "g\x9bm")])})
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


@pytest.mark.parametrize("arrow", [False, True])
def test_a_source_is_written_down_and_read_again(run: Run, tmp_path: Path, arrow: bool) -> None:
    source = tmp_path / "books.csv"
    rows = "".join(f"{n},book {n % 5},One {n}.,Two {n}.,\n" for n in range(30))
    source.write_text("id,book,a,b,c\n" + rows + "30,book 0,One.,,\n")
    command = ["-m", "sentorder.data", str(source), "--columns", "sentences=a+b+c,id=id,group=book"]
    result = run("python", *command, "--output", str(tmp_path / "out"), *(["--arrow"] if arrow else []))
    assert result.returncode == 0, result.stderr
    assert re.search(r"documents +18 +6 +6\n", result.stdout), result.stdout
    assert "skipped 1 of 31 documents with fewer than two sentences" in result.stderr
    if arrow:
        tables = load_from_disk(str(tmp_path / "out"))
        written = {split: list(zip(table["id"], table["sentences"], strict=True)) for split, table in tables.items()}
    else:
        files = {path.stem: path.read_text().splitlines() for path in (tmp_path / "out").iterdir()}
        parsed = {split: [json.loads(line) for line in lines] for split, lines in files.items()}
        written = {split: [(row["id"], row["sentences"]) for row in rows] for split, rows in parsed.items()}
        assert {row["group"] for row in parsed["train"]}.isdisjoint(row["group"] for row in parsed["test"])
    again = load_splits(str(tmp_path / "out")).splits
    assert {split: [(d["id"], d["sentences"]) for d in documents] for split, documents in again.items()} == written
    assert sum(map(len, written.values())) == 30 and set(written) == {"train", "validation", "test"}

    twice = run("python", *command, "--output", str(tmp_path / "out"))
    assert twice.returncode == 2 and "--output" in twice.stderr and "is there already; choose another" in twice.stderr
    alone = run("python", *command, "--arrow")
    assert alone.returncode == 2 and "--arrow: says how --output is written; give that too." in alone.stderr
