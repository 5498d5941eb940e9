"""Documents in JSON: one object per line, a list of objects, or the annotations of SIND."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ..errors import UserError, first_line
from .documents import Article, Document, Found, Item, Skipped
from .rows import Columns, row_reader
from .text_files import File


def parse_json(text: str, name: str, line: int = 1, *, what: str = "document") -> Any:
    """JSON as Python has it.

    Args:
        text: what to read.
        name: the file, for errors.
        line: the number of its first line.
        what: what it should be, for errors.

    Raises:
        UserError: if it is none.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{name}, line {line + error.lineno - 1}"
        raise UserError(f"{where}: not valid JSON ({error.msg} at column {error.colno}).") from None
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{name}, line {line}: not a {what} ({first_line(error)}).") from None
    except RecursionError:
        raise UserError(f"{name}, line {line}: not a {what} (the JSON is nested too deeply).") from None


def _document(value: Any, columns: Columns, where: str, default_id: str) -> Document | Article:
    if not isinstance(value, dict):
        raise UserError(f'{where}: expected an object, as in {{"sentences": ["...", "..."]}}.')
    return row_reader(value, columns, where)(value, where, default_id)


def read_jsonl(file: File, columns: Columns) -> Iterator[Found]:
    """One object per line.

    Raises:
        UserError: if the file cannot be read, or a line is malformed.
    """
    for number, line in file.lines():
        value = parse_json(line, file.name, number)
        yield _document(value, columns, f"{file.name}, line {number}", file.default_id(number))


def _whole(file: File) -> Any:
    with file.open_text() as text:
        return parse_json(text.read(), file.name)


def read_json(file: File, columns: Columns) -> Iterator[Found]:
    """A list of objects, or a single one.

    Raises:
        UserError: if the file cannot be read, or is malformed.
    """
    value = _whole(file)
    for number, entry in enumerate(value if isinstance(value, list) else [value]):
        yield _document(entry, columns, f"{file.name}, row {number}", file.default_id(number))


def read_sind(file: File) -> Iterator[Item]:
    """The stories of SIND (VIST): annotations, each of one photo and its sentence, that share a ``story_id``.

    They stand in the order of ``worker_arranged_photo_order`` where all of a story have one, else in that of the file.

    Raises:
        UserError: if the file cannot be read, or is malformed.
    """
    value = _whole(file)
    annotations = value.get("annotations") if isinstance(value, dict) else None
    if not isinstance(annotations, list):
        raise UserError(f'{file.name}, line 1: expected an object with "annotations", as SIND has them.')
    stories: dict[str, list[tuple[Any, str]]] = {}
    origins: dict[str, str] = {}
    for number, annotation in enumerate(annotations):
        where = f"{file.name}, annotation {number}"
        if annotation == []:  # a photo that nobody has told of
            continue
        entry = annotation[0] if isinstance(annotation, list) else annotation
        if not isinstance(entry, dict) or not isinstance(entry.get("story_id"), (str, int)):
            raise UserError(f'{where}: expected a list of an object with "story_id" and "original_text".')
        text, story = entry.get("original_text"), str(entry["story_id"])
        if not isinstance(text, str | None):
            raise UserError(f'{where}: "original_text" must be a string.')
        # One without a text leaves its place empty, so that the story is skipped and counted.
        stories.setdefault(story, []).append((entry.get("worker_arranged_photo_order"), text or ""))
        origins.setdefault(story, where)
    for story, told in stories.items():
        places = [int(place) for place, _ in told if re.fullmatch(r"[0-9]+", str(place))]
        texts = [text for _, text in told]
        if len(places) == len(texts):
            if len(set(places)) < len(places):
                yield Skipped("with two sentences for one photo", origins[story])
                continue
            texts = [text for _, text in sorted(zip(places, texts, strict=True))]
        yield Document(story, texts, origin=origins[story])
