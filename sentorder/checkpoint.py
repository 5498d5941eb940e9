"""Training checkpoints: all that going on needs, in one folder that is there whole or not at all.

::

    runs/1/checkpoint-120/      a model, as model/ is one
        training/progress.json  where training stood
        training/state.pt       optimizer, schedule, scaler, random numbers of every process: tensors and plain values
        training/metrics.jsonl  the log up to then
        manifest.json           size and checksum of every file; written last
"""

from __future__ import annotations

import contextlib
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
from accelerate.utils import gather_object
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel

from .errors import UserError, first_line
from .files import disk_reason, whole_folder, write_json
from .model_files import whole_weights_of
from .runtime import on_main_process
from .sharding import split_state, whole_state

FORMAT = 1
MANIFEST = "manifest.json"
TRAINING = "training"
"""The folder inside a checkpoint that holds what a mere model has not."""


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint after so many steps lies."""
    return run / f"checkpoint-{step}"


def checkpoints_of(run: Path) -> list[Path]:
    """The checkpoints of a run by step, newest first, valid or not; links to elsewhere are none of its own."""
    return sorted((path for path in run.glob("checkpoint-*") if is_checkpoint_folder(path)), key=_step_of, reverse=True)


def is_checkpoint_folder(path: Path) -> bool:
    """Whether it is a folder named like a checkpoint, and no link."""
    return re.fullmatch(r"checkpoint-\d+", path.name) is not None and path.is_dir() and not path.is_symlink()


def _step_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


# --- saving ---------------------------------------------------------------------------------------------------------


def save_checkpoint(
    accelerator: Accelerator,
    folder: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    progress: Mapping[str, Any],
    copies: Sequence[Path],
) -> None:
    """Save a checkpoint, between two optimizer steps; every process must call it.

    Args:
        accelerator: of the run. The main process writes; the others send their random numbers.
        folder: from :func:`checkpoint_folder`.
        model: prepared or not.
        optimizer: prepared or not.
        scheduler: not prepared.
        progress: plain values, for ``progress.json``.
        copies: files to keep beside it, as they are now.

    Raises:
        UserError: on every process, if the disk is full or may not be written; older checkpoints are still there.
    """
    generators = gather_object([random_state()])
    bare, weights = accelerator.unwrap_model(model), whole_weights_of(accelerator, model)
    moments = whole_state(optimizer.state_dict(), keep=accelerator.is_main_process)
    on_main_process(
        accelerator,
        lambda: _write_checkpoint(
            folder,
            bare,
            weights,
            {
                "optimizer": moments,
                "scheduler": scheduler.state_dict(),
                "scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
                "random": generators,
            },
            progress,
            copies,
        ),
    )


def _write_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    weights: dict[str, torch.Tensor] | None,
    state: Mapping[str, Any],
    progress: Mapping[str, Any],
    copies: Sequence[Path],
) -> None:
    try:
        with whole_folder(folder) as new:
            model.save_pretrained(new, state_dict=weights)
            training = new / TRAINING
            training.mkdir()
            torch.save(state, training / "state.pt")
            for path in copies:
                shutil.copyfile(path, training / path.name)
            write_json(training / "progress.json", progress)
            files = sorted(path for path in new.rglob("*") if path.is_file())
            described = {path.relative_to(new).as_posix(): _describe(path) for path in files}
            write_json(new / MANIFEST, {"format": FORMAT, "files": described})
    except Exception as error:  # safetensors, tokenizers and torch raise kinds of their own when a disk is full
        raise UserError(
            f"{folder}: the checkpoint could not be saved ({disk_reason(error)}); older ones are intact."
        ) from error


def prune_checkpoints(saved: Path, *, newest: int, keep: Path) -> None:
    """Remove older checkpoints.

    Args:
        saved: the checkpoint that was saved just now. Later ones, of a run that was set back, do not count.
        newest: how many to keep, this one included.
        keep: the best one, which stays; need not exist.
    """
    older = [path for path in checkpoints_of(saved.parent) if _step_of(path) <= _step_of(saved)]
    for path in older[max(newest, 1) :]:
        if path != keep:
            with contextlib.suppress(OSError):
                # Its manifest goes first: half a folder must not be taken for a checkpoint if this is interrupted.
                (path / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(path)


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
        raise UserError(f"{folder}: has format {known}, this sentorder reads {FORMAT}; use the one that wrote it.")
    for name, described in files.items():
        try:
            found = _describe(folder / name)
        except OSError as error:
            raise UserError(f"{folder / name}: {error.strerror}; the checkpoint is damaged.") from None
        if found != described:
            raise UserError(f"{folder / name}: is not as it was saved; the checkpoint is damaged.")
    missing = {f"{TRAINING}/{name}" for name in ("state.pt", "progress.json", "metrics.jsonl")} - files.keys()
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
        optimizer.load_state_dict(split_state(optimizer, state["optimizer"]))
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
