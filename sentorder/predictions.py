"""Read ``predictions.jsonl``: what evaluation and training write, and any other program may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .data.json_files import parse_json
from .data.text_files import File
from .errors import UserError

PREDICTIONS = "predictions.jsonl"


class Prediction(NamedTuple):
    """The order that was predicted for one document."""

    id: str
    order: list[int]
    """Indices into its sentences in gold order, in predicted order: the right one is 0, 1, 2, ..."""
    genre: str | None
    confidence: float | None
    """0 to 1, where the program that predicted has one."""


def distinct_ids(ids: Iterable[str]) -> list[str]:
    """The ids of documents as predictions have them: the second document of one gets "(2)" behind it, and so on."""
    ids = list(ids)
    taken = set(ids)
    counts: Counter[str] = Counter()
    names = []
    for id in ids:
        counts[id] += 1
        name = id
        while counts[id] > 1 and (name := f"{id} ({counts[id]})") in taken:
            counts[id] += 1
        names.append(name)
    return names


def _prediction(line: str, name: str, number: int) -> Prediction:
    row: Any = parse_json(line, name, number, what="prediction")
    where = f"{name}, line {number}"
    if not isinstance(row, dict) or "id" not in row or "order" not in row:
        raise UserError(f'{where}: expected an object with "id" and "order", as in {{"id": "a", "order": [1, 0, 2]}}.')
    name, order, genre, confidence = row["id"], row["order"], row.get("genre"), row.get("confidence")
    if not isinstance(name, (str, int)) or isinstance(name, bool):
        raise UserError(f'{where}: "id" must be a string or a whole number.')
    whole = isinstance(order, list) and all(type(index) is int for index in order)
    if not whole or not order or sorted(order) != list(range(len(order))):
        raise UserError(
            f'{where}: "order" must hold the numbers of the sentences, from 0 on, each once: one that leaves some out, '
            "or has one twice, cannot be scored."
        )
    if genre is not None and not isinstance(genre, str):
        raise UserError(f'{where}: "genre" must be a string.')
    if confidence is not None and type(confidence) not in (int, float):
        raise UserError(f'{where}: "confidence" must be a number.')
    return Prediction(str(name), order, genre, confidence)


def read_predictions(path: str | Path) -> list[Prediction]:
    """Read the predictions of a file, or of a run's folder.

    Raises:
        UserError: if it is missing, unreadable, not UTF-8 or empty, a line is malformed, or two have the same id.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / PREDICTIONS).exists():
            raise UserError(f"{path}: holds no {PREDICTIONS}; give the folder of a finished run, or a file.")
        path = path / PREDICTIONS
    predictions: list[Prediction] = []
    lines_of_ids: dict[str, int] = {}
    for number, line in File.at(path).lines():
        prediction = _prediction(line, str(path), number)
        before = lines_of_ids.setdefault(prediction.id, number)
        if before != number:
            raise UserError(
                f"{path}, line {number}: the id {prediction.id!r} stands in line {before} already; each document "
                "needs one of its own."
            )
        predictions.append(prediction)
    if not predictions:
        raise UserError(f"{path}: the file holds no predictions.")
    return predictions


def like_the_first(files: Sequence[tuple[str, Iterable[Prediction]]]) -> list[list[Prediction]]:
    """The predictions of several files for the same documents, all in the order of the first file.

    Args:
        files: what messages call each, and its predictions.

    Raises:
        UserError: if a file does not have the documents of the first, or has them with another number of sentences.
    """
    (first_name, first), *_ = files
    first = list(first)
    wanted = {prediction.id: prediction for prediction in first}
    aligned = []
    for name, predictions in files:
        found = {prediction.id: prediction for prediction in predictions}
        for here, there, missing in (
            (name, first_name, [id for id in wanted if id not in found]),
            (first_name, name, [id for id in found if id not in wanted]),
        ):
            if missing:
                raise UserError(
                    f"{here}: lacks {len(missing)} of the documents of {there} (the first: {missing[0]!r}); only the "
                    "same documents can be compared."
                )
        for id, prediction in found.items():
            if len(prediction.order) != len(wanted[id].order):
                raise UserError(
                    f"{name}: document {id!r} has {len(prediction.order)} sentences, in {first_name} it has "
                    f"{len(wanted[id].order)}; only the same documents can be compared."
                )
        aligned.append([found[prediction.id] for prediction in first])
    return aligned
