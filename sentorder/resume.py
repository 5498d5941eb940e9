"""Where a run begins: anew, or at a checkpoint, if that leads to what the uninterrupted run would have led to."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from accelerate import Accelerator
from datasets import Dataset
from filelock import FileLock, Timeout

from .arguments import TrainArguments
from .checkpoint import check_checkpoint, checkpoint_folder, checkpoints_of, is_checkpoint_folder
from .errors import UserError, first_line
from .files import tidy
from .loop import Cursor
from .run_folder import ARGUMENTS, RESULT, check_run_folder
from .runtime import on_main_process
from .selection import Selection

FREE = frozenset(
    {
        # where and how fast
        "cpu_threads", "dataloader_num_workers", "preprocessing_num_workers", "deterministic", "cuda_graphs",
        "per_device_eval_batch_size", "gradient_checkpointing",
        # what is written, and when; which evaluations there are
        "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "logging_steps", "log_with", "save_strategy",
        "save_steps", "save_total_limit", "push_to_hub", "hub_model_id", "eval_strategy", "eval_steps", "eval_on_start",
        "load_best_model_at_end",
        # when to give up
        "early_stopping_patience", "max_skipped_steps",
    }
)  # fmt: skip
"""Arguments that a resumed run may change."""
COMPARED_AS_FACTS = frozenset(
    {
        "auto_find_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs",
        "max_steps", "mixed_precision", "dataset", "dataset_config_name", "dataset_revision", "format", "columns",
        "language", "unit", "window", "stride",
        "max_train_documents", "max_eval_documents",
    }
)  # fmt: skip
"""Arguments that may change as long as they come to the same in :func:`facts_of`."""
_FILLED_IN = ("method", "backbone", "pooling", "mixed_precision")
"""None means what the model or the launcher has."""
LOCK_SECONDS = 30.0
"""How long to wait for a process that still saves in the same folder."""


@dataclass(frozen=True)
class Start:
    """What a run begins with."""

    checkpoint: Path | None = None
    """To go on from; None to begin anew."""
    cursor: Cursor = field(default_factory=Cursor)
    selection: Selection | None = None
    meter: dict[str, float] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Checkpoints that were passed over, and why."""
    finished: Path | None = None
    """The folder of a run that needs nothing more."""


@contextlib.contextmanager
def start_of(accelerator: Accelerator, arguments: TrainArguments) -> Iterator[Start]:
    """What to begin with, the same on all processes; until the block ends no other run of this machine may have the
    folder.

    Raises:
        UserError: if the folder is taken, or a checkpoint cannot be used.
    """
    named = arguments.output_dir or arguments.resume_from_checkpoint
    lock = None
    if named is not None and accelerator.is_main_process:
        place = Path(named).resolve()
        run = place.parent if is_checkpoint_folder(place) else place
        name = hashlib.sha256(str(run).encode()).hexdigest()[:16]
        lock = FileLock(Path(tempfile.gettempdir()) / f"sentorder-{name}.lock")

    def find() -> Start:
        if lock is not None:
            try:
                lock.acquire(timeout=LOCK_SECONDS)
            except Timeout:
                raise UserError(f"{named}: another process is training there; wait for it, or end it.") from None
        return find_start(arguments)

    try:
        yield on_main_process(accelerator, find)
    finally:
        if lock is not None:
            lock.release()


def find_start(arguments: TrainArguments) -> Start:
    """Find the checkpoint that ``--resume_from_checkpoint`` means; looks at files only, before anything is loaded.

    Raises:
        UserError: if there is none, it is damaged, the run would not be the same, or a new one would replace another.
    """
    asked = arguments.resume_from_checkpoint
    if asked is None:
        check_run_folder(arguments)
        return Start()
    flag = f"--resume_from_checkpoint {asked}"
    place = _place(asked, arguments, flag)
    is_run = asked == "auto" or not is_checkpoint_folder(place)
    run = place if is_run else place.parent
    if (run / ARGUMENTS).exists():
        for name in ("checkpoint-*", "model"):
            tidy(run, name)
    if (run / RESULT).exists():
        if not is_run:
            raise UserError(
                f"{flag}: its run is finished. To train on from these weights, begin a new run with "
                f"--model_name_or_path {place}."
            )
        _check_finished(run, arguments)
        return Start(finished=run)

    notes = []
    for candidate in checkpoints_of(run) if is_run else [place]:
        try:
            progress = check_checkpoint(candidate)
        except UserError as error:
            if not is_run:
                raise
            notes.append(f"passed over: {error}")
            continue
        return _start_at(candidate, progress, arguments, notes)
    if notes:
        raise UserError("\n".join([f"{flag}: no checkpoint there can be used.", *notes]))
    if asked != "auto":
        raise UserError(f"{flag}: holds no checkpoint.")
    if (run / "model").exists():  # the best so far of a run with --save_strategy no: not to be lost
        raise UserError(
            f"{flag}: {run} holds a model, but no checkpoint to go on from; choose another --output_dir, or add "
            "--overwrite_output_dir and leave --resume_from_checkpoint out."
        )
    check_run_folder(arguments)
    return Start()


