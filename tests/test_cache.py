"""What is kept on disk is used again, and only if nothing that it depends on has changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import psutil
import pyarrow as pa
import pytest
from datasets import Dataset
from datasets.table import MemoryMappedTable

from sentorder.data import cache, paths, sources, tokenization
from sentorder.data.cache import cache_folder, is_kept
from sentorder.data.document_tables import to_dataset
from sentorder.data.documents import Document
from sentorder.data.reading import SourceOptions
from sentorder.data.sources import load_split, load_splits
from sentorder.data.splitting import first_rows
from sentorder.data.tokenization import tokenize, tokenizer_digest
from sentorder.data.workers import in_processes
from sentorder.encoders import load_tokenizer
from sentorder.errors import UserError


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    """The first arguments with which a function is called."""
    calls: list[Any] = []
    original: Callable[..., Any] = getattr(module, name)

    def count(*given: Any, **named: Any) -> Any:
        calls.append(given[0])
        return original(*given, **named)

    monkeypatch.setattr(module, name, count)
    return calls


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The files that are read."""
    return counted(monkeypatch, paths, "read_file")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The documents that are tokenised, a thousand at a time."""
    return counted(monkeypatch, tokenization, "encode_documents")


def write(path: Path, *texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"sentences": text}) + "\n" for text in texts))
    return path


def texts_of(dataset: str, **options: Any) -> list[list[str]]:
    return load_split(f"test={dataset}", None, SourceOptions(**options))[0]["sentences"][:]  # type: ignore[no-any-return]


# --- documents ------------------------------------------------------------------------------------------------------


def test_documents_are_read_once(tmp_path: Path, reads: list[Any]) -> None:
    path = write(tmp_path / "a.jsonl", *([f"a {i}", "b"] for i in range(2500)), ["alone"])
    first, notes = load_splits(str(path))
    assert len(reads) == 1 and [len(table) for table in first.values()] == [2000, 250, 250]
    assert notes == [
        f"{path}: skipped 1 of 2501 documents with fewer than two sentences (the first: {path}, line 2501)."
    ]
    second, again = load_splits(str(path))
    whole, others = load_split(str(path), None)
    assert len(reads) == 1 and again == notes == others[:1] and len(whole) == 2500
    for split, table in first.items():
        assert second[split][:] == table[:]
        assert second[split]._fingerprint == table._fingerprint
    assert len({table._fingerprint for table in [*first.values(), whole]}) == 4
    assert first_rows(whole, 7)._fingerprint not in (whole._fingerprint, first_rows(whole, 8)._fingerprint)
    assert whole.column_names == ["id", "genre", "group", "origin", "sentences"]


def test_tables_are_mapped_not_held(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *([f"{i}", "b" * 1000] for i in range(3000)))
    load_splits(str(path))
    before = pa.total_allocated_bytes()
    splits = load_splits(str(path)).splits
    assert all(isinstance(table.data, MemoryMappedTable) for table in splits.values())
    assert pa.total_allocated_bytes() - before < 100_000 < path.stat().st_size
    assert [len(table) for table in splits.values()] == [2400, 300, 300]


def test_a_changed_file_is_read_again(tmp_path: Path, reads: list[Any]) -> None:
    path = write(tmp_path / "a.jsonl", ["old", "b"])
    assert texts_of(str(path)) == [["old", "b"]]
    then = path.stat()
    time.sleep(0.02)  # more than a tick of the clock of file systems, far less than a second
    write(path, ["new", "b"])  # of the same size
    assert texts_of(str(path)) == [["new", "b"]] and path.stat().st_size == then.st_size
    time.sleep(0.02)
    write(path, ["odd", "b"])
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))  # as a copy with its old time
    assert texts_of(str(path)) == [["odd", "b"]]
    os.replace(write(tmp_path / "b.jsonl", ["two", "b"]), path)
    assert texts_of(str(path)) == [["two", "b"]] and len(reads) == 4
    write(tmp_path / "c.jsonl", ["one", "more"])
    assert texts_of(f"{tmp_path}/*.jsonl") == [["two", "b"], ["one", "more"]] and len(reads) == 6
    write(tmp_path / "d.jsonl", ["and", "more"])
    assert len(texts_of(f"{tmp_path}/*.jsonl")) == 3 and len(reads) == 9


def test_other_settings_read_again(tmp_path: Path, reads: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\tb <eos> c\n\nd\te <eos> f\n")
    assert texts_of(str(path)) == [["a\tb", "c"], ["d\te", "f"]]
    assert texts_of(str(path), format="tsv") == [["a", "b <eos> c"], ["d", "e <eos> f"]]
    table = tmp_path / "a.csv"
    table.write_text("sentence1,sentence2,x,y\na,b,c,d\n")
    assert texts_of(str(table)) == [["a", "b"]]
    assert texts_of(str(table), columns="sentences=x+y") == [["c", "d"]]
    assert texts_of(str(table), columns="sentences=y+x") == [["d", "c"]]
    assert texts_of(str(table), window=2) == [["a", "b"]]
    assert len(reads) == 6
    assert texts_of(str(path), format="tsv") == [["a", "b <eos> c"], ["d", "e <eos> f"]] and len(reads) == 6
    monkeypatch.setattr(sources, "READING", sources.READING + 1)
    assert len(texts_of(str(path))) == 2 and len(reads) == 7
    monkeypatch.setattr(sources, "__version__", "another")
    assert len(texts_of(str(path))) == 2 and len(reads) == 8
    monkeypatch.chdir(tmp_path)  # by another name, which the origins of its documents begin with
    assert load_split("test=a.txt", None)[0]["origin"][:] == ["a.txt, line 1", "a.txt, line 3"]


def test_a_table_that_was_saved_anew_is_read_again(tmp_path: Path) -> None:
    for text in ("old", "new"):
        Dataset.from_dict({"sentences": [[text, "b"]]}).save_to_disk(str(tmp_path / "saved"))
        assert texts_of(str(tmp_path / "saved")) == [[text, "b"]]


def test_a_listed_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    for name, text in (("split/test", "x.txt\n"), ("txt_tokenized/x.txt", "a .\nb .\n")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    assert texts_of(f"{tmp_path}:test") == [["a .", "b ."]]
    (tmp_path / "txt_tokenized" / "x.txt").write_text("a .\nc .\nd .\n")
    assert texts_of(f"{tmp_path}:test") == [["a .", "c .", "d ."]]


def test_a_pipe_is_not_kept(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for text in ("first", "second"):
        writer = threading.Thread(target=write, args=(pipe, [text, "b"]))
        writer.start()
        table, _ = load_split(f"test={pipe}", None)
        writer.join()
        assert table["sentences"][:] == [[text, "b"]] and not is_kept(table)
    assert not cache_folder().exists()


@pytest.mark.parametrize("kill", [KeyboardInterrupt, UserError])
def test_what_was_half_written_is_not_used(
    tmp_path: Path, reads: list[Any], monkeypatch: pytest.MonkeyPatch, kill: type[BaseException]
) -> None:
    path = write(tmp_path / "a.jsonl", *([f"{i}", "b"] for i in range(2500)))
    with monkeypatch.context() as patch:
        original = sources.to_batch

        def to_batch(documents: list[Document]) -> pa.RecordBatch:
            if documents[0].sentences[0] == "1000":
                raise kill("in the midst of it")
            return original(documents)

        patch.setattr(sources, "to_batch", to_batch)
        with pytest.raises(kill):
            texts_of(str(path))
        assert [file.suffix for file in cache_folder().iterdir()] == [".lock"]
    (lock,) = cache_folder().iterdir()
    left_by_a_kill = lock.with_suffix(".new")
    left_by_a_kill.mkdir()
    (left_by_a_kill / "table.arrow").write_bytes(b"half")
    assert len(texts_of(str(path))) == 2500 and len(reads) == 2
    assert sorted(file.suffix for file in cache_folder().iterdir()) == ["", ".lock"]
    table = lock.with_suffix("") / "table.arrow"
    for damage in (table.read_bytes()[:-20_000], b"", table.read_bytes()[:200]):
        table.unlink()  # it is mapped
        table.write_bytes(damage)
        assert len(texts_of(str(path))) == 2500
    (lock.with_suffix("") / "facts.json").write_text("{")
    assert len(texts_of(str(path))) == 2500 and len(reads) == 6
    assert len(texts_of(str(path))) == 2500 and len(reads) == 6


def test_two_starts_at_once_read_once(tmp_path: Path, reads: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.jsonl", *([f"{i}", "b"] for i in range(1500)))
    original, inside = paths.read_file, threading.Event()

    def slow(*given: Any) -> Iterator[Any]:
        inside.set()
        time.sleep(0.3)
        yield from original(*given)

    monkeypatch.setattr(paths, "read_file", slow)
    found: list[Any] = []
    starts = [threading.Thread(target=lambda: found.append(texts_of(str(path)))) for _ in range(2)]
    starts[0].start()
    assert inside.wait(10)
    starts[1].start()
    for start in starts:
        start.join()
    assert len(reads) == 1 and found[0] == found[1] and len(found[0]) == 1500


def test_a_cache_that_cannot_be_written(
    tmp_path: Path, reads: list[Any], monkeypatch: pytest.MonkeyPatch, tiny_encoder: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file")
    path = write(tmp_path / "a.jsonl", ["a", "b"])
    table, notes = load_split(f"test={path}", None)
    assert table["sentences"][:] == [["a", "b"]] and not is_kept(table)
    assert notes == [
        f"{tmp_path / 'file' / 'sentorder'}: cannot be written (Not a directory), so the documents are read anew each "
        "time; HF_DATASETS_CACHE names another folder."
    ]
    assert load_split(f"test={path}", None)[1] == notes and len(reads) == 1  # by this process it was read
    assert tokenize(table, load_tokenizer(tiny_encoder), 64)["count"][:] == [2]
    nowhere = SimpleNamespace(name=str(tmp_path / "file"))
    monkeypatch.setattr(cache, "_temporary_folder", lambda: nowhere)
    with pytest.raises(UserError, match=r"file: cannot be written \(Not a directory\); TMPDIR names another"):
        load_split(f"test={path}", None)


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_documents_are_tokenised_once(
    tmp_path: Path, tiny_encoder: str, encoded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.jsonl", *([f"the cat {i}", "a dog"] for i in range(1500)))
    table = load_split(f"test={path}", None)[0]
    tokenizer = load_tokenizer(tiny_encoder)
    first = tokenize(table, tokenizer, 64)
    assert len(encoded) == 2 and first.column_names == [*table.column_names, *tokenization.TOKEN_COLUMNS.names]
    tokenizer(["the cat", "a dog sat"], padding="max_length", truncation=True, max_length=12)  # which changes it
    for used in (tokenizer, load_tokenizer(tiny_encoder)):
        again = tokenize(load_split(f"test={path}", None)[0], used, 64)
        assert again._fingerprint == first._fingerprint and again[7] == first[7] and len(encoded) == 2

    def differs(table: Dataset, tokenizer: Any = tokenizer, max_length: int = 64, **named: Any) -> Dataset:
        before = len(encoded)
        found = tokenize(table, tokenizer, max_length, **named)
        assert len(encoded) > before
        assert tokenize(table, tokenizer, max_length, **named)._fingerprint == found._fingerprint != first._fingerprint
        return found

    assert max(differs(table, max_length=6)["length"]) == 6
    differs(table, per_sentence=True)
    assert len(differs(first_rows(table, 5))) == 5
    other = load_tokenizer(tiny_encoder)
    other.add_tokens(["cat 7"])
    assert len(other) - 1 in differs(table, other)["sentence_ids"][7][0]
    monkeypatch.setattr(tokenization, "TOKENIZING", tokenization.TOKENIZING + 1)
    differs(table)
    write(path, ["another", "text"])
    assert len(differs(load_split(f"test={path}", None)[0])) == 1


def test_the_digest_of_a_tokenizer_written_in_python(tmp_path: Path) -> None:
    from transformers import CanineTokenizer

    digests = [tokenizer_digest(CanineTokenizer(model_max_length=length)) for length in (64, 64, 128)]
    assert digests[0] == digests[1] != digests[2]


def test_several_processes_give_the_same(tiny_encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [Document(f"{i}", [f"the cat {i}", "a dog"] * (1 + i % 3), origin=f"line {i}") for i in range(4321)]
    tokenizer = load_tokenizer(tiny_encoder)
    alone = tokenize(to_dataset(documents), tokenizer, 64)
    began = counted(monkeypatch, tokenization, "in_processes")
    assert len(tokenize(to_dataset(documents), tokenizer, 64, num_workers=2)) == 4321 and not began  # not worth it
    monkeypatch.setattr(tokenization, "WORTH_PROCESSES", 1)
    together = tokenize(to_dataset(documents), tokenizer, 64, num_workers=2)
    assert len(began) == 1 and together[:] == alone[:]
    documents[3500] = Document("x", ["a cat"] * 40, origin="line 3500")
    with pytest.raises(UserError, match="^line 3500: has 40 sentences, and an encoder of 64 tokens takes 32 at most"):
        tokenize(to_dataset(documents), tokenizer, 64, num_workers=2)


def test_a_process_that_was_killed_is_a_sentence() -> None:
    with pytest.raises(UserError, match="--preprocessing_num_workers: one of the processes was killed"):
        list(in_processes(os._exit, [9, 9, 9], 1))


def test_processes_do_not_outlive_a_parent_that_was_killed() -> None:
    code = (
        "import os, sys, time\n"
        "from sentorder.data.workers import in_processes\n"
        "def work(item): print(os.getpid(), flush=True); time.sleep(item)\n"
        "if __name__ == '__main__': list(in_processes(work, [60, 60], 2))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [psutil.Process(int(parent.stdout.readline())) for _ in range(2)]
        parent.kill()
    assert not psutil.wait_procs(workers, timeout=20)[1]
