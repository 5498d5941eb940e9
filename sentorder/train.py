"""Train a model that orders sentences: ``accelerate launch -m sentorder.train``.

Read :func:`train` from top to bottom: it is the whole run. The optimizer step itself is in ``loop.py``.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from datasets import Dataset

from .arguments import TrainArguments
from .checkpoint import checkpoints_of
from .command_line import parse_arguments, run_command
from .cuda_graphs import recorded_loss
from .data.sources import load_splits
from .data.splitting import first_rows
from .data.tokenization import describe_cuts
from .errors import UserError, first_line
from .finite_guard import NonFiniteError
from .hub import check_can_push, push_model
from .loop import Step, train_steps
from .methods import BACKBONES, TRAINED
from .model_files import restore_weights
from .results import TrainResult, read_result, write_results
from .resume import start_of
from .run import Run, build_run
from .run_folder import METRICS
from .runtime import accelerator_for, main_process_first, on_main_process
from .stopping import StopRequests, stop
from .tracking import RunLog, check_trackers

NAMED_DOCUMENTS = 32
"""At most so many of a step that is not finite."""
LOOK_EVERY = 10
"""Steps between two looks at an accelerator: whether all was finite, and whether another process was asked to stop."""


def train(arguments: TrainArguments | None = None) -> TrainResult:
    """Train, evaluate, keep the best model, and score it once on test.

    May be called several times in one process, and by ``notebook_launcher(train, (arguments,))``.

    Args:
        arguments: None for the default run.

    Raises:
        UserError: for anything that is wrong with arguments, data, model or output folder, before training starts;
            during training only if disk or memory are full (what was saved before is then still there).
        NonFiniteError: if a loss or gradient is infinite or not a number.
        Stopped: a ``SystemExit``, if a signal asked for it and a checkpoint was saved; KeyboardInterrupt for Ctrl-C.
    """
    arguments = arguments or TrainArguments()
    arguments.check()
    check_trackers(arguments.log_with)
    with (
        accelerator_for(
            mixed_precision=arguments.mixed_precision,
            cpu_threads=arguments.cpu_threads,
            deterministic=arguments.deterministic,
            log_with=arguments.log_with,
            project_dir=arguments.output_dir or "runs",  # where trackers write; made precise when the folder is there
        ) as accelerator,
        start_of(accelerator, arguments) as start,
        _memory_explained(),
    ):
        if start.finished is not None:
            result = read_result(start.finished)
            accelerator.print(f"{start.finished}: this run is finished, after {result.steps} steps.")
            return result
        repository = arguments.hub_model_id
        if repository is not None:
            on_main_process(accelerator, lambda: check_can_push(str(repository)))
        documents, notes = main_process_first(accelerator, lambda: _load_documents(arguments))
        run = build_run(accelerator, arguments, documents, start)
        settings = dataclasses.asdict(run.arguments)
        with (
            RunLog(accelerator, run.folder / METRICS, run.total_steps, settings, done=run.cursor.number) as log,
            _explained(run),
        ):
            if start.checkpoint is not None:
                log.kept = f"go on with --resume_from_checkpoint {start.checkpoint}"
            log.say(f"{run.bare.origin}; {_machine(accelerator)}; output: {run.folder}")
            cuts = [(split, describe_cuts(table)) for split, table in run.tables.items()]
            for note in [*notes, *start.notes, *(f"{split}: {cut}" for split, cut in cuts if cut)]:
                log.say(note)
            _fit(run, log)

            # The test split is looked at once, with the weights that were kept.
            keeps_best = run.keeps_best and run.selection.best_step > 0
            best_step = run.selection.best_step if keeps_best else run.cursor.number
            if not keeps_best:
                run.save_model()
            test = None
            if "test" in run.tables:
                if best_step != run.cursor.number:
                    restore_weights(accelerator, run.model, run.folder / "model")
                test = run.evaluate("test", "testing")
                log.log(run.cursor.number, {f"test_{name}": value for name, value in test.scores.items()})

        result = TrainResult(
            run.folder,
            run.folder / "model",
            run.cursor.number,
            best_step,
            run.selection.best_scores if keeps_best else run.selection.latest_scores,
            None if test is None else test.scores,
        )
        on_main_process(accelerator, lambda: write_results(run, result, test))
        if repository is not None:
            address = on_main_process(accelerator, lambda: push_model(result.model_dir, str(repository)))
            accelerator.print(f"uploaded: {address}")
        return result


def _fit(run: Run, log: RunLog) -> None:
    """The training itself. What happens between two steps stands in the body of the ``for``."""
    arguments, accelerator = run.arguments, run.accelerator
    # Waiting for a CPU costs nothing; an accelerator is waited for when something is logged, or often enough.
    look_every = 1 if accelerator.device.type == "cpu" else min(arguments.logging_steps, LOOK_EVERY)
    if arguments.eval_on_start and arguments.eval_strategy != "no" and run.cursor.number == 0:
        log.log(0, {f"eval_{name}": value for name, value in run.evaluate("validation").scores.items()})
    if run.is_given_up:  # and then interrupted before the end
        return
    loss_of = recorded_loss(run.bare.method.training_loss, enabled=run.bare.recordings.enabled)
    with StopRequests(accelerator, look_every=look_every) as requests:
        for step in train_steps(
            accelerator,
            run.model,
            run.optimizer,
            run.scheduler,
            run.train_loader,
            loss_of,
            start=run.cursor,
            max_steps=run.total_steps,
            gradient_accumulation_steps=run.accumulation,
            max_grad_norm=arguments.max_grad_norm,
            max_skipped_steps=arguments.max_skipped_steps,
            check_finite_every=look_every,
        ):
            run.cursor = step.cursor
            last = step.number == run.total_steps
            log.advance()
            run.meter.add(step)
            if step.number % arguments.logging_steps == 0 or last:
                log.log(step.number, run.meter.figures(step, run.plan.steps_per_epoch))

            is_best = False
            if _is_due(step, arguments.eval_strategy, arguments.eval_steps, last):
                step.confirm()
                with run.meter.paused():
                    scores = run.evaluate("validation").scores
                    log.log(step.number, {f"eval_{name}": value for name, value in scores.items()})
                    is_best = run.selection.add(step.number, scores) and run.keeps_best

            # A checkpoint beside each best model, and before it: going on from this or a later one must find it.
            asked = requests.reason(step.number)
            due = _is_due(step, arguments.save_strategy, arguments.save_steps, last)
            if due or (arguments.save_strategy != "no" and (is_best or asked or run.is_given_up)):
                step.confirm()
                run.cursor = dataclasses.replace(step.cursor, skipped_in_a_row=int(step.skipped_in_a_row))
                with run.meter.paused():
                    log.kept = f"go on with --resume_from_checkpoint {run.save_checkpoint()}"
            if is_best:
                with run.meter.paused():
                    run.save_model()
                if arguments.save_strategy == "no":
                    log.kept = f"the model of step {step.number} is in {run.folder / 'model'}"
            if asked:
                stop(asked, saved=arguments.save_strategy != "no")
            if run.is_given_up:
                log.say(f"stopped early: {run.selection.since_best} evaluations were no better than the best")
                return


# --- the parts ------------------------------------------------------------------------------------------------------


def _load_documents(arguments: TrainArguments) -> tuple[dict[str, Dataset], list[str]]:
    """The documents of each split, and what there is to say about those that were left out."""
    documents, notes = load_splits(arguments.dataset, arguments.source_options)
    if "train" not in documents:
        raise UserError(f"--dataset {arguments.dataset}: has no train split; give train=FILE.")
    if arguments.eval_strategy != "no" and "validation" not in documents:
        raise UserError(
            f"--dataset {arguments.dataset}: has no validation split; give validation=FILE or --eval_strategy no."
        )
    limits = {"train": arguments.max_train_documents}
    kept = {
        split: first_rows(texts, limits.get(split, arguments.max_eval_documents)) for split, texts in documents.items()
    }
    return kept, notes


@contextlib.contextmanager
def _explained(run: Run) -> Iterator[None]:
    """Say of a step that is not finite what the loop cannot know: its documents, and what is left."""
    try:
        yield
    except NonFiniteError as error:
        epoch, index = divmod(error.step - 1, run.plan.steps_per_epoch)
        rows = run.plan.steps(epoch)[index]
        names = ", ".join(run.tables["train"][row]["id"] for row in rows[:NAMED_DOCUMENTS])
        more = f" and {len(rows) - NAMED_DOCUMENTS} more" if len(rows) > NAMED_DOCUMENTS else ""
        checkpoints = checkpoints_of(run.folder)
        left = f"The last checkpoint is {checkpoints[0]}." if checkpoints else "No checkpoint was saved yet."
        raise NonFiniteError(f"{error} Its documents: {names}{more}. {left}", error.step) from error


@contextlib.contextmanager
def _memory_explained() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"out of memory ({first_line(error)}) Add --auto_find_batch_size, which cuts a step into smaller "
            "micro-batches without changing its documents, or, if it was in an evaluation, give a smaller "
            "--per_device_eval_batch_size. Checkpoints that were saved are intact."
        ) from error


def _machine(accelerator: Accelerator) -> str:
    processes = accelerator.num_processes
    threads = f" ({torch.get_num_threads()} threads)" if accelerator.device.type == "cpu" else ""
    return f"{processes} process{'es' if processes > 1 else ''} on {accelerator.device.type}{threads}"


def _is_due(step: Step, strategy: str, every: int, last: bool) -> bool:
    """Whether it is time for what happens each epoch or every so many steps; it always happens after the last one."""
    if strategy == "no":
        return False
    return last or (step.ends_epoch if strategy == "epoch" else step.number % every == 0)


def main() -> None:
    """The command line program; what ``accelerate launch`` calls on a TPU."""
    arguments, _ = parse_arguments(
        TrainArguments,
        program="accelerate launch -m sentorder.train",
        description="Train a model that restores the order of shuffled sentences.",
        choices={"method": TRAINED, "backbone": BACKBONES},
    )
    train(arguments)


if __name__ == "__main__":
    run_command(main)
