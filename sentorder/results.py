"""What a finished run leaves and shows: test results, predictions, model card, and a few passages to look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from datasets import Dataset

from .arguments import TrainArguments
from .checkpoint import write_json, write_json_lines
from .evaluation import Evaluation, describe_scores
from .metrics import accuracy, kendall_tau, positions_of
from .model_card import model_card
from .modeling import SentenceOrderer

EXAMPLES_SHOWN = 3


def write_results(
    folder: Path,
    arguments: TrainArguments,
    model: SentenceOrderer,
    tables: Mapping[str, Dataset],
    steps: int,
    best_step: int,
    validation: dict[str, float] | None,
    test: Evaluation | None,
) -> None:
    """Write ``test_results.json``, ``predictions.jsonl`` and the model card, and print what a person wants to see.

    Args:
        folder: of the run; the model is in it already.
        arguments: of the run.
        model: whose weights were kept.
        tables: split -> its tokenised documents.
        steps: optimizer steps of the run.
        best_step: the step whose weights were kept.
        validation: their scores on validation; None without evaluation.
        test: their result on test; None if there is no test split.
    """
    defaults = TrainArguments()
    changed = {name: value for name, value in dataclasses.asdict(arguments).items() if value != getattr(defaults, name)}
    card = model_card(
        encoder=str(model.config.encoder_name),
        method=model.config.method,
        method_description=model.method.description,
        dataset=arguments.dataset,
        documents={split: len(table) for split, table in tables.items()},
        steps=steps,
        best_step=best_step,
        validation=validation,
        test=None if test is None else test.scores,
        arguments=changed,
    )
    (folder / "model" / "README.md").write_text(card, encoding="utf-8")
    if validation is not None:
        print(f"\nvalidation (step {best_step}, the best of {steps}): {describe_scores(validation)}")
    if test is not None:
        write_json(folder / "test_results.json", test.scores)
        write_json_lines(folder / "predictions.jsonl", test.predictions(tables["test"]["id"][:]))
        print(f"test: {describe_scores(test.scores)}\n")
        print(_describe_examples(tables["test"], test, arguments.seed))
    print(f"\nmodel: {folder / 'model'}\nuse it: python -m sentorder.predict --model_path {folder / 'model'} FILE")


def _describe_examples(table: Dataset, test: Evaluation, seed: int) -> str:
    """A few test passages in random order, each sentence with the position that the model gives it and the true one."""
    generator = torch.Generator().manual_seed(seed)
    rows: Sequence[int] = torch.randperm(len(table), generator=generator)[:EXAMPLES_SHOWN].tolist()
    blocks = []
    for row in rows:
        sentences = table[row]["sentences"]
        predicted = positions_of(test.records[row].order)
        true = range(len(sentences))
        head = f"{table[row]['id']}: tau {kendall_tau(predicted, true):.2f}, accuracy {accuracy(predicted, true):.2f}"
        shuffled = torch.randperm(len(sentences), generator=generator).tolist()
        lines = [f"{predicted[i] + 1:>7}{i + 1:>6}  {sentences[i]}" for i in shuffled]
        blocks.append("\n".join([head, "  model  true  as shuffled", *lines]))
    return "\n\n".join(blocks)
