"""Documents in folders of a known layout: what ``save_to_disk`` wrote, and lists of files per split."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk

from ..errors import UserError, first_line
from .cutting import cut
from .documents import WHOLE, Document, Part, cleaned
from .reading import Reading
from .tables import read_table
from .text_files import File


def is_saved(path: Path) -> bool:
    """Whether ``save_to_disk`` of the datasets library has written this folder."""
    return any((path / name).exists() for name in ("dataset_dict.json", "dataset_info.json", "state.json"))


def saved_parts(path: Path, reading: Reading) -> dict[str, Part]:
    """The table or the tables of such a folder.

    Raises:
        UserError: if it is none, or cannot be read.
    """
    try:
        tables = load_from_disk(str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: is not a folder that save_to_disk of the datasets library has written.") from None
    except Exception as error:  # pyarrow and datasets raise a dozen kinds for a broken folder
        raise UserError(f"{path}: cannot be read ({first_line(error)}).") from None
    if isinstance(tables, Dataset):
        return {WHOLE: table_part(tables, str(path), reading)}
    return {name: table_part(table, f"{path}:{name}", reading) for name, table in tables.items()}


def table_part(table: Dataset, name: str, reading: Reading) -> Part:
    """A table as a part of a source."""
    depends_on = (table._fingerprint, reading)
    return Part(name, lambda: cleaned(cut(read_table(table, name, reading.columns), reading.cutting)), depends_on)


def has_lists(path: Path) -> bool:
    """Whether a folder has lists of files: NIPS, AAN and NSF as B-TSort and others have them."""
    return (path / "split").is_dir() and (path / "txt_tokenized").is_dir()


def listed_parts(path: Path, reading: Reading) -> dict[str, Part]:
    """The documents of ``txt_tokenized/`` that each list in ``split/`` names, one sentence per line in each.

    Raises:
        UserError: if these folders are not there, or there is no list.
    """
    if not has_lists(path):
        raise UserError(f"{path}: has no folders split/ (lists of files) and txt_tokenized/ (the files).")
    lists = sorted(file for file in (path / "split").iterdir() if file.is_file() and not file.name.startswith("."))
    if not lists:
        raise UserError(f"{path / 'split'}: the folder holds no files.")
    stamps = tuple(File(str(file)).stamp() for file in sorted((path / "txt_tokenized").iterdir()))
    twice = [(a, b) for a, b in itertools.pairwise(lists) if a.stem == b.stem]
    if twice:
        raise UserError(f"{path / 'split'}: {twice[0][0].name} and {twice[0][1].name} are lists of one split.")
    return {names.stem: _listed_part(path, names, reading, stamps) for names in lists}


def _listed_part(path: Path, names: Path, reading: Reading, stamps: tuple[Any, ...]) -> Part:
    name = f"{path}:{names.stem}"
    depends_on = (File(str(names)).stamp(), stamps, reading)
    return Part(name, lambda: cleaned(cut(_listed(path, names), reading.cutting)), depends_on)


def _listed(path: Path, names: Path) -> Iterator[Document]:
    texts = path / "txt_tokenized"
    for number, name in File(str(names)).lines():
        name = name.strip()
        # NIPS lists numbers; its files are called aNUMBER.txt.
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{names}, line {number}: {name} is not in {texts}.")
        candidates = [texts / name, texts / f"a{name}.txt", texts / f"{name}.txt", texts / f"a{name}"]
        found = next((file for file in candidates if file.is_file()), None)
        if found is None:
            raise UserError(f"{names}, line {number}: there is no {candidates[0]}, and no {candidates[1]}.")
        yield Document(name, [line for _, line in File(str(found)).lines()], origin=str(found))
