"""Losses: one value per document. The loop alone makes the mean over a step.

A score is the lower, the earlier; where a listwise loss speaks of relevance, that is the negated score. Documents in a
batch differ in length: everything is masked, and a document of one sentence, which has nothing to order, costs 0
wherever a loss is about order alone.
"""

from __future__ import annotations

from collections.abc import Callable

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


# --- scores: each sentence by itself ---------------------------------------------------------------------------------


def _position_regression(
    error: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], output: OrderingOutput, batch: Batch, share: bool
) -> torch.Tensor:
    assert output.scores is not None
    mask = batch["slot_mask"]
    targets = batch["positions"].to(output.scores.dtype)
    if share:
        targets = targets / (mask.sum(dim=1, keepdim=True) - 1).clamp(min=1)
    return error(output.scores, targets).masked_fill(~mask, 0.0).sum(dim=1)


def _squared(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (scores - targets) ** 2


def _huber(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.huber_loss(scores, targets, reduction="none")


def squared_error(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Squared distance of each score from the sentence's position (0, 1, ...), summed over the sentences.

    The loss of the tutorial that regresses positions by token classification.

    Returns:
        (B,)
    """
    return _position_regression(_squared, output, batch, share=False)


def squared_error_of_share(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Like :func:`squared_error`, from positions as a share of the document: 0 for its first sentence, 1 for its last.

    Documents of any length have the same targets then.
    """
    return _position_regression(_squared, output, batch, share=True)


def absolute_error(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Distance of each score from the sentence's position, summed: as Kendall's tau, linear in displacement.

    Returns:
        (B,)
    """
    return _position_regression(lambda scores, targets: (scores - targets).abs(), output, batch, share=False)


def absolute_error_of_share(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Like :func:`absolute_error`, from positions as a share of the document."""
    return _position_regression(lambda scores, targets: (scores - targets).abs(), output, batch, share=True)


def huber(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Squared up to a distance of 1, linear beyond (Huber, 1964), summed over the sentences.

    Returns:
        (B,)
    """
    return _position_regression(_huber, output, batch, share=False)


def huber_of_share(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Like :func:`huber`, from positions as a share of the document; it turns linear at one position there too."""
    positions_apart = (batch["slot_mask"].sum(dim=1, keepdim=True) - 1).clamp(min=1)

    def error(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return _huber(scores * positions_apart, targets * positions_apart) / positions_apart**2

    return _position_regression(error, output, batch, share=True)


# --- scores: pairs of sentences --------------------------------------------------------------------------------------


def _earlier(batch: Batch) -> torch.Tensor:
    """(B, N, N) where slot i stands before slot j in the gold order: each pair of sentences once."""
    positions, mask = batch["positions"], batch["slot_mask"]
    return (positions[:, :, None] < positions[:, None, :]) & mask[:, :, None] & mask[:, None, :]


def _mean_over_pairs(values: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """A mean, so that a document of twelve sentences (66 pairs) does not outweigh one of five (10 pairs)."""
    return values.masked_fill(~pairs, 0.0).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)


def pairwise_logistic(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Negative log likelihood of the order of each pair of sentences, mean over the pairs of a document.

    Burges et al., "Learning to Rank using Gradient Descent" (RankNet, ICML 2005), on pair logits of their own instead
    of score differences.

    Returns:
        (B,); 0 for a document of one sentence, which has no pair.
    """
    assert output.pair_logits is not None
    return _mean_over_pairs(-pair_log_probabilities(output.pair_logits), _earlier(batch))


def ranknet(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Logistic loss of the score difference of each pair, mean over the pairs (Burges et al., RankNet, ICML 2005).

    Returns:
        (B,); 0 for a document of one sentence.
    """
    assert output.scores is not None
    differences = output.scores[:, None, :] - output.scores[:, :, None]  # positive where i scores lower
    return _mean_over_pairs(nn.functional.softplus(-differences), _earlier(batch))


def lambda_tau(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """:func:`ranknet` with each pair weighted by how much Kendall's tau would change if the two changed places.

    LambdaRank's idea (Burges et al., NeurIPS 2006; as a loss: Wang et al., LambdaLoss, CIKM 2018) with tau in place of
    NDCG. The weights come from the order that the scores give now, and carry no gradient; they are scaled to a mean of
    1 in each document.

    Returns:
        (B,); 0 for a document of one sentence.
    """
    assert output.scores is not None
    pairs = _earlier(batch)
    weights = _swap_effects(output.scores.detach(), batch).masked_fill(~pairs, 0.0)
    weights = weights / (weights.sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)).clamp(min=1e-9)[:, None, None]
    differences = output.scores[:, None, :] - output.scores[:, :, None]
    return _mean_over_pairs(nn.functional.softplus(-differences) * weights, pairs)


def _swap_effects(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B, N, N) by how many pairs more or fewer would be in the right order if slots i and j changed places."""
    positions, mask = batch["positions"], batch["slot_mask"]
    slots = torch.arange(scores.shape[1], device=scores.device)
    order = torch.argsort(scores.masked_fill(~mask, torch.inf), dim=1, stable=True)
    true = positions.gather(1, order).to(scores.dtype)
    real = mask.gather(1, order)
    # Places in the present order. right[a, b]: 1 if the sentences at a < b are in the right order, -1 if not.
    right = torch.sign(true[:, None, :] - true[:, :, None]) * real[:, :, None] * real[:, None, :]
    # Swapping a and b turns the pair around, and those of both with everything in between.
    along = right.cumsum(dim=2)
    below = right.cumsum(dim=1)
    from_a = along - right - along.diagonal(dim1=1, dim2=2)[:, :, None]  # sum of right[a, c] over a < c < b
    from_b = below.diagonal(dim1=1, dim2=2)[:, None, :] - below  # sum of right[c, b] over a < c <= b; right[b, b] = 0
    effects = (2 * (right + from_a + from_b)).abs()
    effects = torch.where(slots[:, None] < slots[None, :], effects, effects.transpose(1, 2))
    ranks = torch.argsort(order, dim=1)
    rows = effects.gather(1, ranks[:, :, None].expand_as(effects))
    return rows.gather(2, ranks[:, None, :].expand_as(effects))


# --- scores: the whole list ------------------------------------------------------------------------------------------


def listnet(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Cross-entropy between two distributions of which sentence is the first: by the scores, and by the positions.

    The target gives the sentence at position p a weight of exp(-p). Cao et al., "Learning to Rank: From Pairwise
    Approach to Listwise Approach" (ListNet, ICML 2007), its top-one form: the end of a document hardly counts.

    Returns:
        (B,); 0 for a document of one sentence.
    """
    assert output.scores is not None
    mask = batch["slot_mask"]
    target = torch.softmax(_behind(-batch["positions"].to(output.scores.dtype), mask), dim=1)
    return -(target * torch.log_softmax(_behind(-output.scores, mask), dim=1)).masked_fill(~mask, 0.0).sum(dim=1)


def _choice_losses(relevance: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, N) at place t: -log p(the sentence at position t | the sentences from t on), Plackett and Luce's model."""
    order = torch.argsort(positions.masked_fill(~mask, positions.shape[1]), dim=1)
    ordered = _behind(relevance, mask).gather(1, order)
    rest = ordered.flip(1).logcumsumexp(dim=1).flip(1)
    return (rest - ordered).masked_fill(~mask.gather(1, order), 0.0)


def listmle(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Negative log likelihood of the gold order, chosen sentence by sentence; mean over the choices of a document.

    Xia et al., "Listwise Approach to Learning to Rank" (ListMLE, ICML 2008); for sentences: RankTxNet (Kumar et al.,
    AAAI 2020) and BERT4SO (Zhu et al., 2021).

    Returns:
        (B,); 0 for a document of one sentence.
    """
    assert output.scores is not None
    positions, mask = batch["positions"], batch["slot_mask"]
    return _choice_losses(-output.scores, positions, mask).sum(dim=1) / _choices(mask)


def listmle_both_ways(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """The mean of :func:`listmle` from the first sentence to the last and from the last to the first.

    One way alone is surest about the end it begins with.

    Returns:
        (B,); 0 for a document of one sentence.
    """
    assert output.scores is not None
    positions, mask = batch["positions"], batch["slot_mask"]
    backward = (mask.sum(dim=1, keepdim=True) - 1 - positions).masked_fill(~mask, -100)
    losses = _choice_losses(-output.scores, positions, mask) + _choice_losses(output.scores, backward, mask)
    return losses.sum(dim=1) / (2 * _choices(mask))


def listmle_by_position(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """:func:`listmle` with the choice at place t weighted by 2^(n-t) - 1 (t from 1), as a weighted mean.

    Lan et al., "Position-Aware ListMLE" (UAI 2014): the beginning counts most. Made for search results; with long
    documents nearly all weight lies on the first few sentences.

    Returns:
        (B,); 0 for a document of one sentence.
    """
    assert output.scores is not None
    positions, mask = batch["positions"], batch["slot_mask"]
    counts = mask.sum(dim=1, keepdim=True)
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)[None]
    # Both terms over 2^n: 2^n itself would overflow in long documents.
    weights = (torch.exp2(-places.to(output.scores.dtype)) - torch.exp2(-counts.to(output.scores.dtype))).clamp(min=0)
    losses = _choice_losses(-output.scores, positions, mask) * weights
    return losses.sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


def _choices(mask: torch.Tensor) -> torch.Tensor:
    """(B,) how many choices make up an order: the last sentence is none."""
    return (mask.sum(dim=1) - 1).clamp(min=1)


def _behind(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Padded slots so low that they take no share; not -inf, whose gradient would be NaN."""
    return values.masked_fill(~mask, torch.finfo(values.dtype).min / 8)


# --- relations between sentences, positions, choices -----------------------------------------------------------------


def adjacency_cross_entropy(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Negative log likelihood of who follows each sentence, and of whom it follows; mean over the neighbours.

    Returns:
        (B,); 0 for a document of one sentence.
    """
    assert output.adjacency_logits is not None
    positions, mask = batch["positions"], batch["slot_mask"]
    follows = _earlier(batch) & (positions[:, None, :] == positions[:, :, None] + 1)
    return _mean_over_pairs(-adjacency_log_probabilities(output.adjacency_logits, mask), follows)


def _at_gold(log_probabilities: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B,) the mean over the sentences of what (B, N, N) holds for each at its position."""
    mask = batch["slot_mask"]
    gold = log_probabilities.gather(2, batch["positions"].clamp(min=0)[:, :, None]).squeeze(-1)
    return gold.masked_fill(~mask, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


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
    return -next_slot_log_likelihood(output, batch) / _choices(batch["slot_mask"])
