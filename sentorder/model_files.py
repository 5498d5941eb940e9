"""Models on disk: saved whole or not at all, and looked at before they are loaded."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_model
from transformers import PreTrainedModel

from .encoders import load_config_dict
from .errors import UserError
from .files import disk_reason, whole_folder

MODEL_TYPE = "sentorder"
"""What the ``config.json`` of a model of ours calls itself."""


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Save a model into ``folder``, replacing the one that is there only once the new one is complete.

    Raises:
        UserError: if the disk is full or the folder may not be written; the old model is then still there.
    """
    try:
        with whole_folder(folder) as new:
            model.save_pretrained(new)
    except Exception as error:  # safetensors and tokenizers raise kinds of their own when a disk is full
        raise UserError(f"{folder}: the model could not be saved ({disk_reason(error)}).") from error


def restore_weights(model: PreTrainedModel, folder: Path) -> None:
    """Put the weights that :func:`save_model` wrote back into the same model."""
    load_model(model, folder / "model.safetensors", device=str(model.device))


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
