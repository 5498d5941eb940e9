"""Losses of one score per sentence: the lower, the earlier.

Where a listwise loss speaks of relevance, that is the negated score. All are masked, as in ``losses.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .contracts import Batch, OrderingOutput
from .losses import earlier_pairs, mean_over_pairs, number_of_choices

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


def ranknet(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """Logistic loss of the score difference of each pair, mean over the pairs (Burges et al., RankNet, ICML 2005).

    Returns:
        (B,); 0 for a document of one sentence.
    """
    assert output.scores is not None
    differences = output.scores[:, None, :] - output.scores[:, :, None]  # positive where i scores lower
    return mean_over_pairs(nn.functional.softplus(-differences), earlier_pairs(batch))


def lambda_tau(output: OrderingOutput, batch: Batch) -> torch.Tensor:
    """:func:`ranknet` with each pair weighted by how much Kendall's tau would change if the two changed places.

    LambdaRank's idea (Burges et al., NeurIPS 2006; as a loss: Wang et al., LambdaLoss, CIKM 2018) with tau in place of
    NDCG. The weights come from the order that the scores give now, and carry no gradient; they are scaled to a mean of
    1 in each document.

    Returns:
        (B,); 0 for a document of one sentence.
    """
    assert output.scores is not None
    pairs = earlier_pairs(batch)
    weights = _swap_effects(output.scores.detach(), batch).masked_fill(~pairs, 0.0)
    weights = (
        weights
        / (weights.sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)).clamp(min=torch.finfo(weights.dtype).tiny)[
            :, None, None
        ]
    )
    differences = output.scores[:, None, :] - output.scores[:, :, None]
    return mean_over_pairs(nn.functional.softplus(-differences) * weights, pairs)


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
    return _choice_losses(-output.scores, positions, mask).sum(dim=1) / number_of_choices(mask)


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
    return losses.sum(dim=1) / (2 * number_of_choices(mask))


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
    return losses.sum(dim=1) / weights.sum(dim=1).clamp(min=torch.finfo(weights.dtype).tiny)


def _behind(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Padded slots so low that they take no share; not -inf, whose gradient would be NaN."""
    return values.masked_fill(~mask, torch.finfo(values.dtype).min / 8)
