"""Score a model on documents whose order is known: ``python -m sentorder.evaluation --model_path runs/1/model``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accelerate import Accelerator
from datasets import Dataset
from torch import nn

from .arguments import EvaluationArguments
from .checkpoint import write_json, write_json_lines
from .command_line import parse_arguments, run_command
from .contracts import Batch, OrderingOutput
from .data.collation import ordering_loader
from .data.formats import is_single_file, load_split, to_dataset
from .data.sampling import GlobalPlan
from .data.tokenization import describe_cuts, tokenize
from .errors import UserError
from .loop import evaluation_records
from .methods import Method
from .metrics import ordering_metrics, positions_of
from .modeling import SHUFFLE_SEED, SentenceOrderer
from .runtime import accelerator_for
from .tracking import progress


class OrderingRecord(NamedTuple):
    """What is kept of one document when a model is evaluated."""

    document: int
    """The row of the document."""
    order: list[int]
    """Indices into its sentences as the source gives them, in predicted order."""
    confidence: float
    loss: float
    scores: list[float]
    """Of its sentences, where the method scores sentences; else empty."""


@dataclass(frozen=True)
class Evaluation:
    """A model's result on some documents."""

    scores: dict[str, float]
    """``kendall_tau``, ``accuracy``, ``perfect_match_ratio``, ``loss``, ``documents``, ..."""
    records: list[OrderingRecord]
    """One per document, in the order of the documents."""

    def predictions(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of ``predictions.jsonl``."""
        return [
            {"id": ids[record.document], "order": record.order, "confidence": round(record.confidence, 4)}
            for record in self.records
        ]


def records_of(method: Method) -> Callable[[OrderingOutput, Batch], list[OrderingRecord]]:
    """What to record of a batch under a method: the decoded order, the loss, the scores."""

    def records(output: OrderingOutput, batch: Batch) -> list[OrderingRecord]:
        decoded = method.decoder(output, batch["slot_mask"])
        losses = method.loss(output, batch).tolist()
        scores = [[] for _ in losses] if output.scores is None else output.scores.tolist()
        sources, documents = batch["positions"].tolist(), batch["document_ids"].tolist()
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


def evaluation_loader(
    accelerator: Accelerator, model: SentenceOrderer, table: Dataset, batch_size: int, num_workers: int = 0
) -> Any:
    """A prepared loader over a tokenised table, every document once, of like length together."""
    processes = accelerator.num_processes
    plan = GlobalPlan(table["length"][:], batch_size * processes, micro_batches=processes)
    collator = model.collator(seed=SHUFFLE_SEED)
    return accelerator.prepare(ordering_loader(table, plan, collator, num_workers=num_workers))


def evaluate(
    accelerator: Accelerator, model: nn.Module, loader: Any, documents: int, *, description: str = "evaluating"
) -> Evaluation:
    """Order every document of a loader once and score the orders; every process gets the same result.

    Args:
        accelerator: whose processes share the work.
        model: a :class:`SentenceOrderer`, prepared or not.
        loader: from :func:`evaluation_loader`.
        documents: how many there are, to be sure that none was lost or counted twice.
        description: for the progress bar.

    Raises:
        RuntimeError: if a document was lost or counted twice.
    """
    method = accelerator.unwrap_model(model).method
    records = evaluation_records(accelerator, model, progress(loader, description, accelerator), records_of(method))
    records.sort()
    if [record.document for record in records] != list(range(documents)):
        raise RuntimeError(f"{documents} documents were to be evaluated, {len(records)} came back.")
    scores = ordering_metrics(
        (positions_of(record.order) for record in records), (np.arange(len(record.order)) for record in records)
    )
    scores["loss"] = float(np.mean([record.loss for record in records]))
    of_sentences = [score for record in records for score in record.scores]
    if of_sentences:  # a model that has collapsed gives every sentence the mean position
        scores |= {"score_mean": float(np.mean(of_sentences)), "score_spread": float(np.std(of_sentences))}
    return Evaluation(scores, records)


def describe_scores(scores: dict[str, float]) -> str:
    """The three figures that everybody reports, in one line."""
    return (
        f"Kendall's tau {scores['kendall_tau']:.4f}, accuracy {scores['accuracy']:.4f}, perfect match ratio "
        f"{scores['perfect_match_ratio']:.4f} over {scores['documents']} documents"
    )


def main() -> None:
    """The command line program."""
    arguments, _ = parse_arguments(
        EvaluationArguments,
        program="python -m sentorder.evaluation",
        description="Score a model on documents whose order is known.",
    )
    documents = load_split(arguments.dataset, arguments.split)[: arguments.max_eval_documents]
    folder = None if arguments.output_dir is None else Path(arguments.output_dir)
    if folder is not None:
        if (folder / "arguments.yaml").exists():
            raise UserError(f"--output_dir {folder}: holds a training run, whose predictions.jsonl would be replaced.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output_dir {folder}: cannot be made ({error.strerror}).") from None
    with accelerator_for(mixed_precision=arguments.mixed_precision, cpu_threads=arguments.cpu_threads) as accelerator:
        model = SentenceOrderer.from_pretrained(str(arguments.model_path)).to(accelerator.device)
        table = tokenize(to_dataset(documents), model.tokenizer, model.config.max_length)
        loader = evaluation_loader(accelerator, model, table, arguments.per_device_eval_batch_size)
        result = evaluate(accelerator, accelerator.prepare_model(model, evaluation_mode=True), loader, len(table))
        if accelerator.is_main_process:
            print(describe_scores(result.scores))
            notes = [describe_cuts(table)]
            if arguments.split is None and is_single_file(arguments.dataset):
                notes.append(
                    "this is the whole file; if the model was trained on it, --split test is what it never saw."
                )
            for note in filter(None, notes):
                print(f"note: {note}", file=sys.stderr)
            if folder is not None:
                write_json(folder / "results.json", result.scores)
                write_json_lines(folder / "predictions.jsonl", result.predictions(table["id"][:]))


if __name__ == "__main__":
    run_command(main)
