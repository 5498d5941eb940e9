"""Order the sentences of new texts: ``python -m sentorder.predict --model_path runs/1/model [FILE]``."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterable
from typing import IO, Literal

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


Layout = Literal["text", "json", "<eos>", "tab"]


def read_input(stream: IO[str], name: str) -> tuple[list[Document], Layout]:
    """The documents of a stream, and in which layout they came.

    Raises:
        UserError: if there are none, or a line is malformed.
    """
    try:
        text = stream.read()
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 text (byte {error.start}); convert it to UTF-8 first.") from None
    first_line = text.lstrip().partition("\n")[0]
    if first_line.startswith("["):
        raise UserError(f'{name}: looks like one JSON list; give JSON lines, one object with "sentences" per line.')
    signs: dict[Layout, bool] = {
        "json": first_line.startswith("{"),
        "<eos>": "<eos>" in first_line,
        "tab": "\t" in first_line,
    }
    for layout, found in signs.items():
        if found:
            return list(parse_documents(io.StringIO(text), name, at_least=1)), layout
    blocks = read_blocks(io.StringIO(text))
    if not blocks:
        raise UserError(f"{name}: there is no text. Give one sentence per line and a blank line between documents.")
    return [Document(str(number), block) for number, block in enumerate(blocks, start=1)], "text"


def format_result(document: Document, ordered: Ordered, layout: Layout) -> str:
    """The ordered document in the layout in which it came."""
    if layout != "json":
        return {"text": "\n", "<eos>": " <eos> ", "tab": "\t"}[layout].join(ordered.sentences)
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
        help="One sentence per line with a blank line between documents, or JSON lines, <eos> lines or tab-separated "
        "rows as for training. Without it: standard input.",
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
        documents, layout = read_input(stream, name)
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
    separator = "\n\n" if layout == "text" else "\n"
    print(separator.join(format_result(documents[i], results[i], layout) for i in range(len(documents))))


if __name__ == "__main__":
    run_command(main)
