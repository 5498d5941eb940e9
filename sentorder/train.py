"""Train a model that orders sentences: ``accelerate launch -m sentorder.train``.

Read :func:`train` from top to bottom: it is the whole run. The optimizer step itself is in ``loop.py``.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from .arguments import TrainArguments
from .checkpoint import restore_weights, save_model
from .command_line import parse_arguments, run_command
from .data.collation import ordering_loader
from .data.formats import Document, to_dataset
from .data.sampling import GlobalPlan
from .data.sources import load_splits
from .data.tokenization import describe_cuts, tokenize
from .errors import UserError
from .evaluation import evaluate, evaluation_loader, one_shape
from .loop import Step, train_steps
from .methods import METHODS
from .modeling import SentenceOrderer, load_for_training
from .optimization import adamw, parameter_groups, schedule
from .results import write_results
from .run_folder import check_run_folder, make_run_folder
from .runtime import accelerator_for
from .tracking import RunLog, check_trackers


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


def train(arguments: TrainArguments | None = None) -> TrainResult:
    """Train, evaluate, keep the best model, and score it once on test.

    May be called several times in one process, and by ``notebook_launcher(train, (arguments,))``.

    Args:
        arguments: None for the default run.

    Raises:
        UserError: for anything that is wrong with arguments, data, model or output folder, before training starts;
            during training only if the model can no longer be saved (the one before is then still there).
        NonFiniteError: if a loss or gradient is infinite or not a number.
    """
    arguments = arguments or TrainArguments()
    arguments.check()
    check_trackers(arguments.log_with)
    check_run_folder(arguments)
    documents, notes = _load_documents(arguments)

    with accelerator_for(
        mixed_precision=arguments.mixed_precision,
        cpu_threads=arguments.cpu_threads,
        log_with=arguments.log_with,
        project_dir=arguments.output_dir or "runs",  # where trackers write; made precise below
    ) as accelerator:
        # What is trained, and where it is written.
        set_seed(arguments.seed)
        model = load_for_training(
            arguments.model_name_or_path,
            method=arguments.method,
            pooling=arguments.pooling,
            dropout=arguments.dropout,
            max_length=arguments.max_length,
            tokenizer_name=arguments.tokenizer_name,
        )
        tables = {
            split: tokenize(to_dataset(texts), model.tokenizer, model.config.max_length)
            for split, texts in documents.items()
        }
        # What was left open is now known; written down before the first step, it can be given back as --config.
        arguments = dataclasses.replace(
            arguments,
            method=model.config.method,
            pooling=model.config.pooling,
            mixed_precision=accelerator.mixed_precision,
        )
        micro_batches = arguments.gradient_accumulation_steps * accelerator.num_processes
        if micro_batches > len(tables["train"]):
            raise UserError(
                f"--gradient_accumulation_steps {arguments.gradient_accumulation_steps}: a step would have "
                f"{micro_batches} micro-batches, but there are only {len(tables['train'])} documents to train on."
            )
        folder = make_run_folder(accelerator, arguments)
        accelerator.project_configuration.project_dir = accelerator.project_configuration.logging_dir = str(folder)

        # Which documents make up which step, and the loaders that deal them out.
        step_size = arguments.per_device_train_batch_size * micro_batches
        shape = one_shape(tables.values(), model.config.max_length) if arguments.pad_to_max_length else None
        plan = GlobalPlan(
            tables["train"]["length"][:],
            step_size,
            micro_batches=micro_batches,
            seed=arguments.seed,
            same_size=shape is not None,
        )
        total_steps = arguments.max_steps
        if total_steps < 0:
            total_steps = math.ceil(arguments.num_train_epochs * plan.steps_per_epoch)
        train_loader = accelerator.prepare(
            ordering_loader(
                tables["train"],
                plan,
                model.collator(seed=arguments.seed, shape=shape),
                num_workers=arguments.dataloader_num_workers,
            )
        )
        eval_loaders = {
            split: evaluation_loader(
                accelerator,
                model,
                tables[split],
                arguments.per_device_eval_batch_size,
                num_workers=arguments.dataloader_num_workers,
                shape=shape,
            )
            for split in ("validation", "test")
            if split in tables
        }

        # Optimizer and schedule; the schedule is not prepared, so it does not depend on the number of processes.
        optimizer = adamw(
            parameter_groups(
                model,
                learning_rate=arguments.learning_rate,
                head_learning_rate=arguments.head_learning_rate,
                weight_decay=arguments.weight_decay,
            )
        )
        scheduler = schedule(
            arguments.lr_scheduler_type, optimizer, warmup_steps=arguments.warmup_steps, total_steps=total_steps
        )
        model, optimizer = accelerator.prepare(model, optimizer)
        bare: SentenceOrderer = accelerator.unwrap_model(model)
        set_seed(arguments.seed, device_specific=True)  # from here on only dropout draws: differently on each process

        best_step, best_scores = 0, None
        with RunLog(accelerator, folder / "metrics.jsonl", total_steps, dataclasses.asdict(arguments)) as log:
            log.say(f"{bare.origin}; {_machine(accelerator)}; output: {folder}")
            cuts = {split: describe_cuts(table) for split, table in tables.items()}
            for note in [*notes, *(f"{split}: {cut}" for split, cut in cuts.items() if cut)]:
                log.say(note)
            meter = _Meter()
            for step in train_steps(
                accelerator,
                model,
                optimizer,
                scheduler,
                train_loader,
                bare.method.loss,
                max_steps=total_steps,
                gradient_accumulation_steps=arguments.gradient_accumulation_steps,
                max_grad_norm=arguments.max_grad_norm,
                # Waiting for a CPU costs nothing; an accelerator need not be waited for until the next log line.
                check_finite_every=1 if accelerator.device.type == "cpu" else arguments.logging_steps,
            ):
                log.advance()
                meter.add(step)
                if step.number % arguments.logging_steps == 0 or step.number == total_steps:
                    log.log(step.number, meter.figures(step, plan.steps_per_epoch))
                if _evaluation_is_due(step, arguments, total_steps):
                    with meter.paused():
                        scores = evaluate(accelerator, model, eval_loaders["validation"], tables["validation"]).scores
                        log.log(step.number, {f"eval_{name}": value for name, value in scores.items()})
                        if best_scores is None or _better(arguments.metric_for_best_model, scores, best_scores):
                            best_step, best_scores = step.number, scores
                            _save(accelerator, bare, folder)
                            log.kept = f"the model of step {best_step} is in {folder / 'model'}"
            if best_scores is None:
                best_step = total_steps
                _save(accelerator, bare, folder)

            # The test split is looked at once, with the weights that were kept.
            test = None
            if "test" in tables:
                if best_step != total_steps:
                    restore_weights(bare, folder / "model")
                test = evaluate(accelerator, model, eval_loaders["test"], tables["test"], description="testing")
                log.log(total_steps, {f"test_{name}": value for name, value in test.scores.items()})

        if accelerator.is_main_process:
            write_results(folder, arguments, bare, tables, total_steps, best_step, best_scores, test)
        accelerator.wait_for_everyone()
        return TrainResult(
            folder, folder / "model", total_steps, best_step, best_scores, None if test is None else test.scores
        )


# --- the parts ------------------------------------------------------------------------------------------------------


def _load_documents(arguments: TrainArguments) -> tuple[dict[str, list[Document]], list[str]]:
    """The documents of each split, and what there is to say about those that were left out."""
    documents, notes = load_splits(
        arguments.dataset, config=arguments.dataset_config_name, revision=arguments.dataset_revision
    )
    if "train" not in documents:
        raise UserError(f"--dataset {arguments.dataset}: has no train split; give train=FILE.")
    if arguments.eval_strategy != "no" and "validation" not in documents:
        raise UserError(
            f"--dataset {arguments.dataset}: has no validation split; give validation=FILE or --eval_strategy no."
        )
    limits = {"train": arguments.max_train_documents}
    kept = {split: texts[: limits.get(split, arguments.max_eval_documents)] for split, texts in documents.items()}
    return kept, notes


def _machine(accelerator: Accelerator) -> str:
    processes = accelerator.num_processes
    threads = f" ({torch.get_num_threads()} threads)" if accelerator.device.type == "cpu" else ""
    return f"{processes} process{'es' if processes > 1 else ''} on {accelerator.device.type}{threads}"


def _evaluation_is_due(step: Step, arguments: TrainArguments, total_steps: int) -> bool:
    if arguments.eval_strategy == "no":
        return False
    due = step.ends_epoch if arguments.eval_strategy == "epoch" else step.number % arguments.eval_steps == 0
    return due or step.number == total_steps


def _better(metric: str, scores: Mapping[str, float], best: Mapping[str, float]) -> bool:
    return scores[metric] < best[metric] if metric == "loss" else scores[metric] > best[metric]


def _save(accelerator: Accelerator, model: SentenceOrderer, folder: Path) -> None:
    if accelerator.is_main_process:
        save_model(model, folder / "model")
    accelerator.wait_for_everyone()


class _Meter:
    """Means between two log lines; nothing is read from the device before they are wanted."""

    def __init__(self) -> None:
        self.paused_for = 0.0
        self._restart()

    def _restart(self) -> None:
        self.loss: torch.Tensor | float = 0.0
        self.count: torch.Tensor | float = 0.0
        self.started = time.perf_counter()

    def add(self, step: Step) -> None:
        self.loss = self.loss + step.loss * step.count
        self.count = self.count + step.count

    def paused(self) -> _Meter:
        """``with meter.paused(): ...`` leaves that time out of documents per second."""
        return self

    def __enter__(self) -> None:
        self.pause_began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.started += time.perf_counter() - self.pause_began

    def figures(self, step: Step, steps_per_epoch: int) -> dict[str, float]:
        """What is logged: the mean loss since the last time, and the figures of this step."""
        count = float(self.count)
        figures = {
            "epoch": round(step.number / steps_per_epoch, 4),
            "loss": float(self.loss) / count,
            "learning_rate": step.learning_rate,
            "gradient_norm": float(step.gradient_norm),
            "documents_per_second": count / (time.perf_counter() - self.started),
        }
        self._restart()
        return figures


def main() -> None:
    """The command line program; what ``accelerate launch`` calls on a TPU."""
    arguments, _ = parse_arguments(
        TrainArguments,
        program="accelerate launch -m sentorder.train",
        description="Train a model that restores the order of shuffled sentences.",
        choices={"method": METHODS},
    )
    train(arguments)


if __name__ == "__main__":
    run_command(main)
