"""What a finished run leaves and shows: test results, predictions, model card, and a few passages to look at."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset

from .arguments import TrainArguments
from .errors import UserError, first_line
from .evaluation import Evaluation, describe_scores
from .files import write_json, write_json_lines, write_text
from .metrics import accuracy, kendall_tau, positions_of
from .model_card import model_card
from .predictions import PREDICTIONS
from .report import draw_run
from .run import Run
from .run_folder import RESULT

EXAMPLES_SHOWN = 3


@dataclass(frozen=True)
class TrainResult:
    """What a run came to."""

    output_dir: Path
    model_dir: Path
    steps: int
    best_step: int
    """The step whose weights were kept."""
    validation: dict[str, float] | None
    """Their scores on validation; None without evaluation."""
    test: dict[str, float] | None
    """Their scores on test; None if there is no test split."""


def read_result(folder: Path) -> TrainResult:
    """What a finished run in this folder came to.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        return TrainResult(folder, folder / "model", **json.loads((folder / RESULT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{folder / RESULT}: cannot be read ({first_line(error)}); remove it to finish the run anew."
        ) from None


def write_results(run: Run, result: TrainResult, test: Evaluation | None) -> None:
    """Write the results, predictions and the model card, and print what a person wants to see.

    Args:
        run: whose model was kept; it is in its folder already.
        result: of the run.
        test: its result on test; None if there is no test split.
    """
    folder, arguments, model, tables = run.folder, run.arguments, run.bare, run.tables
    if test is not None:
        write_json(folder / "test_results.json", test.scores)
        write_json_lines(folder / PREDICTIONS, test.predictions(tables["test"]))
    defaults = TrainArguments()
    changed = {name: value for name, value in dataclasses.asdict(arguments).items() if value != getattr(defaults, name)}
    card = model_card(
        encoder=str(model.config.encoder_name),
        method=model.config.method,
        method_description=model.method.description,
        dataset=arguments.dataset,
        documents={split: len(table) for split, table in tables.items()},
        steps=result.steps,
        best_step=result.best_step,
        validation=result.validation,
        test=result.test,
        arguments=changed,
        picture=_picture(folder) if test is not None else None,
    )
    write_text(folder / "model" / "README.md", card)
    if result.validation is not None:
        which = f"the best of {result.steps}" if run.keeps_best else "the last"
        print(f"\nvalidation (step {result.best_step}, {which}): {describe_scores(result.validation)}")
    if test is not None:
        print(f"test: {describe_scores(test.scores)}\n")
        print(_describe_examples(tables["test"], test, arguments.seed))
    # Last of all: this file says that the run is finished.
    values = dataclasses.asdict(result)
    write_json(folder / RESULT, {name: values[name] for name in ("steps", "best_step", "validation", "test")})
    print(f"\nmodel: {folder / 'model'}\nuse it: python -m sentorder.predict --model_path {folder / 'model'} FILE")


def _picture(folder: Path) -> str | None:
    """Draw the run into the folder of its model, and give the name of the file; None if that cannot be, as without
    matplotlib."""
    try:
        draw_run(folder).savefig(folder / "model" / "overview.png")
    except UserError:
        return None
    return "overview.png"


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
