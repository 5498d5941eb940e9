"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def disk_reason(error: Exception) -> str:
    """What went wrong, in a few words."""
    return str(getattr(error, "strerror", None) or error)


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write one JSON object, whole or not at all."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, whole or not at all."""
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    os.replace(new, path)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Make a folder: fill the one that is given, and it takes the name when the block ends without an error.

    Its files are on the disk by then, not only in memory, so that a power cut cannot leave the name without them. A
    folder that has the name already is replaced; after an error it stays, after a kill :func:`tidy` may have to put it
    back.

    Raises:
        OSError: if the disk is full or may not be written.
    """
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        yield new
        for path in [*sorted(new.rglob("*")), new]:
            _to_disk(path)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        _to_disk(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(new, ignore_errors=True)
        raise


def _to_disk(path: Path) -> None:
    """What fsync does; Windows cannot do it for folders."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some network file systems cannot do it for folders either
            raise
    finally:
        os.close(descriptor)


def tidy(parent: Path, pattern: str) -> None:
    """Put right what a kill has left of :func:`whole_folder`: half a new folder, or an old one without its name."""
    for new in parent.glob(f"{pattern}.new"):
        shutil.rmtree(new, ignore_errors=True)
    for old in parent.glob(f"{pattern}.old"):
        folder = old.with_name(old.name.removesuffix(".old"))
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(folder)
