"""Order the sentences of new texts: ``python -m sentorder.predict --model_path runs/1/model [FILE]``."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterable
from typing import IO

import torch
import transformers

from .arguments import PredictArguments
from .checkpoint import check_is_orderer
from .command_line import parse_arguments, run_command
from .data.formats import Document, open_text, parse_documents
from .errors import UserError
from .modeling import Ordered, SentenceOrderer
from .tracking import progress_bar


def read_blocks(lines: Iterable[str]) -> list[list[str]]:
    """Documents as people type them: one sentence per line, a blank line between documents."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            blocks[-1].append(line.strip())
        elif blocks[-1]:
            blocks.append([])
    return [block for block in blocks if block]


def read_input(stream: IO[str], name: str) -> tuple[list[Document], bool]:
    """The documents of a stream, and whether they came as JSON lines.

    Raises:
        UserError: if there are none, or a JSON line is malformed.
    """
    try:
        text = stream.read()
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 text (byte {error.start}); convert it to UTF-8 first.") from None
    if text.lstrip().startswith("{"):
        return list(parse_documents(io.StringIO(text), name, at_least=1)), True
    blocks = read_blocks(io.StringIO(text))
    if not blocks:
        raise UserError(f"{name}: there is no text. Give one sentence per line and a blank line between documents.")
    return [Document(str(number), block) for number, block in enumerate(blocks, start=1)], False


def format_result(document: Document, ordered: Ordered, *, as_json: bool) -> str:
    """One JSON line, or the ordered sentences, one per line."""
    if not as_json:
        return "\n".join(ordered.sentences)
    row = {
        "id": document.id,
        "order": ordered.order,
        "confidence": round(ordered.confidence, 4),
        "sentences": ordered.sentences,
    }
    return json.dumps(row, ensure_ascii=False)


def _open_input(file: str | None) -> tuple[IO[str], str]:
    if file is None or file == "-":
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig"), "standard input"
    try:
        return open_text(file), file
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file.") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}).") from None


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="One sentence per line with a blank line between documents, or JSON lines with 'sentences'. Without it: "
        "standard input.",
    )


def main() -> None:
    """The command line program."""
    arguments, rest = parse_arguments(
        PredictArguments,
        program="python -m sentorder.predict",
        description="Restore the order of the sentences of each document.",
        positional=_add_file,
    )
    check_is_orderer(str(arguments.model_path))
    stream, name = _open_input(rest.file)
    with stream:
        documents, as_json = read_input(stream, name)
    transformers.utils.logging.disable_progress_bar()
    model = SentenceOrderer.from_pretrained(str(arguments.model_path))
    model.to(torch.accelerator.current_accelerator() or torch.device("cpu"))  # type: ignore[arg-type]
    if arguments.cpu_threads is not None:
        torch.set_num_threads(arguments.cpu_threads)
    sentences = [document.sentences for document in documents]
    results: dict[int, Ordered] = {}
    with progress_bar(len(documents), "ordering", "document") as bar:
        for index, ordered in model.iter_order(sentences, batch_size=arguments.batch_size):
            results[index] = ordered
            bar.update()
    separator = "\n" if as_json else "\n\n"
    print(separator.join(format_result(documents[i], results[i], as_json=as_json) for i in range(len(documents))))


if __name__ == "__main__":
    run_command(main)
