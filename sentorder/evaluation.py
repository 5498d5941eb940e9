"""Score a model on documents whose order is known: ``python -m sentorder.evaluation --model_path runs/1/model``."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accelerate import Accelerator
from datasets import Dataset
from torch import nn

from .arguments import EvaluationArguments
from .command_line import parse_arguments, run_command
from .contracts import Batch, Decoded, OrderingOutput
from .data.collation import Shape, ordering_loader
from .data.sampling import GlobalPlan
from .data.sources import load_split
from .data.splitting import first_rows, numbers
from .data.tokenization import describe_cuts
from .errors import UserError
from .files import write_json, write_json_lines
from .inference import SHUFFLE_SEED
from .loop import evaluation_records
from .metrics import averages, figures_of_documents, in_source_order, positions_of
from .modeling import SentenceOrderer
from .pieces import Pieces
from .predictions import PREDICTIONS, distinct_ids
from .runtime import accelerator_for, main_process_first
from .significance import main_intervals
from .tracking import progress


class OrderingRecord(NamedTuple):
    """What is kept of one document when a model is evaluated."""

    document: int
    """The row of the document."""
    order: list[int]
    """Indices into its sentences as the source gives them, in predicted order."""
    confidence: float
    loss: float | None
    """None for a method that learns nothing."""
    scores: list[float]
    """Of its sentences, where the method scores sentences; else empty."""


@dataclass(frozen=True)
class Evaluation:
    """A model's result on some documents."""

    scores: dict[str, float]
    """What :func:`sentorder.metrics.ordering_metrics` gives; the ends of 95 % intervals over documents
    (``kendall_tau_low`` and ``kendall_tau_high``, likewise of ``accuracy`` and ``perfect_match_ratio``; a single
    document has none); ``loss``, ..."""
    records: list[OrderingRecord]
    """One per document, in the order of the documents."""
    seconds: float
    """What the passes and the decoding took."""

    def predictions(self, table: Dataset) -> list[dict[str, Any]]:
        """The rows of ``predictions.jsonl``, with the genre of those documents that have one; no two have one id.

        Args:
            table: that was evaluated, with ``id`` and ``genre``.
        """
        return [
            {"id": id, "order": record.order, "confidence": round(record.confidence, 4)}
            | ({} if genre is None else {"genre": genre})
            for record, id, genre in zip(self.records, distinct_ids(table["id"]), table["genre"], strict=True)
        ]


def records_of(model: SentenceOrderer) -> Callable[[OrderingOutput, Batch], list[OrderingRecord]]:
    """What to record of a batch: the decoded order, the loss, the scores."""

    def records(output: OrderingOutput, batch: Batch) -> list[OrderingRecord]:
        decoded = model.decode(output, batch["slot_mask"])
        loss = model.method.loss
        losses = [None] * len(decoded) if loss is None else loss(output, batch).tolist()
        scores = [[] for _ in decoded] if output.scores is None else output.scores.tolist()
        sources, documents = batch["sources"].tolist(), batch["document_ids"].tolist()
        return [
            OrderingRecord(
                documents[row],
                [sources[row][slot] for slot in best.order],
                best.confidence,
                losses[row],
                scores[row][: len(best.order)],
            )
            for row, (best, *_) in enumerate(decoded)
        ]

    return records


def _forward_passes(model: Any, batch: Batch) -> OrderingOutput:
    output: OrderingOutput = model.forward_passes(batch)
    return output


def evaluation_loader(
    accelerator: Accelerator,
    model: SentenceOrderer,
    table: Dataset,
    batch_size: int,
    *,
    num_workers: int = 0,
    shape: Shape | None = None,
) -> Any:
    """A prepared loader over a tokenised table, every document once, of like length together.

    With a ``shape`` all batches have that one, and ``batch_size`` documents (fillers have weight 0).
    """
    processes = accelerator.num_processes
    plan = GlobalPlan(
        numbers(table, "length"), batch_size * processes, micro_batches=processes, same_size=shape is not None
    )
    collator = model.collator(seed=SHUFFLE_SEED, shape=shape)
    return accelerator.prepare(ordering_loader(table, plan, collator, num_workers=num_workers))


