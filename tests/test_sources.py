import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict

from sentorder.data import sources
from sentorder.data.document_tables import documents_of, to_batch
from sentorder.data.documents import Document
from sentorder.data.reading import SourceOptions
from sentorder.data.sources import load_split, load_splits
from sentorder.data.splitting import split_table
from sentorder.errors import UserError


def split_documents(documents: list[Document], name: str = "The source") -> dict[str, list[Document]]:
    splits = split_table(Dataset(pa.Table.from_batches([to_batch(documents)])), name)
    return {split: list(documents_of(table.remove_columns("key"))) for split, table in splits.items()}


def test_pieces_of_one_thing_stay_on_one_side() -> None:
    documents = [Document(str(n), [f"{n}", "b"], group=f"book {n % 20}") for n in range(200)]
    splits = split_documents(documents)
    groups = [{document.group for document in found} for found in splits.values()]
    assert [len(found) for found in groups] == [16, 2, 2] and len(set.union(*groups)) == 20
    assert [len(found) for found in splits.values()] == [160, 20, 20]
    with pytest.raises(UserError, match="x: 2 different groups of documents cannot be split"):
        split_documents([Document("1", ["a", "b"], group=f"{n % 2}") for n in range(9)], "x")


def test_the_bundled_corpus_is_complete() -> None:
    splits = {split: list(documents_of(table)) for split, table in load_splits("stories").splits.items()}
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
    others = load_splits("train=stories,validation=stories:test").splits
    assert {split: list(documents_of(table)) for split, table in others.items()} == {
        "train": splits["train"],
        "validation": splits["test"],
    }
    with pytest.raises(UserError, match="has no training split, only train, validation, test"):
        load_splits("train=stories:training")


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
    with pytest.raises(UserError, match="The source: 1 different documents cannot be split"):
        split_documents(documents[:1] * 5)


def test_evaluation_takes_a_single_file_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps({"sentences": [f"a{i}", "b"]}) + "\n" for i in range(30)))
    documents, (note,) = load_split(str(path), None)
    assert len(documents) == 30 and "this is all of it" in note
    documents, notes = load_split(str(path), "test")
    assert len(documents) == 3 and notes == []
    documents, notes = load_split(f"test={path}", None)
    assert len(documents) == 30 and notes == []


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


# --- folders and the Hub --------------------------------------------------------------------------------------------


def table(prefix: str, rows: int) -> Dataset:
    return Dataset.from_dict({"sentences": [[f"{prefix} {row}", "then"] for row in range(rows)]})


def sizes(dataset: str) -> dict[str, int]:
    return {split: len(documents) for split, documents in load_splits(dataset).splits.items()}


def test_folders_of_save_to_disk(tmp_path: Path) -> None:
    whole, parts, odd = (str(tmp_path / name) for name in ("whole", "parts", "odd"))
    table("a", 30).save_to_disk(whole)
    DatasetDict({"train": table("b", 4), "dev": table("c", 3), "test": table("d", 2)}).save_to_disk(parts)
    DatasetDict({"first": table("e", 5), "second": table("f", 6)}).save_to_disk(odd)
    assert sizes(whole) == {"train": 24, "validation": 3, "test": 3}
    assert sizes(parts) == {"train": 4, "validation": 3, "test": 2}
    assert sizes(f"train={odd}:first,validation={odd}:second,test={parts}") == {"train": 5, "validation": 6, "test": 2}
    assert sizes(f"train={whole}") == {"train": 30}
    documents, notes = load_split(parts, "validation")
    assert (
        documents[0]["sentences"] == ["c 0", "then"] and documents[0]["origin"] == f"{parts}:dev, row 0" and notes == []
    )
    assert len(load_split(whole, None)[0]) == 30
    both = str(tmp_path / "both")
    DatasetDict({"train": table("g", 4), "validation": table("h", 3), "dev": table("i", 5)}).save_to_disk(both)
    assert load_split(both, "validation")[0][0]["sentences"] == ["h 0", "then"] and sizes(both)["validation"] == 3
    assert load_splits(both).notes == [f"{both}: validation is taken, dev is left out."]
    DatasetDict({"train": table("g", 4), "val": table("h", 3), "dev": table("i", 5)}).save_to_disk(f"{both}2")
    with pytest.raises(UserError, match="val and dev would both be validation; choose with validation=.*:dev"):
        load_splits(f"{both}2")
    for source in (whole, f"{whole},test={parts}"):
        with pytest.raises(UserError, match="train and validation would be the same documents"):
            load_splits(f"train={whole},validation={source}")
    with pytest.raises(UserError, match="odd:first: say for which split it is, as in test="):
        load_splits(f"{odd}:first")
    with pytest.raises(UserError, match="its splits are first, second; say which is which with train="):
        load_splits(odd)
    with pytest.raises(UserError, match="has no third split, only first, second"):
        load_splits(f"train={odd}:third")
    with pytest.raises(UserError, match="has no train split, only first, second|its splits are first, second"):
        load_splits(f"train={odd}")
    with pytest.raises(UserError, match="single table without splits, so it has no x split"):
        load_splits(f"train={whole}:x")
    with pytest.raises(UserError, match="is not a folder that save_to_disk of the datasets library has written"):
        load_splits(str(tmp_path), SourceOptions(format="arrow"))
    assert sizes(f"train={whole},validation={parts}:dev") == {"train": 30, "validation": 3}
    (tmp_path / "whole" / "state.json").write_text("{")
    with pytest.raises(UserError, match="whole: cannot be read"):
        load_splits(whole)


