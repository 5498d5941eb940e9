"""Losses: one value per document; the loop alone makes the mean over a step. Those of scores: ``score_losses.py``.

Documents in a batch differ in length: everything is masked, and a document of one sentence, which has nothing to order,
costs 0 wherever a loss is about order alone.
"""

from __future__ import annotations

import torch
from torch import nn

from .contracts import Batch, Loss, OrderingOutput
from .likelihoods import (
    adjacency_log_probabilities,
    pair_log_probabilities,
    position_log_probabilities,
    sinkhorn_log_probabilities,
    slot_log_probabilities,
)


def sum_of(*losses: Loss) -> Loss:
    """One loss from several, for heads that give several things at once."""

    def total(output: OrderingOutput, batch: Batch) -> torch.Tensor:
        return torch.stack([loss(output, batch) for loss in losses]).sum(dim=0)

    return total


# --- what losses are made of ------------------------------------------------------------------------------------------


def number_of_choices(mask: torch.Tensor) -> torch.Tensor:
    """(B,) how many choices make up an order: the last sentence is none."""
    return (mask.sum(dim=1) - 1).clamp(min=1)


def earlier_pairs(batch: Batch) -> torch.Tensor:
    """(B, N, N) where slot i stands before slot j in the gold order: each pair of sentences once."""
    positions, mask = batch["positions"], batch["slot_mask"]
    return (positions[:, :, None] < positions[:, None, :]) & mask[:, :, None] & mask[:, None, :]


def mean_over_pairs(values: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """A mean, so that a document of twelve sentences (66 pairs) does not outweigh one of five (10 pairs)."""
    return values.masked_fill(~pairs, 0.0).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)


def _at_gold(log_probabilities: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B,) the mean over the sentences of what (B, N, N) holds for each at its position."""
    mask = batch["slot_mask"]
    gold = log_probabilities.gather(2, batch["positions"].clamp(min=0)[:, :, None]).squeeze(-1)
    return gold.masked_fill(~mask, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


# --- pairs, neighbours, positions, choices ----------------------------------------------------------------------------


def pairwise_logistic(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Negative log likelihood of the order of each pair of sentences, mean over the pairs of a document.

    Burges et al., "Learning to Rank using Gradient Descent" (RankNet, ICML 2005), on pair logits of their own instead
    of score differences.

    Returns:
        (B,); 0 for a document of one sentence, which has no pair.
    """
    assert output.pair_logits is not None
    return mean_over_pairs(-pair_log_probabilities(output.pair_logits), earlier_pairs(batch))


def adjacency_cross_entropy(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Negative log likelihood of who follows each sentence, and of whom it follows; mean over the neighbours.

    Returns:
        (B,); 0 for a document of one sentence.
    """
    assert output.adjacency_logits is not None
    positions, mask = batch["positions"], batch["slot_mask"]
    follows = earlier_pairs(batch) & (positions[:, None, :] == positions[:, :, None] + 1)
    return mean_over_pairs(-adjacency_log_probabilities(output.adjacency_logits, mask), follows)


def position_cross_entropy(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Negative log likelihood of each sentence's position among those of its document, mean over the sentences.

    Returns:
        (B,); 0 for a document of one sentence.
    """
    assert output.position_logits is not None
    return -_at_gold(position_log_probabilities(output.position_logits, batch["slot_mask"]), batch)


def exclusive_cross_entropy(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """The position of each sentence and the sentence of each position: the sum of both cross-entropies.

    The second keeps two sentences from claiming one position. The exclusive loss of Bin et al., NAON (EMNLP Findings
    2023), without its masking of sentences that earlier positions have used.

    Returns:
        (B,); 0 for a document of one sentence.
    """
    assert output.position_logits is not None
    of_positions = slot_log_probabilities(output.position_logits, batch["slot_mask"])
    return position_cross_entropy(output, batch) - _at_gold(of_positions, batch)


def sinkhorn_cross_entropy(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the positions under the soft permutation that the logits scale to, mean over the sentences.

    Mena et al., "Learning Latent Permutations with Gumbel-Sinkhorn Networks" (ICLR 2018), without the noise.

    Returns:
        (B,); 0 for a document of one sentence.
    """
    assert output.position_logits is not None
    return -_at_gold(sinkhorn_log_probabilities(output.position_logits, batch["slot_mask"]), batch)


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
    return -next_slot_log_likelihood(output, batch) / number_of_choices(batch["slot_mask"])
