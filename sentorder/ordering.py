"""What ``python -m sentorder.predict`` does: reads texts, has them put into order or rated, and writes the answers."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from .arguments import PredictArguments
from .charts import draw_precedence, new_figure
from .data.documents import Document, Skipped
from .data.formats import FORMATS, Format, format_of, read_file
from .data.reading import Reading
from .data.text_files import File
from .errors import UserError
from .files import disk_reason
from .inference import Coherence, Ordered
from .model_files import check_is_orderer
from .modeling import SentenceOrderer
from .runtime import accelerator_for, on_main_process
from .tracking import progress_bar

Result = TypeVar("Result")

logger = logging.getLogger("sentorder")


def read_input(file: File, format: str | None, reading: Reading) -> tuple[list[Document], str | None]:
    """The documents of a file, their sentences as they stand.

    Args:
        file: what to read.
        format: a key of ``FORMATS``; None to find out.
        reading: which columns hold what, and what is cut into pieces.

    Returns:
        The documents, and what stands between the sentences of one; None if the file is more than that.

    Raises:
        UserError: if there are none, or one is malformed.
    """
    if file.data is not None and not file.data.strip():
        raise UserError(
            f"{file.name}: there is no text. Give one sentence per line and a blank line between documents."
        )
    columns = dataclasses.replace(reading.columns, as_they_stand=True)
    name = format or format_of(file, columns, otherwise="lines")
    if name == "lines" and format is None:  # columns of running text are better refused than read as lines
        name = format_of(file, dataclasses.replace(columns, as_they_stand=False), otherwise="lines")
    documents = []
    for item in read_file(file, name, dataclasses.replace(reading, columns=columns)):
        if isinstance(item, Skipped):
            raise UserError(f"{item.origin}: a document {item.reason}.")
        documents.append(item)
    if all(len(document.sentences) < 2 for document in documents):
        logger.warning(
            f"{file.name}: each document has one sentence, so there is nothing to order; documents are parted by blank "
            "lines, and --format text or markdown reads running text."
        )
    layout = FORMATS[name]
    return documents, layout.separator if isinstance(layout, Format) else None


def format_orders(document: Document, orders: Sequence[Ordered], separator: str | None, *, several: bool) -> str:
    """The best order in the layout in which the document came; as JSON if that has more to it than a separator, with
    all orders if ``several``."""
    best = orders[0]
    if not several and separator is not None:
        return separator.join(best.sentences)
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


def format_scores(documents: Sequence[Document], scores: Sequence[Coherence], separator: str | None) -> str:
    """One JSON line per document where the layout has more to it than a separator, else a row of a table with tabs."""
    if separator is None:
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


def _read_once(
    accelerator: Accelerator, path: str | None, arguments: PredictArguments
) -> tuple[list[Document], str | None]:
    """Standard input can be read by one process only; a mistake in it is told to all of them."""
    reading = arguments.source_options.reading()

    def read() -> tuple[list[Document], str | None]:
        piped = path is None or path == "-"
        file = File("standard input", sys.stdin.buffer.read()) if piped else File.at(str(path))
        return read_input(file, arguments.format, reading)

    return on_main_process(accelerator, read)


def _explain(model: SentenceOrderer, document: Document, best: Ordered, path: str) -> None:
    """Draw what the model says about the pairs of a document, its sentences in predicted order."""
    probabilities = model.precedence(document.sentences)[np.ix_(best.order, best.order)]
    try:
        draw_precedence(best.sentences, probabilities).savefig(path)
    except OSError as error:
        raise UserError(f"--explain {path}: cannot be written ({disk_reason(error)}).") from None


def order_texts(arguments: PredictArguments, path: str | None) -> None:
    """Print the answers for the documents of a file.

    Args:
        arguments: of the command.
        path: of the file; None or ``-`` for standard input.

    Raises:
        UserError: for anything that is wrong with arguments, model or file.
    """
    check_is_orderer(str(arguments.model_path))
    with accelerator_for(mixed_precision=None, cpu_threads=arguments.cpu_threads) as accelerator:
        documents, separator = _read_once(accelerator, path, arguments)
        if arguments.explain is not None:
            if len(documents) != 1:
                raise UserError(f"--explain: draws one document, and {path or 'standard input'} has {len(documents)}.")
            new_figure(1, 1)  # is there what it takes?
        model = SentenceOrderer.from_pretrained(str(arguments.model_path)).to(accelerator.device)
        model.set_decoding(
            decoder=arguments.decoder,
            num_permutations=arguments.num_permutations,
            num_refeeds=arguments.num_refeeds,
            piece_length=arguments.piece_length,
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
                answer = format_scores(documents, scores, separator)
            else:
                found = collected(
                    model.iter_orders(sentences, arguments.num_best, batch_size=arguments.batch_size, names=names)
                )
                several = arguments.num_best > 1
                between = "\n\n" if separator == "\n" and not several else "\n"
                pairs = zip(documents, found, strict=True)
                answer = between.join(
                    format_orders(document, orders, separator, several=several) for document, orders in pairs
                )
        if accelerator.is_main_process:
            print(answer)
            if arguments.explain is not None:
                _explain(model, documents[0], found[0][0], arguments.explain)
