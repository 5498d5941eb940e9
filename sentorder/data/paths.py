"""Files, folders and globs as sources: which files there are, and which splits they make."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from .documents import WHOLE, Part
from .formats import folder_parts, read_file
from .reading import Reading
from .splitting import SPLITS
from .text_files import File

OTHER_NAMES = {
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    # of NIPS, whose papers are split by year
    "2013le_papers": "train",
    "2014_papers": "validation",
    "2015_papers": "test",
}
"""What data sets call our splits."""
ABOUT = re.compile(
    r"(readme([._-].*)?|(licen[cs]e|copying|notice|authors|citation|changelog))(\.(md|txt|rst|cff))?", re.I
)
"""The names of files that tell about the others."""
_SHARD = re.compile(r"-\d+-of-\d+(-[0-9a-f]{8,})?$")


def is_glob(source: str) -> bool:
    """Whether a source is a pattern of paths, and not the name of a file."""
    return glob.has_magic(source) and not Path(source).exists()


def parts_of_path(source: str, format: str | None, reading: Reading) -> dict[str, Part]:
    """The splits of a file, a folder or a glob; :data:`~sentorder.data.documents.WHOLE` if it has none.

    Nothing but the names in a folder is looked at yet, and tables that ``save_to_disk`` wrote.

    Raises:
        UserError: if there are no files, or a folder has two for one split.
    """
    path = Path(source)
    if is_glob(source):
        files = [Path(name) for name in sorted(glob.glob(source, recursive=True)) if Path(name).is_file()]
        if not files:
            raise UserError(f"--dataset {source}: there is no such file.")
        return {WHOLE: _files_part(source, files, format, reading)}
    if not path.is_dir():
        return {WHOLE: _files_part(source, [path], format, reading)}
    known = folder_parts(path, format, reading)
    return _parts_of_files(path, format, reading) if known is None else known


def _parts_of_files(folder: Path, format: str | None, reading: Reading) -> dict[str, Part]:
    """One part per split that files are named after, ``train.jsonl`` or ``dev.tsv.gz``; without any, all as one."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise UserError(f"--dataset {folder}: the folder holds no files.")
    by_split: dict[str, list[Path]] = {}
    for path in files:
        name = path.name.partition(".")[0]
        split = _SHARD.sub("", name).lower()
        if split in SPLITS or split in OTHER_NAMES:
            by_split.setdefault(split, []).append(path)
    if not by_split:
        about = [path.name for path in files if ABOUT.fullmatch(path.name)]
        files = [path for path in files if path.name not in about]
        if not files:
            raise UserError(
                f"--dataset {folder}: the folder holds no files but {', '.join(about)}; name the folder or the files "
                "that hold the texts."
            )
        telling = [path.name for path in files if {*SPLITS, *OTHER_NAMES} & set(re.split(r"\W|_", path.name.lower()))]
        note = (
            f"{folder}: is read as one source, though {', '.join(telling)} speak of splits; choose with train=FILE,..."
        )
        notes = [note] if telling else []
        if about:
            notes.append(f"{folder}: left out {', '.join(about)}.")
        part = _files_part(str(folder), files, format, reading)
        return {WHOLE: part._replace(notes=tuple(notes))}
    for split, paths in by_split.items():
        if len(paths) > 1 and not all(_SHARD.search(path.name.partition(".")[0]) for path in paths):
            raise UserError(
                f"--dataset {folder}: {paths[0].name} and {paths[1].name} are both called {split}; choose with "
                "train=FILE,validation=FILE,test=FILE."
            )
    others = [path.name for path in files if not any(path in paths for paths in by_split.values())]
    left_out = f"{folder}: left out {len(others)} files that are not named after a split"
    left_out_notes = (f"{left_out} (the first: {others[0]}).",) if others else ()
    return {
        split: _files_part(f"{folder}:{split}", by_split[split], format, reading)._replace(notes=left_out_notes)
        for split in sorted(by_split, key=lambda split: SPLITS.index(OTHER_NAMES.get(split, split)))
    }


def _files_part(name: str, files: Sequence[Path], format: str | None, reading: Reading) -> Part:
    unlike = len({File(str(path)).default_id(0) for path in files}) == len(files)
    sources = [File.at(path, label=None if unlike else str(path)) for path in files]
    stamps = [file.stamp() for file in sources]
    return Part(
        name,
        lambda: itertools.chain.from_iterable(read_file(file, format, reading) for file in sources),
        None if None in stamps else (*stamps, format, reading),
    )
