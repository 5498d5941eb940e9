"""Write what a run must not lose: whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_model
from transformers import PreTrainedModel

from .errors import UserError


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Save a model into ``folder``, replacing the one that is there only once the new one is complete.

    Raises:
        UserError: if the disk is full or the folder may not be written; the old model is then still there.
    """
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    try:
        shutil.rmtree(new, ignore_errors=True)
        model.save_pretrained(new)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{folder}: the model could not be saved ({error.strerror or error}).") from error


def restore_weights(model: PreTrainedModel, folder: Path) -> None:
    """Put the weights that :func:`save_model` wrote back into the same model."""
    load_model(model, folder / "model.safetensors", device=str(model.device))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write one JSON object, whole or not at all."""
    _replace(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, whole or not at all."""
    _replace(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _replace(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
