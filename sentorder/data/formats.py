"""Read documents: the bundled corpus and files in the layouts that people have, as lists of sentences in gold order.

| layout | one document is | recognised by |
|---|---|---|
| JSONL | a line ``{"sentences": [...]}``, with ``id`` and ``genre`` if there are any | a first line with ``{`` |
| ``<eos>`` lines | a line ``sentence <eos> sentence <eos> ...`` (BERSON, NAON) | ``<eos>`` in the first line |
| TSV | a row, one sentence per cell (STaCK) | a tab in the first line |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any

from datasets import Dataset

from ..errors import UserError

SPLITS = ("train", "validation", "test")
BUNDLED = {"stories": "stories"}
"""Names that ``--dataset`` takes for what is bundled with the package -> folder beside this file."""
HELD_OUT_SHARE = 0.1
"""The share of a single file that becomes validation, and again the share that becomes test."""


@dataclass(frozen=True)
class Document:
    """One text: its sentences in the order of the source (the gold order, unless it is to be predicted)."""

    id: str
    sentences: list[str]
    genre: str | None = None


# --- one layout each: numbered lines -> documents -------------------------------------------------------------------


def _json_document(line: str, where: str, default_id: str) -> Document:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg} at column {error.colno}).") from None
    except RecursionError:
        raise UserError(f"{where}: not a document (the JSON is nested too deeply).") from None
    if not isinstance(row, dict) or "sentences" not in row:
        raise UserError(f'{where}: expected an object with a "sentences" list, as in {{"sentences": ["...", "..."]}}.')
    sentences = row["sentences"]
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise UserError(f'{where}: "sentences" must be a list of strings.')
    name, genre = row.get("id"), row.get("genre")
    return Document(default_id if name is None else str(name), sentences, None if genre is None else str(genre))


def _eos_document(line: str, where: str, default_id: str) -> Document:
    sentences = [part.strip() for part in line.split("<eos>")]
    # The separator may also close the line.
    return Document(default_id, sentences[:-1] if sentences[-1] == "" else sentences)


def _tsv_document(line: str, where: str, default_id: str) -> Document:
    # Spreadsheets pad short rows with empty cells at the end.
    return Document(default_id, line.rstrip("\t ").split("\t"))


LineReader = Callable[[str, str, str], Document]


def _layout_of(first_line: str, name: str) -> LineReader:
    if first_line.lstrip().startswith("{"):
        return _json_document
    if "<eos>" in first_line:
        return _eos_document
    if "\t" in first_line:
        return _tsv_document
    raise UserError(
        f'{name}: this layout is not known. Give JSON lines with a "sentences" list, rows with one sentence per '
        "tab-separated cell, or lines with <eos> between the sentences."
    )


def parse_documents(lines: Iterable[str], name: str, *, at_least: int = 2) -> Iterator[Document]:
    """Read documents from the lines of one source, whose layout is found by its first line that is not blank.

    Args:
        lines: the lines of a text file.
        name: what errors call the source; with the line number also the id of a document that has none.
        at_least: the fewest sentences that a document may have.

    Raises:
        UserError: for a malformed, too short or blank entry, naming source and line.
    """
    layout: LineReader | None = None
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        layout = layout or _layout_of(line, name)
        where = f"{name}, line {number}"
        document = layout(line, where, f"{Path(name).stem}-{number}")
        if len(document.sentences) < at_least:
            raise UserError(
                f"{where}: a document needs at least {at_least} sentence{'s' if at_least > 1 else ''}, this one has "
                f"{len(document.sentences)}."
            )
        if not all(sentence.strip() for sentence in document.sentences):
            raise UserError(f"{where}: a sentence is empty; remove it or the document.")
        if any("\ud800" <= letter <= "\udfff" for sentence in document.sentences for letter in sentence):
            raise UserError(f"{where}: a sentence holds half a character (a lone surrogate); repair the text.")
        yield document


def read_documents(path: str | Path, *, at_least: int = 2) -> list[Document]:
    """Read all documents of a file.

    Raises:
        UserError: if the file is missing, unreadable, not UTF-8, empty or malformed.
    """
    path = Path(path)
    try:
        with open_text(path) as lines:
            documents = list(parse_documents(lines, str(path), at_least=at_least))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); convert it to UTF-8 first.") from None
    if not documents:
        raise UserError(f"{path}: the file holds no documents.")
    return documents


def open_text(path: str | Path) -> IO[str]:
    """Open a UTF-8 text file, with or without a byte-order mark."""
    return open(path, encoding="utf-8-sig")


# --- splits ---------------------------------------------------------------------------------------------------------


def _fingerprint(document: Document) -> str:
    return hashlib.blake2b("\0".join(document.sentences).encode(), digest_size=8).hexdigest()


def split_documents(documents: Sequence[Document], name: str = "The file") -> dict[str, list[Document]]:
    """Split one source into train, validation and test: 80, 10 and 10 % by a hash of the text.

    The split depends on nothing but the texts (no seed, no order of lines), and equal texts stay on one side.

    Args:
        documents: all of one source.
        name: what an error calls the source.

    Raises:
        UserError: if there are fewer than three different documents.
    """
    distinct = sorted({_fingerprint(document) for document in documents})
    if len(distinct) < len(SPLITS):
        raise UserError(
            f"{name}: {len(distinct)} different documents cannot be split into train, validation and test; give "
            "--dataset train=FILE,validation=FILE,test=FILE."
        )
    held_out = max(1, round(HELD_OUT_SHARE * len(distinct)))
    side = dict.fromkeys(distinct, "train")
    side.update(dict.fromkeys(distinct[:held_out], "validation"))
    side.update(dict.fromkeys(distinct[held_out : 2 * held_out], "test"))
    splits: dict[str, list[Document]] = {name: [] for name in SPLITS}
    for document in documents:
        splits[side[_fingerprint(document)]].append(document)
    return splits


def _named_files(dataset: str) -> dict[str, Path] | None:
    """The files behind a name of ours or behind ``train=FILE,validation=FILE,test=FILE``; None for a single file."""
    if dataset in BUNDLED:
        folder = Path(str(resources.files(__package__))) / BUNDLED[dataset]
        return {split: folder / f"{split}.jsonl" for split in SPLITS}
    if is_single_file(dataset):
        return None
    files = {}
    for part in dataset.split(","):
        split, _, file = part.partition("=")
        if split not in SPLITS or not file or split in files:
            raise UserError(
                f"--dataset {dataset}: expected train=FILE,validation=FILE,test=FILE (each at most once), found "
                f"{part!r}."
            )
        files[split] = Path(file)
    return files


def is_single_file(dataset: str) -> bool:
    """Whether ``--dataset`` names neither a data set of ours nor a file for each split."""
    return dataset not in BUNDLED and ("=" not in dataset or Path(dataset).exists())


def _single_file(dataset: str) -> Path:
    path = Path(dataset)
    if not path.exists() and path.suffix == "" and path.parent == Path("."):
        raise UserError(
            f"--dataset {dataset}: there is no data set and no file of that name. Known data sets: "
            f"{', '.join(sorted(BUNDLED))}."
        )
    return path


def load_splits(dataset: str) -> dict[str, list[Document]]:
    """Load the documents of ``--dataset``: a name, ``train=FILE,...``, or one file, which is split.

    Returns:
        Split name -> documents. A split that was not given is absent.

    Raises:
        UserError: for anything that is not there or not well formed.
    """
    files = _named_files(dataset)
    if files is None:
        return split_documents(read_documents(_single_file(dataset)), dataset)
    return {split: read_documents(file) for split, file in files.items()}


def load_split(dataset: str, split: str | None) -> list[Document]:
    """Load what is to be evaluated: one split of ``dataset``, or a single file as a whole where ``split`` is None.

    Raises:
        UserError: also if the data set has no such split.
    """
    files = _named_files(dataset)
    if files is None:
        path = _single_file(dataset)
        documents = read_documents(path)
        return documents if split is None else split_documents(documents, dataset)[split]
    split = split or "test"
    if split not in files:
        raise UserError(f"--dataset {dataset}: has no {split} split.")
    return read_documents(files[split])


def to_dataset(documents: Sequence[Document]) -> Dataset:
    """The documents as an Arrow table with the columns ``id``, ``genre`` and ``sentences``."""
    return Dataset.from_dict(
        {
            "id": [document.id for document in documents],
            "genre": [document.genre for document in documents],
            "sentences": [document.sentences for document in documents],
        }
    )
