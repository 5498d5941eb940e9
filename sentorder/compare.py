"""Score files of predictions and compare them: ``python -m sentorder.compare runs/1 runs/2``.

A predictions file is all it needs: no model, no texts. See ``predictions.py`` for its rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .arguments import CompareArguments
from .command_line import parse_arguments, run_command
from .compatibility import REPOSITORIES, Figure
from .errors import UserError
from .files import disk_reason, write_json
from .metrics import DETAILS, FIGURES, MAIN_FIGURES, SENTENCES, averages, figures_of_documents, positions_of
from .predictions import Prediction, like_the_first, read_predictions
from .significance import Difference, main_intervals, over_runs, paired_difference

LENGTHS_SHOWN = 12
"""Documents of more different lengths than that are put together: 2 to 3 sentences, 4 to 7, 8 to 15, ..."""


@dataclass(frozen=True)
class System:
    """What was asked for under one name: a file of predictions, or several, as of several seeds."""

    name: str
    files: list[str]


@dataclass(frozen=True)
class Scored:
    """The figures of one system."""

    system: System
    figures: dict[str, np.ndarray]
    """Of each document with two sentences or more, the mean over the system's files."""
    groups: dict[str, list[tuple[str, np.ndarray]]]
    """By ``sentences``, and by ``genre`` where there are genres: what each group is called, and which documents these
    are, as a mask (documents,)."""
    scores: dict[str, float]
    """Means over all documents, the ends of intervals, and counts, by the same names as in ``results.json``."""

    def by(self, kind: str) -> dict[str, dict[str, float]]:
        """The means of each group."""
        return {
            label: averages({name: values[mask] for name, values in self.figures.items()})
            for label, mask in self.groups.get(kind, [])
        }


# --- what is given ---------------------------------------------------------------------------------------------------


def parse_system(text: str) -> System:
    """``FILE``, or ``NAME=FILE,FILE,...``; a file may also be the folder of a run.

    Raises:
        UserError: if the name or a file is empty, or a file is given twice.
    """
    name, equals, files = text.partition("=")
    if not equals or Path(text).exists():
        return System(text, [text])
    paths = files.split(",")
    if not name or not all(paths):
        raise UserError(f"{text}: expected FILE, or NAME=FILE,FILE,... for several runs of one system.")
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise UserError(f"{text}: has the same file twice; the runs of a system must be different ones.")
    return System(name, paths)


def read_systems(systems: Sequence[System]) -> list[list[list[Prediction]]]:
    """The predictions of each file of each system, for the same documents in the same order.

    Raises:
        UserError: for a malformed file, or files of different documents.
    """
    names = [system.name for system in systems]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name}: is given twice; call systems by names of their own, as in A={name}.")
    aligned = iter(like_the_first([(file, read_predictions(file)) for system in systems for file in system.files]))
    return [[next(aligned) for _ in system.files] for system in systems]


# --- what is computed ------------------------------------------------------------------------------------------------


def score(system: System, runs: Sequence[Sequence[Prediction]]) -> Scored:
    """Score the predictions of one system.

    Args:
        system: whose they are.
        runs: of each of its files, the same documents in the same order.

    Raises:
        UserError: if no document has two sentences.
    """
    of_runs = [
        figures_of_documents([positions_of(row.order) for row in rows], [np.arange(len(row.order)) for row in rows])
        for rows in runs
    ]
    figures = {name: over_runs([run[name] for run in of_runs]) for name in FIGURES} | {SENTENCES: of_runs[0][SENTENCES]}
    ordered = [row for row in runs[0] if len(row.order) > 1]
    if not ordered:
        raise UserError(f"{system.files[0]}: holds no document of two sentences or more, so there is nothing to score.")
    groups = {SENTENCES: _by_length(figures[SENTENCES])}
    genres = [row.genre for row in ordered]
    if any(genres):
        names = sorted({genre or "" for genre in genres})
        groups["genre"] = [(name or "(none)", np.array([(genre or "") == name for genre in genres])) for name in names]
    counts = {"single_sentence_documents": len(runs[0]) - len(ordered)}
    return Scored(system, figures, groups, averages(figures) | counts | main_intervals(figures))


def _by_length(lengths: np.ndarray) -> list[tuple[str, np.ndarray]]:
    found = np.unique(lengths)
    if len(found) <= LENGTHS_SHOWN:
        return [(str(length), lengths == length) for length in found]
    classes = np.floor(np.log2(lengths)).astype(int)
    return [(f"{2**number}-{2 ** (number + 1) - 1}", classes == number) for number in np.unique(classes)]


def differences(first: Scored, other: Scored) -> dict[str, Difference]:
    """How much better than the first another system is on the same documents, in each of the main figures.

    Raises:
        UserError: if there is only one document.
    """
    if first.scores["documents"] < 2:
        raise UserError(f"{first.system.files[0]}: holds one document of two sentences or more; to compare takes two.")
    return {name: paired_difference(first.figures[name], other.figures[name]) for name in MAIN_FIGURES}


# --- what is shown ---------------------------------------------------------------------------------------------------


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _interval(low: float, high: float, sign: str = "") -> str:
    return f"(95 %: {low:{sign}.4f} to {high:{sign}.4f})"


