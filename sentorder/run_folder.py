"""Where a run writes: a fresh folder, or one that may be written."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path

from accelerate import Accelerator

from .arguments import TrainArguments
from .checkpoint import MANIFEST, TRAINING, checkpoints_of
from .command_line import write_arguments
from .errors import UserError
from .files import disk_reason, tidy, whole_folder
from .runtime import on_main_process
from .tracking import TRACKER_FOLDER

RESULT = "result.json"
"""What a run writes last of all: with it the run is finished."""
METRICS = "metrics.jsonl"
ARGUMENTS = "arguments.yaml"
"""What a run writes first of all: with it a folder is that of a run."""
WRITTEN = (
    ARGUMENTS,
    METRICS,
    "test_results.json",
    "predictions.jsonl",
    RESULT,
    "model",
    TRACKER_FOLDER,
)
"""What a run writes into its folder, beside checkpoints."""


def check_run_folder(arguments: TrainArguments) -> None:
    """Refuse an ``output_dir`` that cannot be written, or in which a run would replace something, unless it may.

    With ``--resume_from_checkpoint auto``, where there is no checkpoint, a run may replace what one has left that did
    not get so far.

    Raises:
        UserError: saying what stands there.
    """
    folder = Path("runs" if arguments.output_dir is None else arguments.output_dir)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = "may not be written" if there.is_dir() else "is a file"
        raise UserError(f"--output_dir {folder}: cannot be written ({there} {reason}); choose another.")
    if arguments.output_dir is None:
        return
    taken = [*(name for name in WRITTEN if (folder / name).exists()), *(path.name for path in checkpoints_of(folder))]
    is_run = (folder / ARGUMENTS).is_file()
    goes_on = arguments.resume_from_checkpoint is not None and is_run
    if taken and not arguments.overwrite_output_dir and not goes_on:
        raise UserError(
            f"--output_dir {folder}: holds a run already ({', '.join(taken)}); choose another folder or add "
            "--overwrite_output_dir."
        )
    if taken and not is_run:
        raise UserError(
            f"--output_dir {folder}: holds {', '.join(taken)}, but no {ARGUMENTS}: it is not the folder of a run, and "
            "nothing in it will be replaced; choose another."
        )
    start = arguments.model_name_or_path
    if taken and start is not None and Path(start).resolve().parent == folder.resolve():
        raise UserError(f"--output_dir {folder}: would replace the model that training starts from; choose another.")


def make_run_folder(
    accelerator: Accelerator, arguments: TrainArguments, *, checkpoint: Path | None = None, best: Path | None = None
) -> Path:
    """Make the folder on the main process, with ``arguments.yaml`` in it, and tell the other processes its name.

    An old run in it is removed: :func:`check_run_folder` comes first. With a ``checkpoint`` to go on from, its own run
    is set back to what it was then.

    Args:
        accelerator: whose main process makes it.
        arguments: without an ``output_dir`` it is a fresh numbered folder under ``runs/``.
        checkpoint: one that lies in the folder.
        best: that of the best model then.

    Raises:
        UserError: on every process, if the folder cannot be written.
    """

    def make() -> Path:
        try:
            if checkpoint is not None:
                folder = _set_back(checkpoint, best)
            else:
                folder = _numbered_folder() if arguments.output_dir is None else _given_folder(arguments)
            # Given back as --config, it is a run of its own.
            write_arguments(dataclasses.replace(arguments, resume_from_checkpoint=None), folder / ARGUMENTS)
            return folder
        except OSError as error:
            where = checkpoint or arguments.output_dir or "runs"
            raise UserError(
                f"--output_dir {where}: cannot be written ({disk_reason(error)}); choose another."
            ) from None

    return on_main_process(accelerator, make)


def _numbered_folder() -> Path:
    parent = Path("runs")
    parent.mkdir(exist_ok=True)
    number = max((int(path.name) for path in parent.iterdir() if re.fullmatch(r"\d+", path.name)), default=0) + 1
    while True:
        try:
            (parent / str(number)).mkdir()
            return parent / str(number)
        except FileExistsError:  # another run was faster
            number += 1


def _given_folder(arguments: TrainArguments) -> Path:
    folder = Path(str(arguments.output_dir))
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("checkpoint-*", "model"):
        tidy(folder, name)
    for path in [*(folder / name for name in WRITTEN), *checkpoints_of(folder)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return folder


def _set_back(checkpoint: Path, best: Path | None) -> Path:
    """The log as it was, without what was done after the checkpoint and is done again; and the best model of then."""
    folder = checkpoint.parent
    new = folder / f"{METRICS}.new"
    shutil.copyfile(checkpoint / TRAINING / METRICS, new)
    os.replace(new, folder / METRICS)
    if best is not None:
        with whole_folder(folder / "model") as model:
            shutil.copytree(best, model, ignore=shutil.ignore_patterns(TRAINING, MANIFEST), dirs_exist_ok=True)
    return folder
