"""What can be asked of a source."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..errors import UserError
from .cutting import Cutting
from .rows import Columns, parse_columns


@dataclass(frozen=True)
class Reading:
    """How files and tables are read, beside their layout."""

    columns: Columns = field(default_factory=Columns)
    """Which columns hold what."""
    cutting: Cutting = field(default_factory=Cutting)
    """Which pieces become documents."""


@dataclass(frozen=True)
class SourceOptions(Cutting):
    """What the flags beside ``--dataset`` say, those of :class:`Cutting` among them; None is what is usual."""

    config: str | None = None
    """Which configuration of a data set on the Hub."""
    revision: str | None = None
    """Which commit, branch or tag of it."""
    format: str | None = None
    """The layout of files or folders, a key of :data:`~sentorder.data.formats.FORMATS`; None to find out."""
    columns: str | None = None
    """Which columns hold what, as in ``sentences=steps,id=doc``."""

    def reading(self) -> Reading:
        """The same, understood.

        Raises:
            UserError: for what cannot be meant.
        """
        if self.window is not None and self.window < 2:
            raise UserError(f"--window {self.window}: a document needs two sentences at least.")
        if self.stride is not None:
            if self.stride < 1:
                raise UserError(f"--stride {self.stride}: must be 1 at least.")
            if self.window is None:
                raise UserError(f"--stride {self.stride}: goes with --window; give that too.")
            if self.stride > self.window:
                raise UserError(f"--stride {self.stride}: beyond --window {self.window} sentences would be lost.")
        columns = Columns() if self.columns is None else parse_columns(self.columns)
        return Reading(columns, Cutting(_language(self.language), self.unit, self.window, self.stride))


def _language(name: str | None) -> str | None:
    """``de-DE`` is read as ``de``."""
    if name is None:
        return None
    code = re.split("[-_]", name.strip().lower())[0]
    if not re.fullmatch("[a-z]{2,3}", code):
        raise UserError(f"--language {name}: give a code of two or three letters, such as de.")
    return code
