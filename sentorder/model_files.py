"""Models on disk: saved whole or not at all, and looked at before they are loaded."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file, load_model
from torch import nn
from transformers import PreTrainedModel

from .encoders import load_config_dict
from .errors import UserError
from .files import disk_reason, whole_folder
from .runtime import on_main_process
from .sharding import is_split, load_whole

MODEL_TYPE = "sentorder"
"""What the ``config.json`` of a model of ours calls itself."""


def save_model(accelerator: Accelerator, model: nn.Module, folder: Path) -> None:
    """Save a model into ``folder``, replacing the one that is there only once the new one is complete.

    Every process must call it; the main one writes.

    Args:
        accelerator: of the run.
        model: prepared or not.
        folder: where to.

    Raises:
        UserError: if the disk is full or the folder may not be written; the old model is then still there.
    """
    bare, weights = accelerator.unwrap_model(model), whole_weights_of(accelerator, model)
    on_main_process(accelerator, lambda: _write_model(bare, weights, folder))


def whole_weights_of(accelerator: Accelerator, model: nn.Module) -> dict[str, torch.Tensor] | None:
    """The weights of a prepared model, for the main process to save, where training is split; else None: the model
    itself has them."""
    if not is_split(accelerator):
        return None
    weights: dict[str, torch.Tensor] = accelerator.get_state_dict(model)
    return weights


def _write_model(model: PreTrainedModel, weights: dict[str, torch.Tensor] | None, folder: Path) -> None:
    try:
        with whole_folder(folder) as new:
            model.save_pretrained(new, state_dict=weights)
    except Exception as error:  # safetensors and tokenizers raise kinds of their own when a disk is full
        raise UserError(f"{folder}: the model could not be saved ({disk_reason(error)}).") from error


def restore_weights(accelerator: Accelerator, model: nn.Module, folder: Path) -> None:
    """Put the weights that :func:`save_model` wrote back into the same model."""
    bare, path = accelerator.unwrap_model(model), folder / "model.safetensors"
    if is_split(accelerator):
        load_whole(bare, load_file(path))
    else:
        load_model(bare, path, device=str(bare.device))


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
