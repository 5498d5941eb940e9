"""Fields with a help text and limits, and arguments that can say what is wrong with them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from .errors import UserError


def option(default: Any, help: str) -> Any:  # Any, as dataclasses.field has it
    """A field with a help text; the default is shown by the parser."""
    return field(default=default, metadata={"help": help.replace("%", "%%")})


@dataclass(frozen=True)
class Between:
    """What a number may be, as an annotation of its field."""

    least: float
    most: float = math.inf

    def __str__(self) -> str:
        return f"at least {self.least:g}" + (f" and at most {self.most:.10g}" if self.most < math.inf else "")


def _complaint(value: Any, hint: Any) -> str | None:
    """Why a value is not what its field's annotation says; None if it is."""
    limits = getattr(hint, "__metadata__", ())
    kind = get_args(hint)[0] if limits else hint
    if type(None) in get_args(kind):  # Optional
        if value is None:
            return None
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return None if value in get_args(kind) else f"choose one of {', '.join(get_args(kind))}"
    if get_origin(kind) is list:
        return None if isinstance(value, list) and all(isinstance(item, str) for item in value) else "must be a list"
    accepted = {float: (int, float)}.get(kind, kind)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        return f"must be of type {kind.__name__}"
    if kind is float and not math.isfinite(value):
        return "must be a finite number"
    return next((f"must be {limit}" for limit in limits if not limit.least <= value <= limit.most), None)


class CheckedArguments:
    """Arguments that can say what is wrong with them."""

    GROUPS: ClassVar[tuple[type, ...]] = ()
    """The dataclasses that they are made of, in the order of ``--help``; empty for one that is a group by itself."""

    def problems(self) -> list[str]:
        """One sentence for each value that cannot be meant."""
        hints = get_type_hints(type(self), include_extras=True)
        names = [item.name for item in dataclasses.fields(self)]  # type: ignore[arg-type]
        complaints = [(name, getattr(self, name), _complaint(getattr(self, name), hints[name])) for name in names]
        return [f"--{name} {value}: {complaint}." for name, value, complaint in complaints if complaint]

    def check(self) -> None:
        """Raise one :class:`UserError` with all problems, if there are any."""
        problems = self.problems()
        if problems:
            raise UserError("\n".join(problems))
