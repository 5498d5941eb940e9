"""Files of UTF-8 text, compressed or not, and what came through a pipe instead."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from ..errors import UserError
from ..files import disk_reason

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class File:
    """What documents are read from."""

    name: str
    """What messages call it: its path, or any words where ``data`` is given."""
    data: bytes | None = None
    """What it holds, where it is no file (standard input can be read only once)."""
    label: str | None = None
    """In place of its name without folder and ending."""

    @classmethod
    def at(cls, path: str | Path, label: str | None = None) -> File:
        """The file of this path, or what a pipe of this path gives.

        Raises:
            UserError: if its name is not UTF-8: ids and messages could not be written down.
        """
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise UserError(f"{str(path)!a}: the name of the file is not UTF-8; rename it.") from None
        return cls(str(path), Path(path).read_bytes() if Path(path).is_fifo() else None, label)

    @property
    def stem(self) -> str:
        """What the ids of its documents begin with, where they have none."""
        return self.label or Path(re.sub(r"\.gz$", "", self.name, flags=re.IGNORECASE)).stem

    def stamp(self) -> tuple[Any, ...] | None:
        """What changes when its documents may have changed; None if it is no file that stays."""
        try:
            state = os.stat(self.name)
        except OSError:
            return None
        if self.data is not None or not stat.S_ISREG(state.st_mode):
            return None
        # The time of the last change is set by the system: a copy may bring its old time of writing along.
        changed = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
        return (self.name, self.label, os.path.abspath(self.name), *changed)

    def default_id(self, number: int) -> str:
        """The id of a document that has none."""
        return f"{self.stem}-{number}"

    @contextlib.contextmanager
    def open_bytes(self) -> Iterator[BinaryIO]:
        """What it holds, unpacked if it is compressed with gzip (whatever its name is).

        Raises:
            UserError: if it is missing or cannot be read.
        """
        try:
            with io.BytesIO(self.data) if self.data is not None else open(self.name, "rb") as raw:
                packed = raw.read(len(_GZIP)) == _GZIP
                raw.seek(0)
                yield cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
        except FileNotFoundError:
            raise UserError(f"{self.name}: there is no such file.") from None
        except (OSError, EOFError, zlib.error) as error:  # of which the last two are torn archives
            raise UserError(f"{self.name}: cannot be read ({disk_reason(error)}).") from None

    @contextlib.contextmanager
    def open_text(self) -> Iterator[TextIO]:
        """Its text, with or without a byte-order mark, each line with its own end (which csv wants to see).

        Raises:
            UserError: if it is missing or cannot be read, or something in it that is read is not UTF-8.
        """
        try:
            with self.open_bytes() as data:
                yield io.TextIOWrapper(data, encoding="utf-8-sig", newline="")
        except UnicodeDecodeError:
            with self.open_bytes() as data:
                raise _not_utf8(data.read(), self.name) from None

    def lines(self) -> Iterator[tuple[int, str]]:
        """The lines that are not blank, without their ends, numbered from 1.

        Raises:
            UserError: as :meth:`open_text`.
        """
        with self.open_text() as text:
            for number, line in enumerate(text, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")


def _not_utf8(data: bytes, name: str) -> UserError:
    """The error for a file whose bytes are not UTF-8, naming the line of the first that is not."""
    try:
        data.decode("utf-8")
        line = 1
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    return UserError(f"{name}, line {line}: not UTF-8 text; convert the file to UTF-8 first.")