def describe(scored: Scored) -> str:
    """All figures of a system, and tables by length and genre."""
    scores, files = scored.scores, scored.system.files
    counts = f"{scores['documents']} documents"
    if scores["single_sentence_documents"]:
        counts += f" ({scores['single_sentence_documents']} of one sentence left out)"
    lines = [scored.system.name, counts if len(files) == 1 else f"{counts}, each the mean of {len(files)} runs", ""]
    rows = []
    for name in [name for name in scores if name in FIGURES or name in DETAILS]:
        low, high = scores.get(f"{name}_low"), scores.get(f"{name}_high")
        interval = "" if low is None or high is None else _interval(low, high)
        rows.append((name, f"{scores[name]:.4f}", interval))
    lines += _columns(rows)
    for kind in scored.groups:
        table = [[kind, "documents", *MAIN_FIGURES]]
        for label, means in scored.by(kind).items():
            table.append([label, str(means["documents"]), *(f"{means[name]:.4f}" for name in MAIN_FIGURES)])
        lines += ["", *_columns(table)]
    return "\n".join(lines)


def describe_differences(first: Scored, other: Scored, found: Mapping[str, Difference]) -> str:
    """One line for each of the main figures."""
    rows = [
        (name, f"{item.difference:+.4f}", _interval(item.low, item.high, "+"), f"p {item.p_value:.4f}")
        for name, item in found.items()
    ]
    title = f"{other.system.name} less {first.system.name}, on the same {first.scores['documents']} documents"
    return "\n".join([title, "", *_columns(rows)])


EXPLANATION = (
    "Intervals (bootstrap) and p (paired sign-flip test, for one comparison at a time) are about other documents of\n"
    "this kind, not about other training runs."
)


def describe_as(figures: Iterable[Figure], file: str, repository: str) -> str:
    """The figures as another repository's program prints them."""
    rows = [(item.name, "-" if item.value is None else f"{item.value:.6f}") for item in figures]
    return "\n".join([f"{file}, as {repository} computes it", "", *_columns(rows)])


def describe_notes(figures: Iterable[Figure]) -> str:
    """What to know about them; each note once, with the names of all figures that it is about."""
    names: dict[str, list[str]] = {}
    for item in figures:
        names.setdefault(item.note, []).append(item.name)
    return "\n".join(f"{', '.join(named)}: {note}" for note, named in names.items())


# --- the command -----------------------------------------------------------------------------------------------------


def _compared(systems: Sequence[System]) -> tuple[list[str], dict[str, Any]]:
    """The blocks of text to print, and everything as plain values."""
    scored = [score(system, runs) for system, runs in zip(systems, read_systems(systems), strict=True)]
    first, *others = scored
    compared = [(other, differences(first, other)) for other in others]
    values = {
        "systems": [
            {"name": item.system.name, "files": item.system.files, "scores": item.scores}
            | {f"by_{kind}": item.by(kind) for kind in item.groups}
            for item in scored
        ],
        "differences": [
            {"system": other.system.name, "less": first.system.name}
            | {name: difference._asdict() for name, difference in found.items()}
            for other, found in compared
        ],
    }
    blocks = [describe(item) for item in scored]
    blocks += [describe_differences(first, other, found) for other, found in compared]
    return [*blocks, EXPLANATION], values


def _as_another(systems: Sequence[System], repository: str) -> tuple[list[str], dict[str, Any]]:
    """Likewise, with the figures of another repository: of each file for itself, as its program has it."""
    files = [file for system in systems for file in system.files]
    figures = {file: REPOSITORIES[repository]([row.order for row in read_predictions(file)]) for file in files}
    notes = figures[files[0]]
    values = {
        "as": repository,
        "files": [{"file": file, "figures": {item.name: item.value for item in figures[file]}} for file in files],
        "notes": {item.name: item.note for item in notes},
    }
    return [*(describe_as(figures[file], file, repository) for file in files), describe_notes(notes)], values


def _add_operands(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "systems",
        nargs="+",
        metavar="PREDICTIONS",
        help="A predictions.jsonl or the folder of a run that has one, or NAME=FILE,FILE,... for several runs of one "
        "system, whose figures are averaged per document. All others are compared with the first.",
    )
    parser.add_argument(
        "--as",
        choices=list(REPOSITORIES),
        help="Instead print what the evaluation code of B-TSort, BERSON or RE-BART would print for each file, and "
        "where that is off.",
    )


def main() -> None:
    """The command line program."""
    arguments, rest = parse_arguments(
        CompareArguments,
        program="python -m sentorder.compare",
        description="Score files of predictions, and compare them with the first.",
        positional=_add_operands,
    )
    systems, repository = [parse_system(text) for text in rest.systems], vars(rest)["as"]
    blocks, values = _compared(systems) if repository is None else _as_another(systems, repository)
    if arguments.json is not None:
        try:
            write_json(Path(arguments.json), values)
        except OSError as error:
            raise UserError(f"--json {arguments.json}: cannot be written ({disk_reason(error)}).") from None
    print("\n\n".join(blocks))


if __name__ == "__main__":
    run_command(main)
