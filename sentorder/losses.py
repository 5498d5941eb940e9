"""Losses: one value per document. The loop alone makes the mean over a step."""

from __future__ import annotations

import torch
from torch import nn

from .contracts import Batch, OrderingOutput


def squared_error(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Squared distance of each score from the sentence's position (0, 1, ...), summed over the sentences.

    The loss of the tutorial that regresses positions by token classification.

    Returns:
        (B,)
    """
    assert output.scores is not None
    errors = (output.scores - batch["positions"]) ** 2
    return errors.masked_fill(~batch["slot_mask"], 0.0).sum(dim=1)


def pairwise_logistic(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Negative log likelihood of the order of each pair of sentences, mean over the pairs of a document.

    A mean, so that a document of twelve sentences (66 pairs) does not outweigh one of five (10 pairs).
    Burges et al., "Learning to Rank using Gradient Descent" (RankNet, ICML 2005), on pair logits of their own instead
    of score differences.

    Returns:
        (B,); 0 for a document of one sentence, which has no pair.
    """
    assert output.pair_logits is not None
    positions, mask = batch["positions"], batch["slot_mask"]
    # Each unordered pair once, as (earlier slot, later slot): the logit there should be positive.
    earlier = (positions[:, :, None] < positions[:, None, :]) & mask[:, :, None] & mask[:, None, :]
    losses = nn.functional.softplus(-output.pair_logits).masked_fill(~earlier, 0.0)
    return losses.sum(dim=(1, 2)) / earlier.sum(dim=(1, 2)).clamp(min=1)


def next_slot_log_likelihood(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Log probability of the order that ``positions`` give: the sum over its choices, the last of which is forced.

    Returns:
        (B,), at most 0.
    """
    assert output.next_slot_logits is not None
    positions, mask = batch["positions"], batch["slot_mask"]
    log_probabilities = nn.functional.log_softmax(output.next_slot_logits, dim=-1)
    # The sentence in slot j is the choice of row positions[j].
    rows = positions.clamp(min=0)
    chosen = log_probabilities.transpose(1, 2).gather(2, rows[:, :, None]).squeeze(-1)
    return chosen.masked_fill(~mask, 0.0).sum(dim=1)


def next_slot_cross_entropy(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Negative log likelihood of the choices that make up the gold order, mean over the choices of a document.

    The last sentence is no choice: a document of n sentences has n - 1. Pointer networks for sentence ordering
    (Logeswaran et al., AAAI 2018); the mean as in Cui et al., BERSON (EMNLP 2020).

    Returns:
        (B,); 0 for a document of one sentence.
    """
    choices = (batch["slot_mask"].sum(dim=1) - 1).clamp(min=1)
    return -next_slot_log_likelihood(output, batch) / choices