def test_the_tutorials_folder(tmp_path: Path) -> None:
    rows = {"text": ["[CLS] b [CLS] a"], "so_targets": [[1, 0]], "storyid": ["s"], "sentence1": ["a"]}
    DatasetDict({"train": Dataset.from_dict(rows), "val": Dataset.from_dict(rows)}).save_to_disk(str(tmp_path / "so"))
    splits = load_splits(str(tmp_path / "so")).splits
    assert list(splits) == ["train", "validation"] and splits["validation"][0]["sentences"] == ["a", "b"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A folder laid out like a data set on the Hub stands in for it: ``load_dataset`` itself is the real one."""
    folder = tmp_path / "repository"
    for config in ("plain", "other"):
        (folder / config).mkdir(parents=True)
        for split, rows in (("train", 5), ("validation", 2), ("test", 3)):
            table(f"{config} {split}", rows).to_parquet(folder / config / f"{split}.parquet")
    head = ["---", "configs:"]
    for config in ("plain", "other"):
        head += [f"- config_name: {config}", f"  data_dir: {config}"] + ["  default: true"] * (config == "plain")
    (folder / "README.md").write_text("\n".join([*head, "---", ""]))
    calls: list[tuple[Any, ...]] = []
    original = sources.load_dataset

    def load(name: str, config: str | None, *, revision: str | None) -> Any:
        calls.append((name, config, revision))
        return original(str(folder), config, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(sources, "load_dataset", load)
    return calls


def test_data_sets_on_the_hub(hub: list[tuple[Any, ...]]) -> None:
    assert sizes("someone/texts") == {"train": 5, "validation": 2, "test": 3}
    assert hub == [("someone/texts", None, None)]
    splits = load_splits("someone/texts", SourceOptions(config="other", revision="v1")).splits
    assert hub[-1] == ("someone/texts", "other", "v1") and splits["test"][0]["sentences"][0] == "other test 0"
    mixed = "train=someone/texts,validation=someone/texts:test"
    assert sizes(mixed) == {"train": 5, "validation": 3}
    with pytest.raises(UserError, match="someone/texts: .* could be loaded .*BuilderConfig 'third' not found"):
        load_splits("someone/texts", SourceOptions(config="third"))
    with pytest.raises(UserError, match="has no dev split, only train, validation, test"):
        load_splits("train=someone/texts:dev")
    with pytest.raises(
        UserError, match="someone/texts:train: --columns names 'steps', which is not there; there is sen"
    ):
        load_splits("someone/texts", SourceOptions(columns="sentences=steps"))


def test_a_name_that_the_hub_does_not_have() -> None:
    with pytest.raises(UserError, match="no/such: there is no such file or folder, and no data set of that name"):
        load_splits("no/such")


@pytest.mark.parametrize("flag", ["config", "revision"])
def test_only_the_hub_has_configurations_and_revisions(tmp_path: Path, flag: str) -> None:
    (tmp_path / "a.tsv").write_text("a\tb\n")
    table("a", 3).save_to_disk(str(tmp_path / "folder"))
    for source in ("stories", str(tmp_path / "a.tsv"), str(tmp_path / "folder"), f"test={tmp_path / 'a.tsv'}"):
        with pytest.raises(UserError, match="only a data set on the Hub has one"):
            load_splits(source, SourceOptions(**{flag: "x"}))


def test_one_part_from_the_hub_may_have_a_revision(hub: list[tuple[Any, ...]], tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("a\tb\n")
    load_splits(f"train=someone/texts,validation={tmp_path / 'a.tsv'}", SourceOptions(revision="v2"))
    assert hub == [("someone/texts", None, "v2")]
