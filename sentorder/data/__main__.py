"""``python -m sentorder.data``: look at documents, and write them down in the library's own layouts."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from ..arguments import InspectionArguments
from ..command_line import parse_arguments, run_command
from ..errors import UserError
from ..files import disk_reason, write_json_lines
from .document_tables import documents_of
from .documents import Document
from .inspection import describe, inspect, warnings
from .sources import load_split, load_splits
from .splitting import TooFewToSplitError


def json_row(document: Document) -> dict[str, Any]:
    """A document as a line of the library's JSONL."""
    row = {"id": document.id, "genre": document.genre, "group": document.group}
    return {name: value for name, value in row.items() if value is not None} | {"sentences": document.sentences}


def check_free(output: Path) -> None:
    """Nothing is written over.

    Raises:
        UserError: if there is something already.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output}: is there already; choose another.")


def write_documents(splits: dict[str, Dataset], output: Path, *, arrow: bool) -> list[Path]:
    """Write each split into a folder: ``train.jsonl`` and so on, or what ``load_from_disk`` reads.

    Raises:
        UserError: if it cannot be written.
    """
    try:
        if arrow:
            DatasetDict(splits).save_to_disk(str(output))
            return [output]
        output.mkdir(parents=True, exist_ok=True)
        paths = {name: output / f"{name}.jsonl" for name in splits}
        for name, documents in splits.items():
            write_json_lines(paths[name], map(json_row, documents_of(documents)))
        return list(paths.values())
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written ({disk_reason(error)}).") from None


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="What --dataset takes, which may be left out then.")


def main() -> None:
    """The command line program."""
    arguments, rest = parse_arguments(
        InspectionArguments,
        program="python -m sentorder.data",
        description="Show what a source of documents holds and what may be wrong with it, and write it down anew.",
        positional=_add_source,
    )
    if rest.source is not None and arguments.dataset != InspectionArguments().dataset:
        raise UserError(f"{rest.source} and --dataset {arguments.dataset}: give one of them.")
    source = arguments.dataset if rest.source is None else rest.source
    output = None if arguments.output is None else Path(arguments.output)
    if output is not None:
        check_free(output)
    try:
        splits, notes = load_splits(source, arguments.source_options)
    except TooFewToSplitError as error:
        documents, notes = load_split(source, None, arguments.source_options)
        splits, notes = {"whole": documents}, [str(error), *notes]
    found = {name: inspect(documents_of(documents)) for name, documents in splits.items()}
    if output is not None:
        for path in write_documents(splits, output, arrow=arguments.arrow):
            print(f"written: {path}", file=sys.stderr)
    for note in [*notes, *warnings(found)]:
        print(f"note: {note}", file=sys.stderr)
    print(describe(found, width=min(120, shutil.get_terminal_size((100, 24)).columns)))


if __name__ == "__main__":
    run_command(main)
