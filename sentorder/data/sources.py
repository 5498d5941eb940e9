"""What ``--dataset`` names: the bundled corpus, a file, a folder of ``save_to_disk``, a data set on the Hub, or one of
these for each split."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

from ..errors import UserError, first_line
from .formats import Document, keep_orderable, read_file, read_table

SPLITS = ("train", "validation", "test")
OTHER_NAMES = {"valid": "validation", "val": "validation", "dev": "validation", "eval": "validation"}
"""What data sets call our splits."""
BUNDLED = {"stories": "stories"}
"""Names that ``--dataset`` takes for what is bundled with the package -> folder beside this file."""
HELD_OUT_SHARE = 0.1
"""The share of a source without splits that becomes validation, and again the share that becomes test."""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class Loaded(NamedTuple):
    """Documents that can be ordered, and what there is to say about the others."""

    splits: dict[str, list[Document]]
    """Split name -> documents. A split that was not given is absent."""
    notes: list[str]


def load_splits(dataset: str, *, config: str | None = None, revision: str | None = None) -> Loaded:
    """Load the documents of ``--dataset``; a source without splits is split.

    Args:
        dataset: ``stories``, a file, a folder, a name on the Hub, or ``train=SOURCE,validation=SOURCE,test=SOURCE``,
            where a folder or Hub name may be followed by ``:split``.
        config: which configuration of a data set on the Hub.
        revision: which commit, branch or tag of it.

    Raises:
        UserError: for anything that is not there or not well formed.
    """
    readers = _splits_of(dataset, config, revision)
    splits, notes = {}, []
    for split, read in readers.items():
        splits[split], found = keep_orderable(*read())
        notes += found
    if list(splits) == [WHOLE]:
        splits = split_documents(splits[WHOLE], dataset)
    return Loaded(splits, notes)


def load_split(
    dataset: str, split: str | None, *, config: str | None = None, revision: str | None = None
) -> tuple[list[Document], list[str]]:
    """Load what is to be evaluated: one split, or a source without splits as a whole where ``split`` is None.

    Returns:
        The documents, and notes about them.

    Raises:
        UserError: also if the data set has no such split.
    """
    readers = _splits_of(dataset, config, revision)
    if WHOLE in readers:
        documents, notes = keep_orderable(*readers[WHOLE]())
        if split is not None:
            return split_documents(documents, dataset)[split], notes
        whole = "this is all of it; if the model was trained on it, --split test is what it never saw."
        return documents, [*notes, whole]
    return keep_orderable(*_choose(readers, split or "test", dataset)())


# --- splits ---------------------------------------------------------------------------------------------------------


def _fingerprint(document: Document) -> str:
    return hashlib.blake2b("\0".join(document.sentences).encode(), digest_size=8).hexdigest()


def split_documents(documents: Sequence[Document], name: str = "The source") -> dict[str, list[Document]]:
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


# --- sources --------------------------------------------------------------------------------------------------------

Reader = Callable[[], tuple[list[Document], str]]
"""Reads the documents of a split, and gives what to call it."""
WHOLE = "whole"
"""What a source without splits has in place of them."""


def _splits_of(dataset: str, config: str | None, revision: str | None) -> dict[str, Reader]:
    """The splits behind a value of ``--dataset``; nothing but a data set on the Hub is read yet."""
    if "=" not in dataset or Path(dataset).exists():
        _check_hub_arguments([dataset], config, revision)
        return _splits_of_source(dataset, config, revision)
    sources: dict[str, str] = {}
    for part in dataset.split(","):
        split, _, source = part.partition("=")
        if split not in SPLITS or not source or split in sources:
            raise UserError(
                f"--dataset {dataset}: expected train=FILE,validation=FILE,test=FILE (each at most once), found "
                f"{part!r}."
            )
        sources[split] = source
    _check_hub_arguments([_without_split(source)[0] for source in sources.values()], config, revision)
    readers: dict[str, Reader] = {}
    for split, source in sources.items():
        name, wanted = _without_split(source)
        found = _splits_of_source(name, config, revision, split=wanted)
        twin = next((other for other in readers if sources[other] == source and WHOLE in found), None)
        if twin is not None:
            raise UserError(f"--dataset {dataset}: {twin} and {split} would be the same documents.")
        readers[split] = found.get(WHOLE) or _choose(found, wanted or split, name)
    return readers


def _without_split(source: str) -> tuple[str, str | None]:
    if Path(source).exists() or ":" not in source:
        return source, None
    name, _, split = source.rpartition(":")
    return (name, split) if name in BUNDLED or Path(name).is_dir() or HUB_NAME.fullmatch(name) else (source, None)


def _choose(readers: dict[str, Reader], split: str, source: str) -> Reader:
    if split not in readers:
        raise UserError(f"--dataset {source}: has no {split} split, only {', '.join(readers)}.")
    return readers[split]


def _splits_of_source(
    source: str, config: str | None, revision: str | None, *, split: str | None = None
) -> dict[str, Reader]:
    if source in BUNDLED:
        folder = Path(str(resources.files(__package__))) / BUNDLED[source]
        readers = {name: _file_reader(folder / f"{name}.jsonl") for name in SPLITS}
        return readers if split is None else {split: _choose(readers, split, source)}
    path = Path(source)
    if path.is_dir():
        return _splits_of_tables(_load_folder(path), source, split)
    if _is_hub_name(source):
        return _splits_of_tables(_load_from_hub(source, config, revision), source, split)
    name, wanted = _without_split(source)
    if wanted is not None:
        raise UserError(f"--dataset {source}: say for which split it is, as in test={source} or train={name}:...")
    if not path.exists() and path.suffix == "" and path.parent == Path("."):
        raise UserError(
            f"--dataset {source}: there is no data set and no file of that name. Known data sets: "
            f"{', '.join(sorted(BUNDLED))}."
        )
    return {WHOLE: _file_reader(path)}


def _is_hub_name(source: str) -> bool:
    path = Path(source)
    return HUB_NAME.fullmatch(source) is not None and not path.exists() and not path.parent.exists()


def _check_hub_arguments(sources: Sequence[str], config: str | None, revision: str | None) -> None:
    for flag, value in (("--dataset_config_name", config), ("--dataset_revision", revision)):
        if value is not None and not any(_is_hub_name(source) for source in sources):
            raise UserError(f"{flag} {value}: only a data set on the Hub has one, and {', '.join(sources)} is none.")


def _file_reader(path: Path) -> Reader:
    return lambda: (read_file(path), str(path))


def _table_reader(table: Dataset, name: str) -> Reader:
    return lambda: (read_table(table, name), name)


def _splits_of_tables(tables: Dataset | DatasetDict, source: str, split: str | None) -> dict[str, Reader]:
    """One reader per split; a single table, or a data set that has only a train split, is a source without splits."""
    if isinstance(tables, Dataset):
        if split is not None:
            raise UserError(f"--dataset {source}: is a single table without splits, so it has no {split} split.")
        return {WHOLE: _table_reader(tables, source)}
    if split is not None:  # by the name that the data set has for it
        if split not in tables:
            raise UserError(f"--dataset {source}: has no {split} split, only {', '.join(tables)}.")
        return {split: _table_reader(tables[split], f"{source}:{split}")}
    if list(tables) == ["train"]:
        return {WHOLE: _table_reader(tables["train"], source)}
    named = {OTHER_NAMES[name]: name for name in tables if name in OTHER_NAMES} | {name: name for name in tables}
    readers = {ours: _table_reader(tables[named[ours]], f"{source}:{named[ours]}") for ours in SPLITS if ours in named}
    if not readers:
        raise UserError(
            f"--dataset {source}: its splits are {', '.join(tables)}; say which is which with "
            f"train={source}:{next(iter(tables))},..."
        )
    return readers


def _load_folder(path: Path) -> Dataset | DatasetDict:
    try:
        return load_from_disk(str(path))
    except FileNotFoundError:
        raise UserError(
            f"--dataset {path}: is a folder, but not one that save_to_disk of the datasets library has written; give "
            "train=FILE,validation=FILE,test=FILE for files."
        ) from None
    except Exception as error:  # pyarrow and datasets raise a dozen kinds for a broken folder
        raise UserError(f"--dataset {path}: cannot be read ({first_line(error)}).") from None


def _load_from_hub(name: str, config: str | None, revision: str | None) -> DatasetDict:
    try:
        return load_dataset(name, config, revision=revision)
    except Exception as error:  # the Hub client, pyarrow and datasets raise dozens of kinds
        raise UserError(
            f"--dataset {name}: there is no such file or folder, and no data set of that name could be loaded from the "
            f"Hugging Face Hub ({first_line(error)})."
        ) from None
