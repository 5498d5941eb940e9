"""Log probabilities that the logits of a head stand for: what losses teach and decoders maximise, defined once."""

from __future__ import annotations

import torch
from torch import nn


def refuse_non_finite(values: torch.Tensor) -> None:
    """Stop before something is decoded that has no order.

    Raises:
        FloatingPointError: if any value is infinite or not a number.
    """
    if not torch.isfinite(values).all():
        raise FloatingPointError(
            "The model's output is infinite or not a number, so it has no order: its weights are spoilt. Train with a "
            "lower learning rate."
        )


def pair_log_probabilities(pair_logits: torch.Tensor) -> torch.Tensor:
    """(B, N, N) log p(slot i precedes slot j), of logits (B, N, N)."""
    return nn.functional.logsigmoid(pair_logits)


def position_log_probabilities(position_logits: torch.Tensor, slot_mask: torch.Tensor) -> torch.Tensor:
    """Log p(slot i stands at position p), a distribution over the positions of the document for each slot.

    Args:
        position_logits: (B, N, N).
        slot_mask: (B, N); a document of n sentences has its slots and its positions at 0..n-1.

    Returns:
        (B, N, N), very low for positions that the document does not have.
    """
    return torch.log_softmax(_only(position_logits, slot_mask[:, None, :]), dim=2)


def slot_log_probabilities(position_logits: torch.Tensor, slot_mask: torch.Tensor) -> torch.Tensor:
    """Log p(position p is that of slot i), a distribution over the slots of the document for each position.

    Arguments and result as for :func:`position_log_probabilities`.
    """
    return torch.log_softmax(_only(position_logits, slot_mask[:, :, None]), dim=1)


def sinkhorn_log_probabilities(
    position_logits: torch.Tensor, slot_mask: torch.Tensor, *, rounds: int = 20
) -> torch.Tensor:
    """The logits scaled so that slots and positions both sum to one: a soft permutation.

    Rows and columns are normalised in turns (Sinkhorn, 1964; as a layer: Adams and Zemel, 2011; Mena et al., ICLR
    2018). The best assignment stays what it was, for each round only adds a number to every row or column.

    Args:
        position_logits: (B, N, N).
        slot_mask: (B, N).
        rounds: how often both are normalised; the positions come last.

    Returns:
        (B, N, N) logarithms.
    """
    both = slot_mask[:, :, None] & slot_mask[:, None, :]
    scaled = _only(position_logits, both)
    for _ in range(rounds):
        for axis in (1, 2):
            scaled = _only(scaled - scaled.logsumexp(dim=axis, keepdim=True), both)
    return scaled


def adjacency_log_probabilities(adjacency_logits: torch.Tensor, slot_mask: torch.Tensor) -> torch.Tensor:
    """How likely slot j directly follows slot i: the mean of log p(j comes next | i) and log p(i came before | j).

    Args:
        adjacency_logits: (B, N, N).
        slot_mask: (B, N).

    Returns:
        (B, N, N), very low on the diagonal and outside of the document.
    """
    others = ~torch.eye(slot_mask.shape[1], dtype=torch.bool, device=slot_mask.device)
    pairs = slot_mask[:, :, None] & slot_mask[:, None, :] & others
    logits = _only(adjacency_logits, pairs)
    return _only((torch.log_softmax(logits, dim=2) + torch.log_softmax(logits, dim=1)) / 2, pairs)


def _only(values: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """The rest as low as can be added up a few times without becoming infinite: -inf would make NaN gradients."""
    return values.masked_fill(~members, torch.finfo(values.dtype).min / 8)
