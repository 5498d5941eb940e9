"""Where a run begins: anew, or at a checkpoint, if that leads to what the uninterrupted run would have led to."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from .arguments import TrainArguments
from .checkpoint import check_checkpoint, checkpoint_folder, checkpoints_of
from .errors import UserError
from .run_folder import RESULT
from .selection import Selection

HARMLESS = frozenset(
    {
        # where and how fast
        "cpu_threads", "dataloader_num_workers", "deterministic", "per_device_eval_batch_size",
        # what is written, and when; which evaluations there are
        "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "logging_steps", "log_with", "save_strategy",
        "save_steps", "save_total_limit", "eval_strategy", "eval_steps", "eval_on_start", "load_best_model_at_end",
        # when to give up
        "early_stopping_patience", "max_skipped_steps",
        # compared by what they come to, in facts_of
        "auto_find_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs",
        "max_steps", "mixed_precision", "dataset", "dataset_config_name", "dataset_revision", "max_train_documents",
        "max_eval_documents",
    }
)  # fmt: skip
"""Arguments that a resumed run may change: the others would change what is computed."""
_LENGTH = {"num_train_epochs", "max_steps"}
"""Not to be passed over where a run is finished: somebody wants a longer one."""
_FROM_THE_MODEL = ("method", "pooling")
"""None means what the model has, and the checkpoint is a model."""


@dataclass(frozen=True)
class Start:
    """What a run begins with."""

    checkpoint: Path | None = None
    """To go on from; None to begin anew."""
    progress: dict[str, Any] = field(default_factory=dict)
    """What the checkpoint says of itself."""
    notes: list[str] = field(default_factory=list)
    """Checkpoints that were passed over, and why."""
    finished: Path | None = None
    """The folder of a run that needs nothing more."""


def find_start(arguments: TrainArguments) -> Start:
    """Find the checkpoint that ``--resume_from_checkpoint`` means; looks at files only, before anything is loaded.

    Raises:
        UserError: if there is none, it is damaged, or the run would not be the same.
    """
    asked = arguments.resume_from_checkpoint
    if asked is None:
        return Start()
    flag = f"--resume_from_checkpoint {asked}"
    place = Path(str(arguments.output_dir) if asked == "auto" else asked)
    if asked != "auto" and not place.is_dir():
        raise UserError(f"{flag}: there is no such folder.")
    is_run = asked == "auto" or bool(checkpoints_of(place)) or (place / "arguments.yaml").exists()
    run = place if is_run else place.resolve().parent
    if arguments.output_dir is not None and Path(arguments.output_dir).resolve() != run.resolve():
        raise UserError(f"{flag}: goes on in {run}; leave out --output_dir {arguments.output_dir}.")

    notes = []
    for candidate in checkpoints_of(place) if is_run else [place]:
        try:
            progress = check_checkpoint(candidate)
        except UserError as error:
            if not is_run:
                raise
            notes.append(f"passed over: {error}")
            continue
        finished = run if is_run and (run / RESULT).exists() else None
        _check_same_arguments(progress["arguments"], arguments, candidate, HARMLESS - (_LENGTH if finished else set()))
        return Start(candidate, progress, notes, finished)
    if notes:
        raise UserError("\n".join([f"{flag}: no checkpoint there can be used.", *notes]))
    if (run / RESULT).exists():
        return Start(finished=run)
    if asked != "auto":
        raise UserError(f"{flag}: holds no checkpoint.")
    if (run / "model").exists():  # the best so far of a run with --save_strategy no: not to be lost
        raise UserError(
            f"{flag}: {run} holds a model, but no checkpoint to go on from; choose another --output_dir, or add "
            "--overwrite_output_dir and leave --resume_from_checkpoint out."
        )
    return Start()


def best_checkpoint(start: Start, selection: Selection) -> Path | None:
    """The checkpoint of the best model so far; the selection begins anew, with a note, if somebody has removed it."""
    if start.checkpoint is None or not selection.best_step:
        return None
    best = checkpoint_folder(start.checkpoint.parent, selection.best_step)
    if best == start.checkpoint:
        return best
    try:
        check_checkpoint(best)
        return best
    except UserError as error:
        start.notes.append(f"the best model so far is lost, the best of the remaining steps will be kept: {error}")
        selection.best_step, selection.best_scores = 0, None
        return None


def _check_same_arguments(
    saved: Mapping[str, Any], arguments: TrainArguments, checkpoint: Path, harmless: Set[str]
) -> None:
    now = dataclasses.asdict(arguments)
    compared = [
        name
        for name in now
        if name in saved and name not in harmless and not (name in _FROM_THE_MODEL and now[name] is None)
    ]
    _refuse({f"--{name}": (saved[name], now[name]) for name in compared}, checkpoint)


def facts_of(
    arguments: TrainArguments, tables: Mapping[str, Dataset], *, processes: int, step_size: int, total_steps: int
) -> dict[str, Any]:
    """What decides about a run's numbers and is not an argument by itself; plain values.

    Args:
        arguments: of the run, with what was left open filled in.
        tables: split -> tokenised documents.
        processes: how many share the work.
        step_size: documents per optimizer step.
        total_steps: of the run.
    """
    facts: dict[str, Any] = {
        "documents per step": step_size,
        "steps of the run": total_steps,
        "mixed precision": arguments.mixed_precision,
    }
    if arguments.dropout != 0:  # which draws different random numbers on each process
        facts["processes"] = processes
    for split, table in tables.items():
        lengths = np.asarray(table["length"][:], dtype=np.int64).tobytes()
        ids = "\n".join(table["id"][:]).encode()
        facts[f"documents of {split}"] = f"{len(table)} ({hashlib.sha256(lengths + ids).hexdigest()[:12]})"
    return facts


def check_same_facts(start: Start, facts: Mapping[str, Any]) -> None:
    """Refuse to go on with another run.

    Raises:
        UserError: with every difference.
    """
    assert start.checkpoint is not None
    saved = start.progress["facts"]
    _refuse({name: (saved.get(name), facts.get(name)) for name in saved.keys() | facts.keys()}, start.checkpoint)


def _refuse(pairs: Mapping[str, tuple[Any, Any]], checkpoint: Path) -> None:
    different = [f"{name}: was {then}, is {now}" for name, (then, now) in sorted(pairs.items()) if then != now]
    if different:
        raise UserError(
            f"{checkpoint}: going on from it would not be the same training. {'; '.join(different)}. Make these as "
            "they were, or begin a new run (with --model_name_or_path and this folder, from its weights)."
        )
