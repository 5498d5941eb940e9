"""Where a run writes: a fresh folder, or one that may be written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from .arguments import TrainArguments
from .command_line import write_arguments
from .errors import UserError
from .tracking import TRACKER_FOLDER

WRITTEN = ("arguments.yaml", "metrics.jsonl", "test_results.json", "predictions.jsonl", "model", TRACKER_FOLDER)
"""What a run writes into its folder."""


def check_run_folder(arguments: TrainArguments) -> None:
    """Refuse an ``output_dir`` in which a run would replace something, unless it may.

    Raises:
        UserError: saying what stands there.
    """
    if arguments.output_dir is None:
        return
    folder = Path(arguments.output_dir)
    taken = [name for name in WRITTEN if (folder / name).exists()]
    if taken and not arguments.overwrite_output_dir:
        raise UserError(
            f"--output_dir {folder}: holds a run already ({', '.join(taken)}); choose another folder or add "
            "--overwrite_output_dir."
        )
    start = arguments.model_name_or_path
    if taken and start is not None and Path(start).resolve() == (folder / "model").resolve():
        raise UserError(f"--output_dir {folder}: would replace the model that training starts from; choose another.")


def make_run_folder(accelerator: Accelerator, arguments: TrainArguments) -> Path:
    """Make the folder on the main process, with ``arguments.yaml`` in it, and tell the other processes its name.

    An old run in it is removed: :func:`check_run_folder` comes first.

    Args:
        accelerator: whose main process makes it.
        arguments: without an ``output_dir`` it is a fresh numbered folder under ``runs/``.

    Raises:
        UserError: on every process, if the folder cannot be written.
    """
    outcome: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            outcome[0] = _numbered_folder() if arguments.output_dir is None else _given_folder(arguments)
            write_arguments(arguments, outcome[0] / "arguments.yaml")
        except OSError as error:
            where = arguments.output_dir or "runs"
            outcome[0] = UserError(f"--output_dir {where}: cannot be written ({error.strerror}); choose another.")
    (folder,) = broadcast_object_list(outcome)
    if isinstance(folder, UserError):
        raise folder
    return Path(folder)


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
    for name in WRITTEN:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    return folder