def _place(asked: str, arguments: TrainArguments, flag: str) -> Path:
    """The folder that is meant: of a run, or a checkpoint inside one."""
    if asked == "auto":
        return Path(str(arguments.output_dir))
    place = Path(asked)
    if not place.is_dir():
        raise UserError(f"{flag}: there is no such folder.")
    if not is_checkpoint_folder(place):
        place = place.resolve() if is_checkpoint_folder(place.resolve()) else place  # a link to one, or "."
    is_run = not is_checkpoint_folder(place)
    run = place if is_run else place.parent
    if not (run / ARGUMENTS).exists():
        what = "is neither a checkpoint nor the folder of a run" if is_run else "does not lie in the folder of its run"
        raise UserError(
            f"{flag}: {what} ({ARGUMENTS}, checkpoint-STEP/). To train on from a model begin a new run with "
            "--model_name_or_path."
        )
    if arguments.output_dir is not None and Path(arguments.output_dir).resolve() != run.resolve():
        raise UserError(f"{flag}: goes on in {run}; leave out --output_dir {arguments.output_dir}.")
    return place


def _start_at(checkpoint: Path, progress: Mapping[str, Any], arguments: TrainArguments, notes: list[str]) -> Start:
    try:
        saved = dict(progress["arguments"])
        start = Start(
            checkpoint,
            Cursor(**progress["cursor"]),
            Selection(**progress["selection"]),
            {name: float(progress["meter"][name]) for name in ("loss", "count", "skipped")},
            dict(progress["facts"]),
            notes,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{checkpoint}: says of itself what this sentorder does not understand ({first_line(error)}); use the one "
            "that wrote it."
        ) from None
    _check_same_arguments(saved, arguments, f"{checkpoint}: going on from it", FREE | COMPARED_AS_FACTS)
    return start


def best_checkpoint(checkpoint: Path, selection: Selection) -> Path | None:
    """That of the best model so far, None if there is no such model yet.

    Raises:
        UserError: if it cannot be used.
    """
    if not selection.best_step:
        return None
    best = checkpoint_folder(checkpoint.parent, selection.best_step)
    if best != checkpoint:
        check_checkpoint(best)
    return best


def _check_finished(run: Path, arguments: TrainArguments) -> None:
    try:
        saved = dict(yaml.safe_load((run / ARGUMENTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{run / ARGUMENTS}: cannot be read ({first_line(error)}).") from None
    _check_same_arguments(saved, arguments, f"{run}: this run is finished, and one with these arguments", FREE)


def _check_same_arguments(saved: Mapping[str, Any], arguments: TrainArguments, what: str, free: Set[str]) -> None:
    now = dataclasses.asdict(arguments)
    compared = [
        name for name in now if name in saved and name not in free and not (name in _FILLED_IN and now[name] is None)
    ]
    _refuse({f"--{name}": (saved[name], now[name]) for name in compared}, what)


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
        facts[f"documents of {split}"] = f"{len(table)} ({_fingerprint(table)})"
    return facts


def _fingerprint(table: Dataset) -> str:
    """Of the tokens of all sentences, in their order; the same however the table is cut into chunks."""
    counts, lengths, tokens = (hashlib.sha256() for _ in range(3))
    for chunk in table.data.column("sentence_ids").chunks:
        sentences = chunk.flatten()
        for found, part in (
            (counts, chunk.value_lengths()),
            (lengths, sentences.value_lengths()),
            (tokens, sentences.flatten()),
        ):
            found.update(np.ascontiguousarray(part.to_numpy(zero_copy_only=False)).tobytes())
    return hashlib.sha256(b"".join(found.digest() for found in (counts, lengths, tokens))).hexdigest()[:12]


def check_same_facts(start: Start, facts: Mapping[str, Any]) -> None:
    """Refuse to go on with another run.

    Raises:
        UserError: with every difference.
    """
    names = start.facts.keys() | facts.keys()
    _refuse({name: (start.facts.get(name), facts.get(name)) for name in names}, f"{start.checkpoint}: going on from it")


def _refuse(pairs: Mapping[str, tuple[Any, Any]], what: str) -> None:
    different = [f"{name}: was {then}, is {now}" for name, (then, now) in sorted(pairs.items()) if then != now]
    if different:
        raise UserError(
            f"{what} would not be the same training. {'; '.join(different)}. Make these as they were, or begin a new "
            "run in another folder."
        )
