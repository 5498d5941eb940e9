"""From a model's output to an order of the slots: always a permutation, never with a look at gold positions.

The slots are in an order that has nothing to do with the text (see ``data/collation.py``), so a tie may fall to the
lower slot without leaking anything.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from .contracts import AutoregressiveHead, Decoded, OrderingOutput
from .order_search import RankedOrders, best_orders

BEAMS = 8
"""Prefixes that beam search keeps of each document if one order is asked for."""
WIDEST = 128
"""How many it keeps at the most for several orders, unless even more are asked for."""


def decode_scores(output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1) -> list[list[Decoded]]:
    """Sort the sentences by their scores, lowest first.

    The further orders for ``k`` > 1 are the next best ones by the sum of score differences over all pairs, of which the
    sorted order is the maximum. Confidence is the share of the variance of the positions that the scores span: a
    regression that does not know pulls its scores together.
    """
    scores = _finite(output.scores, slot_mask)

    def rank(rows: np.ndarray, n: int) -> tuple[RankedOrders, np.ndarray]:
        part = scores[rows, :n]
        spread = part.var(axis=1) / max(np.arange(n).var(), 1e-9) if n > 1 else np.ones(len(rows))
        if k == 1:
            orders = np.argsort(part, axis=1, kind="stable")
            sorted_scores = np.take_along_axis(part, orders, axis=1)
            total = (sorted_scores * (2 * np.arange(n) - n + 1)).sum(axis=1)
            ranked = RankedOrders(orders[:, None], total[:, None])
        else:
            ranked = best_orders(part[:, None, :] - part[:, :, None], k=k)
        return ranked, np.broadcast_to(np.clip(spread, 0.0, 1.0)[:, None], ranked.scores.shape)

    return _by_length(slot_mask, rank)


def decode_pairs(output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1) -> list[list[Decoded]]:
    """The order with the highest sum of log probabilities of its pairs, exact up to 14 sentences.

    The score is that sum. Confidence is the share of sentence pairs that the model expects to be in the right order,
    from 0 (every pair is a coin flip) to 1, on the scale of Kendall's tau.
    """
    logits = _finite(output.pair_logits, slot_mask[:, :, None] & slot_mask[:, None, :])

    def rank(rows: np.ndarray, n: int) -> tuple[RankedOrders, np.ndarray]:
        part = logits[rows, :n, :n].astype(np.float64)
        # log p(i before j) = logsigmoid(x_ij), and logsigmoid(x) - logsigmoid(-x) = x: the logits alone decide.
        log_likelihood = -np.logaddexp(0.0, -part)
        ranked = best_orders(log_likelihood, k=k)
        probabilities = np.exp(log_likelihood)
        chosen = probabilities[np.arange(len(rows))[:, None, None, None], *_pairs_of(ranked.orders)]
        upper = np.triu(np.ones((n, n), dtype=bool), 1)
        expected = 2 * chosen[..., upper].mean(axis=-1) - 1 if n > 1 else np.ones(ranked.scores.shape)
        return ranked, np.clip(expected, 0.0, 1.0)

    return _by_length(slot_mask, rank)


@torch.no_grad()
def decode_choices(
    output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1, head: AutoregressiveHead
) -> list[list[Decoded]]:
    """The orders to which the head gives the highest probability, among those that the beam keeps.

    The score is the log probability of the order. Confidence is how much surer than a guess the choices were: the mean
    over an order's choices of ``(p - 1/m) / (1 - 1/m)``, where p is the probability of the sentence chosen and m the
    number of those that were left; 1 where there is nothing to choose.

    Args:
        output: with ``slot_states``.
        slot_mask: (B, N).
        k: how many orders of each document; a document of n sentences has at most n!.
        head: that made the output.
    """
    states = output.slot_states
    assert states is not None
    _refuse_non_finite(states[slot_mask])
    batch, slots = slot_mask.shape
    # The tail of a beam is poor: a wider one finds more of the k best. Its memory is that of (B, width, N, H).
    width = max(BEAMS, k, min(4 * k, WIDEST))
    counts = slot_mask.sum(dim=1)
    rows = torch.arange(batch, device=states.device)[:, None]

    memories = head.first_memory(states, slot_mask)[:, None]  # one prefix, the empty one
    left = slot_mask[:, None].clone()
    scores = torch.zeros(batch, 1, device=states.device)
    surplus = torch.zeros(batch, 1, device=states.device)  # summed confidence of the choices
    orders = torch.zeros(batch, 1, slots, dtype=torch.long, device=states.device)
    for step in range(slots):
        logits = head.choices(states, memories, left).float()
        log_p = torch.log_softmax(logits, dim=-1)
        # A document that is complete has one candidate per prefix, itself.
        complete = (counts <= step)[:, None, None]
        stay = torch.full_like(log_p, -torch.inf)
        stay[..., 0] = 0.0
        log_p = torch.where(complete, stay, log_p)
        guess = 1.0 / (counts - step).clamp(min=2)[:, None, None]
        gain = torch.where((counts - step > 1)[:, None, None], (log_p.exp() - guess) / (1 - guess), 0.0)

        candidates = (scores[:, :, None] + log_p).flatten(1)
        scores, best = candidates.topk(min(width, candidates.shape[1]), dim=1)
        prefix, slot = best // slots, best % slots
        surplus = surplus[rows, prefix] + gain[rows, prefix, slot]
        orders, left, memories = orders[rows, prefix], left[rows, prefix], memories[rows, prefix]
        orders[:, :, step] = slot
        left = left & ~torch.nn.functional.one_hot(slot, slots).bool()
        if step + 1 < slots:
            memories = head.remember(states, memories, slot)

    choices = (counts - 1).clamp(min=1)[:, None]
    confidence = torch.where(counts[:, None] > 1, (surplus / choices).clamp(0.0, 1.0), 1.0)
    found = zip(orders.tolist(), scores.tolist(), confidence.tolist(), counts.tolist(), strict=True)
    return [
        [
            Decoded(order[:n], score, certainty)
            for order, score, certainty in list(zip(*ranking, strict=True))[:k]
            if score > -torch.inf
        ]
        for *ranking, n in found
    ]


# --- the parts -------------------------------------------------------------------------------------------------------


def _refuse_non_finite(values: torch.Tensor) -> None:
    if not torch.isfinite(values).all():
        raise FloatingPointError(
            "The model's output is infinite or not a number, so it has no order: its weights are spoilt. Train with a "
            "lower learning rate."
        )


def _finite(values: torch.Tensor | None, mask: torch.Tensor) -> np.ndarray:
    """The values on the CPU; those outside of the mask play no part."""
    assert values is not None
    _refuse_non_finite(values[mask])
    found: np.ndarray = values.detach().float().cpu().numpy()
    return found


def _pairs_of(orders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index arrays (..., n, n) that put a pair matrix into the given order of its rows and columns."""
    return orders[..., :, None], orders[..., None, :]


def _by_length(
    slot_mask: torch.Tensor, rank: Callable[[np.ndarray, int], tuple[RankedOrders, np.ndarray]]
) -> list[list[Decoded]]:
    """Decode the documents of each length together, and put the results back in the order of the batch."""
    counts = slot_mask.sum(dim=1).cpu().numpy()
    results: list[list[Decoded]] = [[] for _ in counts]
    for n in np.unique(counts):
        rows = np.flatnonzero(counts == n)
        if n == 0:
            continue
        (orders, scores), confidences = rank(rows, int(n))
        for row, ranking in zip(rows, zip(orders, scores, confidences, strict=True), strict=True):
            results[row] = [
                Decoded([int(slot) for slot in order], float(score), float(confidence))
                for order, score, confidence in zip(*ranking, strict=True)
                if np.isfinite(score)
            ]
    return results
