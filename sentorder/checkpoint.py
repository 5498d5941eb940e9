"""Training checkpoints: all that going on needs, in one folder that is there whole or not at all.

::

    runs/1/checkpoint-120/      a model, as model/ is one
        training/progress.json  where training stood
        training/state.pt       optimizer, schedule, scaler, random numbers of every process: tensors and plain values
        training/arguments.yaml, metrics.jsonl
        manifest.json           size and checksum of every file; written last
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel

from .errors import UserError, first_line
from .files import DISK_ERRORS, disk_reason, whole_folder, write_json

FORMAT = 1
MANIFEST = "manifest.json"
TRAINING = "training"
"""The folder inside a checkpoint that holds what a mere model has not."""


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint after so many steps lies."""
    return run / f"checkpoint-{step}"


def checkpoints_of(run: Path) -> list[Path]:
    """The checkpoints of a run by step, newest first, valid or not."""
    found = [(int(match[1]), path) for path in run.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


_NAME = re.compile(r"checkpoint-(\d+)")

# --- saving ---------------------------------------------------------------------------------------------------------


def save_checkpoint(
    accelerator: Accelerator,
    folder: Path,
    *,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    progress: Mapping[str, Any],
    copies: Sequence[Path],
) -> None:
    """Save a checkpoint, between two optimizer steps; every process must call it.

    Args:
        accelerator: of the run. The main process writes; the others send their random numbers.
        folder: from :func:`checkpoint_folder`.
        model: the bare one.
        optimizer: prepared or not.
        scheduler: not prepared.
        progress: plain values, for ``progress.json``.
        copies: files to keep beside it, as they are now.

    Raises:
        UserError: on every process, if the disk is full or may not be written; older checkpoints are still there.
    """
    generators = gather_object([random_state()])
    outcome: list[Any] = [None]
    if accelerator.is_main_process:
        state = {
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
            "random": generators,
        }
        try:
            with whole_folder(folder) as new:
                model.save_pretrained(new)
                training = new / TRAINING
                training.mkdir()
                torch.save(state, training / "state.pt")
                for path in copies:
                    shutil.copyfile(path, training / path.name)
                write_json(training / "progress.json", progress)
                files = sorted(path for path in new.rglob("*") if path.is_file())
                described = {path.relative_to(new).as_posix(): _describe(path) for path in files}
                write_json(new / MANIFEST, {"format": FORMAT, "files": described})
        except (*DISK_ERRORS, RuntimeError) as error:  # torch.save says RuntimeError
            outcome[0] = f"{folder}: the checkpoint could not be saved ({disk_reason(error)}); older ones are intact."
    (problem,) = broadcast_object_list(outcome)
    if problem is not None:
        raise UserError(problem)


def prune_checkpoints(run: Path, *, newest: int, keep: Path | None) -> None:
    """Remove all checkpoints but the ``newest`` so many and ``keep``, the best one."""
    for path in checkpoints_of(run)[max(newest, 1) :]:
        if path != keep:
            # Its manifest goes first: half a folder must not be taken for a checkpoint if this is interrupted.
            (path / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def _describe(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


# --- loading --------------------------------------------------------------------------------------------------------


def check_checkpoint(folder: Path) -> dict[str, Any]:
    """Look at every byte of a checkpoint, and read where training stood.

    Returns:
        What was given as ``progress``.

    Raises:
        UserError: saying what is missing, damaged or not ours.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        known, files = manifest["format"], dict(manifest["files"])
    except FileNotFoundError:
        raise UserError(f"{folder}: is not a checkpoint of sentorder, or only half of one (no {MANIFEST}).") from None
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"{folder / MANIFEST}: cannot be read; the checkpoint is damaged.") from None
    if known != FORMAT:
        raise UserError(f"{folder}: has format {known}, this sentorder reads {FORMAT}; update sentorder.")
    for name, described in files.items():
        try:
            found = _describe(folder / name)
        except OSError as error:
            raise UserError(f"{folder / name}: {error.strerror}; the checkpoint is damaged.") from None
        if found != described:
            raise UserError(f"{folder / name}: is not as it was saved; the checkpoint is damaged.")
    missing = {f"{TRAINING}/{name}" for name in ("state.pt", "progress.json")} - files.keys()
    if missing:
        raise UserError(f"{folder}: has no {', '.join(sorted(missing))}.")
    progress: dict[str, Any] = json.loads((folder / TRAINING / "progress.json").read_text(encoding="utf-8"))
    return progress


def restore_checkpoint(
    accelerator: Accelerator, folder: Path, *, optimizer: torch.optim.Optimizer, scheduler: LRScheduler
) -> None:
    """Put optimizer, schedule, scaler and random numbers back; the model was loaded from the folder before.

    With another number of processes than it was saved by, the random numbers stay as they are.

    Args:
        accelerator: of the run.
        folder: a checkpoint that :func:`check_checkpoint` found sound.
        optimizer: prepared, over the same parameters.
        scheduler: not prepared.

    Raises:
        UserError: if the state does not fit.
    """
    path = folder / TRAINING / "state.pt"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        if accelerator.scaler is not None and state["scaler"] is not None:
            accelerator.scaler.load_state_dict(state["scaler"])
        if len(state["random"]) == accelerator.num_processes:
            set_random_state(state["random"][accelerator.process_index])
    except Exception as error:  # whatever is in a file that somebody has made
        raise UserError(f"{path}: does not fit this run ({first_line(error)}).") from error


def random_state() -> dict[str, Any]:
    """The state of every random number generator of this process that a model or a loader may draw from."""
    kind, keys, *rest = np.random.get_state()  # a collator of somebody may use it
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Go on with the random numbers that :func:`random_state` saw."""
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
