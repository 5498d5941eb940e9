"""Models and results on disk: written whole or not at all, and looked at before they are loaded."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_model
from transformers import PreTrainedModel

from .encoders import load_config_dict
from .errors import UserError

MODEL_TYPE = "sentorder"
"""What the ``config.json`` of a model of ours calls itself."""


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


def is_orderer(source: str) -> bool:
    """Whether a local folder holds a model of ours (a Hub name is taken for an encoder).

    Raises:
        UserError: if the folder holds no model at all.
    """
    config = load_config_dict(source)
    return config is not None and config.get("model_type") == MODEL_TYPE


def check_is_orderer(source: str) -> None:
    """Refuse a local folder that holds something else, and weights that cannot be read, before anything is loaded.

    Raises:
        UserError: saying what is wrong with it.
    """
    config = load_config_dict(source)
    if config is None:
        if source.startswith((".", "~", os.sep)) or source.count(os.sep) > 1:  # else it may be a name on the Hub
            raise UserError(f"{source}: there is no such folder; give the model/ folder of a training run.")
        return
    if config.get("model_type") != MODEL_TYPE:
        raise UserError(
            f"{source}: holds a {config.get('model_type', 'nameless')} model, not one trained by sentorder; give the "
            "model/ folder of a training run."
        )
    weights = os.path.join(source, "model.safetensors")
    try:
        with safe_open(weights, framework="pt"):
            pass
    except Exception as error:  # the library's own exception types are not public
        raise UserError(f"{weights}: cannot be read ({error}).") from None
