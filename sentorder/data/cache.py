"""Tables on disk: what was read or tokenised once is found again, under a name that changes with all it depends on.

They are mapped into memory, not held there. Each lies in a folder of its own, which is there whole or not at all.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import datasets
import pyarrow as pa
from datasets import Dataset
from datasets.table import MemoryMappedTable
from datasets.utils import tqdm
from filelock import FileLock

from ..errors import UserError
from ..files import disk_reason, whole_folder, write_json

ROWS_AT_ONCE = 1000
"""Rows of a table that are in memory while it is written."""
_TABLE, _FACTS = "table.arrow", "facts.json"
_SECONDS_WITHOUT_A_BAR = 2


class Stored(NamedTuple):
    """A table on disk."""

    table: Dataset
    notes: list[str]
    """What was found out about it when it was made, and where it lies if that is not the usual place."""


Make = Callable[[list[str]], Iterator[pa.RecordBatch]]
"""Makes the rows, and adds notes to the list by the time the last one was given."""


def digest(*parts: object) -> str:
    """A name for what depends on these values alone: strings, numbers, None and tuples of them."""
    return hashlib.blake2b(ascii(parts).encode(), digest_size=16).hexdigest()


def cache_folder() -> Path:
    """Below that of the datasets library, so HF_DATASETS_CACHE and HF_HOME decide."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "sentorder"


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Of this process, gone when it ends."""
    return tempfile.TemporaryDirectory(prefix="sentorder-")


def is_kept(table: Dataset) -> bool:
    """Whether a table will be found again: it lies in files, and not in those of this process alone."""
    files = [Path(file["filename"]) for file in table.cache_files]
    made_one = _temporary_folder.cache_info().currsize > 0
    return bool(files) and not (made_one and any(Path(_temporary_folder().name) in file.parents for file in files))


def stored_table(key: str | None, schema: pa.Schema, make: Make, title: str) -> Stored:
    """The table of this key, made if it is not there.

    Of several processes that want it at once the first one makes it and the others wait. Where the cache cannot be
    written, it is made in a temporary folder.

    Args:
        key: from :func:`digest`; None if it cannot be known when the rows would be others.
        schema: of the rows.
        make: their source.
        title: of the progress bar on a terminal, which comes if it takes long.

    Raises:
        UserError: if it can be written nowhere.
    """
    notes: list[str] = []
    if key is not None:
        folder = cache_folder() / key
        try:
            if (found := _open(folder)) is not None:
                return found
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                return _open(folder) or _write(folder, schema, make, title)
        except OSError as error:
            notes.append(
                f"{folder.parent}: cannot be written ({disk_reason(error)}), so the documents are read anew each time; "
                "HF_DATASETS_CACHE names another folder."
            )
    folder = Path(_temporary_folder().name) / (key or uuid.uuid4().hex)
    try:
        table, found_out = _open(folder) or _write(folder, schema, make, title)
    except OSError as error:
        raise UserError(f"{folder.parent}: cannot be written ({disk_reason(error)}); TMPDIR names another.") from None
    return Stored(table, [*found_out, *notes])


def _open(folder: Path) -> Stored | None:
    """None if it is not there, or damaged."""
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        table = MemoryMappedTable.from_file(str(folder / _TABLE))
    except (OSError, ValueError, pa.ArrowException):
        return None
    # Arrow takes a file that ends between two batches for a whole one.
    return Stored(Dataset(table, fingerprint=folder.name), facts["notes"]) if len(table) == facts["rows"] else None


def _write(folder: Path, schema: pa.Schema, make: Make, title: str) -> Stored:
    rows = 0
    notes: list[str] = []
    with whole_folder(folder) as new:
        with (
            pa.OSFile(str(new / _TABLE), "wb") as file,
            pa.ipc.new_stream(file, schema) as writer,
            tqdm(desc=title, unit=" documents", delay=_SECONDS_WITHOUT_A_BAR, leave=False, disable=None) as bar,
        ):
            for batch in make(notes):
                writer.write_batch(batch)
                rows += len(batch)
                bar.update(len(batch))
        write_json(new / _FACTS, {"rows": rows, "notes": notes})
    found = _open(folder)
    if found is None:
        raise OSError(f"what was written into {folder} cannot be read")
    return found
