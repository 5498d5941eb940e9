"""What ``--dataset`` names: the bundled corpus, a file, a folder, a glob, a data set on the Hub, or one of these for
each split."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from datasets import Dataset, DatasetDict, load_dataset

from .. import __version__
from ..errors import UserError, first_line
from .cache import ROWS_AT_ONCE, Stored, digest, stored_table
from .document_tables import SCHEMA, to_batch
from .documents import WHOLE, Part, keep_orderable
from .folders import table_part
from .formats import FORMATS
from .paths import OTHER_NAMES, is_glob, parts_of_path
from .reading import Reading, SourceOptions
from .splitting import SPLITS, split_table

BUNDLED = {"stories": "stories"}
"""Names that ``--dataset`` takes for what is bundled with the package -> folder beside this file."""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
READING = 3
"""Raised whenever a file may give other documents than before, so that none is taken from the cache as it was."""
SPLITTER = "sentencex"
"""The package that finds sentences, of which another version may find others."""


class Loaded(NamedTuple):
    """Documents that can be ordered, and what there is to say about the others."""

    splits: dict[str, Dataset]
    """Split name -> documents: the columns ``id``, ``genre``, ``group``, ``origin`` and ``sentences``. A split that was
    not given is absent."""
    notes: list[str]


def load_splits(dataset: str, options: SourceOptions | None = None) -> Loaded:
    """Load the documents of ``--dataset``; a source without splits is split.

    Args:
        dataset: ``stories``, a file, a folder, a glob, a name on the Hub, or
            ``train=SOURCE,validation=SOURCE,test=SOURCE``, where a folder or Hub name may be followed by ``:split``.
        options: how to read it.

    Raises:
        UserError: for anything that is not there or not well formed.
    """
    parts = _parts_of(dataset, _asked(options or SourceOptions()))
    splits: dict[str, Dataset] = {}
    notes: list[str] = []
    for split, part in parts.items():
        splits[split], found = read_part(part)
        notes += found
    if list(splits) == [WHOLE]:
        splits = split_table(splits[WHOLE], dataset)
    return Loaded({split: table.remove_columns("key") for split, table in splits.items()}, list(dict.fromkeys(notes)))


def load_split(dataset: str, split: str | None, options: SourceOptions | None = None) -> tuple[Dataset, list[str]]:
    """Load what is to be evaluated: one split, or a source without splits as a whole where ``split`` is None.

    The other arguments are those of :func:`load_splits`.

    Returns:
        The documents, and notes about them.

    Raises:
        UserError: also if the data set has no such split.
    """
    parts = _parts_of(dataset, _asked(options or SourceOptions()))
    part = parts[WHOLE] if WHOLE in parts else _choose(parts, split or "test", dataset)
    documents, notes = read_part(part)
    if WHOLE in parts and split is None:
        notes.append("this is all of it; if the model was trained on it, --split test is what it never saw.")
    elif WHOLE in parts:
        documents = split_table(documents, dataset)[str(split)]
    return documents.remove_columns("key"), notes


def read_part(part: Part) -> Stored:
    """The documents of a part that can be ordered, as a table on disk, and notes about the others.

    What was read before, and has not changed since, is not read again.

    Raises:
        UserError: for anything that is not well formed, or if nothing can be ordered.
    """
    key = None
    if part.depends_on is not None:
        splitter = version(SPLITTER) if find_spec(SPLITTER) else None
        key = digest(__version__, READING, splitter, part.name, part.depends_on)

    def make(notes: list[str]) -> Iterator[pa.RecordBatch]:
        documents = keep_orderable(part.read(), part.name, notes)
        while some := list(itertools.islice(documents, ROWS_AT_ONCE)):
            yield to_batch(some)

    table, notes = stored_table(key, SCHEMA, make, f"reading {part.name}")
    return Stored(table, [*part.notes, *notes])


# --- sources --------------------------------------------------------------------------------------------------------


class _Asked(NamedTuple):
    options: SourceOptions
    reading: Reading


def _asked(options: SourceOptions) -> _Asked:
    if options.format is not None and options.format not in FORMATS:
        raise UserError(f"--format {options.format}: choose one of {', '.join(FORMATS)}.")
    return _Asked(options, options.reading())


def _parts_of(dataset: str, asked: _Asked) -> dict[str, Part]:
    """The splits behind a value of ``--dataset``; nothing but a data set on the Hub is read yet."""
    if "=" not in dataset or _is_there(dataset):
        _check_meaning([dataset], asked)
        return _parts_of_source(dataset, asked)
    sources: dict[str, str] = {}
    for part in dataset.split(","):
        split, _, source = part.partition("=")
        if split not in SPLITS or not source or split in sources:
            raise UserError(
                f"--dataset {dataset}: expected train=FILE,validation=FILE,test=FILE (each at most once), found "
                f"{part!r}."
            )
        sources[split] = source
    _check_meaning([_without_split(source)[0] for source in sources.values()], asked)
    parts: dict[str, Part] = {}
    for split, source in sources.items():
        name, wanted = _without_split(source)
        found = _parts_of_source(name, asked, split=wanted)
        twin = next((other for other in parts if sources[other] == source and WHOLE in found), None)
        if twin is not None:
            raise UserError(f"--dataset {dataset}: {twin} and {split} would be the same documents.")
        parts[split] = found.get(WHOLE) or _choose(found, wanted or split, name)
    return parts


def _without_split(source: str) -> tuple[str, str | None]:
    if ":" not in source or _is_there(source):
        return source, None
    name, _, split = source.rpartition(":")
    return (name, split) if name in BUNDLED or Path(name).is_dir() or HUB_NAME.fullmatch(name) else (source, None)


def _choose(parts: dict[str, Part], split: str, source: str) -> Part:
    if split not in parts:
        raise UserError(f"--dataset {source}: has no {split} split, only {', '.join(parts)}.")
    return parts[split]


def _parts_of_source(source: str, asked: _Asked, *, split: str | None = None) -> dict[str, Part]:
    path = Path(source)
    if source in BUNDLED:
        found = parts_of_path(
            str(resources.files(__package__) / BUNDLED[source]), "jsonl", Reading(cutting=asked.reading.cutting)
        )
        return _by_our_names({name: part._replace(notes=()) for name, part in found.items()}, source, split)
    if path.is_dir():
        return _by_our_names(parts_of_path(source, asked.options.format, asked.reading), source, split)
    if _is_hub_name(source):
        tables = _load_from_hub(source, asked.options.config, asked.options.revision)
        parts = {name: table_part(table, f"{source}:{name}", asked.reading) for name, table in tables.items()}
        return _by_our_names(parts, source, split)
    name, wanted = _without_split(source)
    if wanted is not None:
        raise UserError(f"--dataset {source}: say for which split it is, as in test={source} or train={name}:...")
    if not path.exists() and not is_glob(source) and path.suffix == "" and path.parent == Path("."):
        raise UserError(
            f"--dataset {source}: there is no data set and no file of that name. Known data sets: "
            f"{', '.join(sorted(BUNDLED))}."
        )
    return parts_of_path(source, asked.options.format, asked.reading)


def _by_our_names(parts: dict[str, Part], source: str, split: str | None) -> dict[str, Part]:
    """The parts by the names that we have for splits; one, or nothing but a train split, is a source without splits.

    Args:
        parts: by the names that the source has for them.
        source: what an error calls it.
        split: the only one that is wanted, by the name that the source has for it.
    """
    if split is not None and WHOLE in parts:
        raise UserError(f"--dataset {source}: is a single table without splits, so it has no {split} split.")
    if split is not None:
        return {split: _choose(parts, split, source)}
    if WHOLE in parts:
        return parts
    if list(parts) == ["train"]:
        return {WHOLE: parts["train"]._replace(name=source)}
    named: dict[str, str] = {}
    left_out: list[str] = []
    for name in sorted(parts, key=lambda name: name not in SPLITS):  # a name of ours before another one for it
        ours = OTHER_NAMES.get(name, name)
        if ours in named and named[ours] != ours:
            raise UserError(
                f"--dataset {source}: {named[ours]} and {name} would both be {ours}; choose with "
                f"{ours}={source}:{name}."
            )
        if ours in named:
            left_out.append(f"{source}: {ours} is taken, {name} is left out.")
        named.setdefault(ours, name)
    found = {
        ours: parts[named[ours]]._replace(notes=(*parts[named[ours]].notes, *left_out))
        for ours in SPLITS
        if ours in named
    }
    if not found:
        raise UserError(
            f"--dataset {source}: its splits are {', '.join(parts)}; say which is which with "
            f"train={source}:{next(iter(parts))},..."
        )
    return found


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # too long for a name
        return False


def _is_hub_name(source: str) -> bool:
    path = Path(source)
    return HUB_NAME.fullmatch(source) is not None and not _is_there(source) and not path.parent.exists()


def _check_meaning(sources: Sequence[str], asked: _Asked) -> None:
    """Each flag must mean something for one of the sources."""
    options, named = asked.options, ", ".join(sources)
    for flag, value in (("--dataset_config_name", options.config), ("--dataset_revision", options.revision)):
        if value is not None and not any(_is_hub_name(source) for source in sources):
            raise UserError(f"{flag} {value}: only a data set on the Hub has one, and {named} is none.")
    if options.format is not None and all(source in BUNDLED or _is_hub_name(source) for source in sources):
        raise UserError(f"--format {options.format}: only files and folders have one, and {named} is none.")
    for name in ("columns", "language", "unit"):
        if getattr(options, name) is not None and all(source in BUNDLED for source in sources):
            raise UserError(f"--{name}: has no meaning for {named}, which is bundled.")


def _load_from_hub(name: str, config: str | None, revision: str | None) -> DatasetDict:
    try:
        return load_dataset(name, config, revision=revision)
    except Exception as error:  # the Hub client, pyarrow and datasets raise dozens of kinds
        raise UserError(
            f"--dataset {name}: there is no such file or folder, and no data set of that name could be loaded from the "
            f"Hugging Face Hub ({first_line(error)})."
        ) from None