def check_fixed_shapes(model: SentenceOrderer) -> None:
    """Refuse ``--pad_to_max_length`` where only the sentences that there are get computed.

    Raises:
        UserError: for a backbone that reads each sentence by itself.
    """
    if model.reading.per_sentence:
        raise UserError(
            f"--pad_to_max_length: the backbone {model.config.backbone} computes as many sentences as there are, so "
            "its shapes differ; leave it out, or use the backbone joint."
        )


def one_shape(tables: Iterable[Dataset], max_length: int) -> Shape:
    """What every batch of these tables fits into."""
    return Shape(max_length, max(int(numbers(table, "count").max()) for table in tables))


def evaluate(
    accelerator: Accelerator,
    model: nn.Module,
    loader: Any,
    table: Dataset,
    *,
    pieces: Pieces | None = None,
    description: str = "evaluating",
) -> Evaluation:
    """Order every document of a loader once and score the orders; every process gets the same result.

    Sentences that occur twice in a document are interchangeable: their order among themselves is no error.

    Args:
        accelerator: whose processes share the work.
        model: a :class:`SentenceOrderer`, prepared or not.
        loader: from :func:`evaluation_loader`.
        table: that the loader reads, to know which sentences are alike and that no document was lost.
        pieces: if they are what that table holds: their documents are scored, as wholes (and have no loss).
        description: for the progress bar.

    Raises:
        RuntimeError: if a document was lost or counted twice.
    """
    bare = accelerator.unwrap_model(model)
    started = time.perf_counter()
    records = evaluation_records(
        accelerator, model, progress(loader, description, accelerator), records_of(bare), forward=_forward_passes
    )
    seconds = time.perf_counter() - started
    records.sort()
    if [record.document for record in records] != list(range(len(table))):
        raise RuntimeError(f"{len(table)} documents were to be evaluated, {len(records)} came back.")
    cut = numbers(table, "cut") > 0
    documents: Sequence[Sequence[str]] = table["sentences"]
    if pieces is not None:
        records = [_merged(pieces, document, records) for document in range(len(pieces.documents))]
        cut, documents = np.unique(np.asarray(pieces.document_of)[cut]), pieces.documents
    records = [
        record._replace(order=in_source_order(record.order, sentences))
        for record, sentences in zip(records, documents, strict=True)
    ]
    scores = scores_of([record.order for record in records])
    losses = [record.loss for record in records if record.loss is not None]
    if losses:
        scores["loss"] = float(np.mean(losses))
    of_sentences = [score for record in records for score in record.scores]
    if of_sentences:  # a model that has collapsed gives every sentence the mean position
        scores |= {"score_mean": float(np.mean(of_sentences)), "score_spread": float(np.std(of_sentences))}
    scores["cut_documents"] = int(cut.sum()) if pieces is None else len(cut)
    return Evaluation(scores, records, seconds)


def _merged(pieces: Pieces, document: int, records: Sequence[OrderingRecord]) -> OrderingRecord:
    """The record of a document from those of all pieces."""
    rows = pieces.rows[document]
    best = Decoded(records[rows.start].order, 0.0, records[rows.start].confidence)
    if len(rows) > 1:
        found = [Decoded(records[row].order, 0.0, records[row].confidence) for row in rows]
        best, *_ = pieces.merged(document, found)
    return OrderingRecord(document, best.order, best.confidence, None, [])


def scores_of(orders: Sequence[Sequence[int]]) -> dict[str, float]:
    """All figures of predicted orders, and the ends of the intervals of the main ones.

    Args:
        orders: of each document, indices into its sentences in gold order.
    """
    positions = [positions_of(order) for order in orders]
    figures = figures_of_documents(positions, [np.arange(len(order)) for order in orders])
    scores = averages(figures)
    return scores | {"single_sentence_documents": len(orders) - scores["documents"]} | main_intervals(figures)


