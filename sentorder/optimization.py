"""The default optimizer and schedule: AdamW with visible decay groups, and any schedule of transformers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler


def parameter_groups(
    model: nn.Module, *, learning_rate: float, weight_decay: float, head_learning_rate: float | None = None
) -> list[dict[str, Any]]:
    """Parameters by learning rate and weight decay.

    Matrices decay; biases and the scales of norms (anything with one dimension) do not. What lies under ``head``, or
    under ``backbone`` beside its encoder, is new and may learn faster than the pretrained rest.

    Args:
        model: whose parameters to sort; those without gradient are left out.
        learning_rate: of the encoder.
        weight_decay: of the matrices.
        head_learning_rate: of the new parameters; None for the same.

    Returns:
        Groups for an optimizer, each with a ``name``; empty ones are left out.
    """
    rates = {"encoder": learning_rate, "head": learning_rate if head_learning_rate is None else head_learning_rate}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {
        (part, decays): [] for part in rates for decays in (True, False)
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            beside_encoder = name.startswith("backbone.") and not name.startswith("backbone.encoder.")
            new = name.startswith("head.") or beside_encoder
            groups["head" if new else "encoder", parameter.ndim > 1].append(parameter)
    return [
        {
            "name": f"{part}, {'decay' if decays else 'no decay'}",
            "params": parameters,
            "lr": rates[part],
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in groups.items()
        if parameters
    ]


def adamw(groups: Iterable[dict[str, Any]]) -> torch.optim.AdamW:
    """AdamW in its fused form: one pass over the parameters instead of several, on a CPU too."""
    return torch.optim.AdamW(groups, fused=True)


def schedule(name: str, optimizer: torch.optim.Optimizer, *, warmup_steps: float, total_steps: int) -> LRScheduler:
    """A learning rate schedule that is stepped once per optimizer step.

    Args:
        name: one that ``transformers.get_scheduler`` knows, such as ``linear``.
        optimizer: the bare one, not a prepared one.
        warmup_steps: a number of steps, or below 1 a share of ``total_steps``.
        total_steps: of the run.
    """
    warmup = int(warmup_steps * total_steps) if warmup_steps < 1 else int(warmup_steps)
    scheduler: LRScheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps)
    return scheduler
