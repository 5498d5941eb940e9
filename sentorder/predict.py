"""Order the sentences of new texts, or rate the order in which they stand.

``python -m sentorder.predict --model_path runs/1/model [FILE]``, with ``--score`` for the rating.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from accelerate import Accelerator
from accelerate.utils import gather_object

from .arguments import PredictArguments
from .command_line import parse_arguments, run_command
from .data.formats import Document, not_utf8, parse_documents
from .errors import UserError
from .inference import Coherence, Ordered
from .methods import DECODERS
from .model_files import check_is_orderer
from .modeling import SentenceOrderer
from .runtime import accelerator_for, on_main_process
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
Result = TypeVar("Result")


def read_input(data: bytes, name: str) -> tuple[list[Document], Layout]:
    """The documents of a file, and in which layout they came.

    Raises:
        UserError: if there are none, or a line is malformed.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise not_utf8(data, name) from None
    first_line = text.lstrip().partition("\n")[0]
    if first_line.startswith(("[{", '["')):
        raise UserError(f'{name}: looks like one JSON list; give JSON lines, one object with "sentences" per line.')
    lines = io.StringIO(text, newline=None)  # whatever ends a line: \n, \r\n or \r
    signs: dict[Layout, bool] = {
        "json": first_line.startswith("{"),
        "<eos>": "<eos>" in first_line,
        "tab": "\t" in first_line,
    }
    for layout, found in signs.items():
        if found:
            return list(parse_documents(lines, name)), layout
    blocks = read_blocks(lines)
    if not blocks:
        raise UserError(f"{name}: there is no text. Give one sentence per line and a blank line between documents.")
    numbered = enumerate(blocks, start=1)
    return [Document(str(number), block, origin=f"{name}, document {number}") for number, block in numbered], "text"


def format_orders(document: Document, orders: Sequence[Ordered], layout: Layout, *, several: bool) -> str:
    """The best order in the layout in which the document came; as JSON with all of them if ``several``."""
    best = orders[0]
    if not several and layout != "json":
        return {"text": "\n", "<eos>": " <eos> ", "tab": "\t"}[layout].join(best.sentences)
    row = {
        "id": document.id,
        "order": best.order,
        "confidence": round(best.confidence, 4),
        "sentences": best.sentences,
    }
    if several:
        row["orders"] = [
            {"order": found.order, "confidence": round(found.confidence, 4), "score": round(found.score, 4)}
            for found in orders
        ]
    return json.dumps(row, ensure_ascii=False)


def format_scores(documents: Sequence[Document], scores: Sequence[Coherence], layout: Layout) -> str:
    """One JSON line per document for JSON, else one row per document of a tab-separated table."""
    if layout == "json":
        return "\n".join(
            json.dumps(
                {
                    "id": document.id,
                    "tau": None if math.isnan(score.tau) else round(score.tau, 4),
                    "log_likelihood": None if score.log_likelihood is None else round(score.log_likelihood, 4),
                    "confidence": round(score.confidence, 4),
                    "order": score.order,
                },
                ensure_ascii=False,
            )
            for document, score in zip(documents, scores, strict=True)
        )
    rows = [("tau", "log_likelihood", "confidence", "document")]
    for document, score in zip(documents, scores, strict=True):
        figures = (score.tau, math.nan if score.log_likelihood is None else score.log_likelihood, score.confidence)
        written = ("-" if math.isnan(figure) else f"{figure:.4f}" for figure in figures)
        rows.append((*written, document.sentences[0].replace("\t", " ")))  # type: ignore[arg-type]
    return "\n".join("\t".join(row) for row in rows)


def _read_bytes(file: str | None) -> tuple[bytes, str]:
    if file is None or file == "-":
        return sys.stdin.buffer.read(), "standard input"
    try:
        return Path(file).read_bytes(), file
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file.") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}).") from None


def _read_once(accelerator: Accelerator, file: str | None) -> tuple[list[Document], Layout]:
    """Standard input can be read by one process only; a mistake in it is told to all of them."""
    return on_main_process(accelerator, lambda: read_input(*_read_bytes(file)))


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
        description="Restore the order of the sentences of each document, or rate the order that they have (--score).",
        positional=_add_file,
        choices={"decoder": DECODERS},
    )
    check_is_orderer(str(arguments.model_path))
    with accelerator_for(mixed_precision=None, cpu_threads=arguments.cpu_threads) as accelerator:
        documents, layout = _read_once(accelerator, rest.file)
        model = SentenceOrderer.from_pretrained(str(arguments.model_path)).to(accelerator.device)
        model.set_decoding(
            decoder=arguments.decoder,
            num_permutations=arguments.num_permutations,
            num_refeeds=arguments.num_refeeds,
        )
        # Each process takes every so many-th document.
        mine = documents[accelerator.process_index :: accelerator.num_processes]
        sentences, names = [document.sentences for document in mine], [document.origin for document in mine]
        task = "rating" if arguments.score else "ordering"
        with progress_bar(len(mine), task, "document", main=accelerator.is_main_process) as bar:

            def collected(found: Iterable[tuple[int, Result]]) -> list[Result]:
                results: dict[int, Result] = {}
                problem: Exception | None = None
                try:
                    for index, result in found:
                        results[accelerator.process_index + index * accelerator.num_processes] = result
                        bar.update()
                except (UserError, FloatingPointError) as error:  # in a document of this process; the others wait below
                    problem = error
                outcomes: list[tuple[dict[int, Result], Exception | None]] = gather_object([(results, problem)])
                for _, problem in outcomes:
                    if problem is not None:
                        raise problem
                everything = {index: result for part, _ in outcomes for index, result in part.items()}
                return [everything[index] for index in range(len(documents))]

            if arguments.score:
                scores = collected(model.iter_scores(sentences, batch_size=arguments.batch_size, names=names))
                answer = format_scores(documents, scores, layout)
            else:
                found = collected(
                    model.iter_orders(sentences, arguments.num_best, batch_size=arguments.batch_size, names=names)
                )
                several = arguments.num_best > 1
                layout = "json" if several else layout
                separator = "\n\n" if layout == "text" else "\n"
                pairs = zip(documents, found, strict=True)
                answer = separator.join(
                    format_orders(document, orders, layout, several=several) for document, orders in pairs
                )
        if accelerator.is_main_process:
            print(answer)


if __name__ == "__main__":
    run_command(main)