def describe_scores(scores: dict[str, float]) -> str:
    """The three figures that everybody reports, in one line, with the interval of the first where there is one."""
    ends = [scores[name] for name in ("kendall_tau_low", "kendall_tau_high") if name in scores]
    interval = f" (95 %: {ends[0]:.4f} to {ends[1]:.4f})" if ends else ""
    return (
        f"Kendall's tau {scores['kendall_tau']:.4f}{interval}, accuracy {scores['accuracy']:.4f}, perfect match ratio "
        f"{scores['perfect_match_ratio']:.4f} over {scores['documents']} documents"
    )


def _load_documents(arguments: EvaluationArguments) -> tuple[Dataset, list[str]]:
    """What is to be scored, and what there is to say about it."""
    documents, notes = load_split(arguments.dataset, arguments.split, arguments.source_options)
    return first_rows(documents, arguments.max_eval_documents), notes


def main() -> None:
    """The command line program."""
    arguments, _ = parse_arguments(
        EvaluationArguments,
        program="python -m sentorder.evaluation",
        description="Score a model on documents whose order is known.",
    )
    folder = None if arguments.output_dir is None else Path(arguments.output_dir)
    if folder is not None:
        if (folder / "arguments.yaml").exists():
            raise UserError(f"--output_dir {folder}: holds a training run, whose predictions.jsonl would be replaced.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()  # the results come last: find out now whether they can
        except OSError as error:
            raise UserError(f"--output_dir {folder}: cannot be written ({error.strerror}); choose another.") from None
    with accelerator_for(mixed_precision=arguments.mixed_precision, cpu_threads=arguments.cpu_threads) as accelerator:
        documents, notes = main_process_first(accelerator, lambda: _load_documents(arguments))
        if arguments.untrained is None:
            model = SentenceOrderer.from_pretrained(str(arguments.model_path))
        else:
            model = SentenceOrderer.from_encoder(arguments.model_path, method=arguments.untrained)
        model.set_decoding(
            decoder=arguments.decoder,
            num_permutations=arguments.num_permutations,
            num_refeeds=arguments.num_refeeds,
            piece_length=arguments.piece_length,
        )
        model.to(accelerator.device)
        to_order, pieces = documents, None
        if arguments.piece_length is not None:
            pieces = Pieces(documents["sentences"], arguments.piece_length)
            to_order = pieces.table(documents["origin"])
        table = main_process_first(
            accelerator, lambda: model.tokenize(to_order, num_workers=arguments.preprocessing_num_workers)
        )
        if arguments.pad_to_max_length:
            check_fixed_shapes(model)
        shape = one_shape([table], model.config.max_length) if arguments.pad_to_max_length else None
        loader = evaluation_loader(accelerator, model, table, arguments.per_device_eval_batch_size, shape=shape)
        prepared = accelerator.prepare_model(model, evaluation_mode=True)
        result = evaluate(accelerator, prepared, loader, table, pieces=pieces)
        passes = model.decoding.num_permutations + model.decoding.num_refeeds
        cost = {"passes": passes, "documents_per_second": len(documents) / result.seconds}
        if accelerator.is_main_process:
            print(describe_scores(result.scores))
            speed = f"{cost['documents_per_second']:.1f} documents/s"
            print(f"note: {passes} pass{'es' if passes > 1 else ''} of the encoder, {speed}", file=sys.stderr)
            cuts = describe_cuts(table, what="documents" if pieces is None else "pieces")
            said = [note for note in [*notes, cuts] if note]
            if pieces is not None:
                said.append(f"in {len(pieces.members)} pieces of at most {arguments.piece_length} sentences.")
            for note in said:
                print(f"note: {note}", file=sys.stderr)
            if folder is not None:
                write_json(folder / "results.json", result.scores | cost | {"notes": said})
                write_json_lines(folder / PREDICTIONS, result.predictions(documents))


if __name__ == "__main__":
    run_command(main)
