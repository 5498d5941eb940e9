"""From a model's output to an order of the slots: always a permutation, never with a look at gold positions.

Each document's slots are numbered anew, at random, before anything is compared, so a tie falls to no particular slot:
not even somebody who hands in the sentences in their gold order gains by it. The draw is the same each time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.special import expit

from .contracts import Decoded, Decoder, OrderingOutput
from .likelihoods import (
    adjacency_log_probabilities,
    pair_log_probabilities,
    position_log_probabilities,
    refuse_non_finite,
    sinkhorn_log_probabilities,
)
from .order_search import RankedOrders, best_orders
from .pair_rules import borda_orders, copeland_orders, topological_orders

# --- scores -----------------------------------------------------------------------------------------------------------


def decode_scores(output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1) -> list[list[Decoded]]:
    """Sort the sentences by their scores, lowest first.

    The further orders for ``k`` > 1 are the next best ones by the sum of score differences over all pairs, of which the
    sorted order is the maximum. Confidence is the share of the variance of the positions that the scores span: a
    regression that does not know pulls its scores together.
    """
    return _decode_sorted(output, slot_mask, k, lambda scores, _: _spread(scores, np.arange(scores.shape[1])))


def decode_shares(output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1) -> list[list[Decoded]]:
    """:func:`decode_scores` for scores that stand for a share of the document, 0 to 1; confidence as there."""
    return _decode_sorted(output, slot_mask, k, lambda scores, _: _spread(scores, np.linspace(0, 1, scores.shape[1])))


def decode_strengths(output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1) -> list[list[Decoded]]:
    """:func:`decode_scores` for scores whose differences are log odds (RankNet, ListMLE): i before j with p(s_j - s_i).

    Confidence as :func:`decode_pairs` has it, of these probabilities.
    """
    return _decode_sorted(
        output, slot_mask, k, lambda scores, orders: _expected_tau(expit(_differences(scores)), orders)
    )


def _decode_sorted(
    output: OrderingOutput,
    slot_mask: torch.Tensor,
    k: int,
    confidence: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> list[list[Decoded]]:
    scores = _finite(output.scores, slot_mask)

    def rank(group: _Group) -> tuple[RankedOrders, np.ndarray]:
        part = group.of_slots(scores).astype(np.float64)
        if k == 1:
            orders = np.argsort(part, axis=1, kind="stable")
            n = orders.shape[1]
            total = (np.take_along_axis(part, orders, axis=1) * (2 * np.arange(n) - n + 1)).sum(axis=1)
            ranked = RankedOrders(orders[:, None], total[:, None])
        else:
            ranked = best_orders(_differences(part), k=k)
        return ranked, np.broadcast_to(confidence(part, ranked.orders), ranked.scores.shape)

    return _by_length(slot_mask, rank)


def _differences(scores: np.ndarray) -> np.ndarray:
    """(R, n, n) of scores (R, n): positive where i scores lower."""
    differences: np.ndarray = scores[:, None, :] - scores[:, :, None]
    return differences


def _spread(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(R, 1) the variance of the scores (R, n) as a share of that of the targets (n,), at most 1."""
    if len(targets) == 1:
        return np.ones((len(scores), 1))
    share: np.ndarray = np.minimum(scores.var(axis=1, keepdims=True) / targets.var(), 1.0)
    return share


# --- pairs ------------------------------------------------------------------------------------------------------------


def decode_pairs(output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1) -> list[list[Decoded]]:
    """The order with the highest sum of log probabilities of its pairs, exact up to 14 sentences.

    The score is that sum. Confidence is the share of sentence pairs that the model expects to be in the right order,
    from 0 (every pair is a coin flip) to 1, on the scale of Kendall's tau.
    """
    likelihoods = _pair_likelihoods(output, slot_mask)

    def rank(group: _Group) -> tuple[RankedOrders, np.ndarray]:
        part = group.of_pairs(likelihoods)
        ranked = best_orders(part, k=k)
        return ranked, _expected_tau(np.exp(part), ranked.orders)

    return _by_length(slot_mask, rank)


def decode_pairs_and_neighbours(output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1) -> list[list[Decoded]]:
    """The order with the best pairs and neighbours together, exact up to 14 sentences.

    The score is the sum of the log probabilities of its neighbours, plus the sum of those of its pairs times 2/n: there
    are n/2 pairs to a neighbour, and both relations count alike. Confidence as in :func:`decode_pairs`.
    """
    likelihoods = _pair_likelihoods(output, slot_mask)
    assert output.adjacency_logits is not None
    refuse_non_finite(output.adjacency_logits[_both(slot_mask)])
    neighbours = _array(adjacency_log_probabilities(output.adjacency_logits, slot_mask))

    def rank(group: _Group) -> tuple[RankedOrders, np.ndarray]:
        part = group.of_pairs(likelihoods)
        ranked = best_orders(part * 2 / part.shape[1], adjacency_scores=group.of_pairs(neighbours), k=k)
        return ranked, _expected_tau(np.exp(part), ranked.orders)

    return _by_length(slot_mask, rank)


def _by_rule(rule: Callable[[np.ndarray], np.ndarray], description: str) -> Decoder:
    def decode(output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1) -> list[list[Decoded]]:
        likelihoods = _pair_likelihoods(output, slot_mask)

        def rank(group: _Group) -> tuple[RankedOrders, np.ndarray]:
            part = group.of_pairs(likelihoods)
            orders = rule(part - part.transpose(0, 2, 1))[:, None]  # log p - log (1 - p) is the logit
            in_order = _in_order(part, orders)
            total = np.triu(in_order, 1).sum(axis=(2, 3))
            return RankedOrders(orders, total), _expected_tau(np.exp(part), orders)

        return _by_length(slot_mask, rank)

    decode.__doc__ = f"{description} A rule gives one order whatever ``k`` is; score and confidence as `decode_pairs`."
    return decode


decode_borda = _by_rule(borda_orders, "Sort by the summed probability of standing before each other sentence.")
decode_copeland = _by_rule(copeland_orders, "Sort by the number of sentences that each one more likely precedes.")
decode_topological = _by_rule(
    topological_orders,
    "Depth-first topological sort that drops the edges that close a cycle, as B-TSort does, but without its knowledge "
    "of the gold order (see examples/benchmarks/gold_order_leak.py).",
)


# --- positions --------------------------------------------------------------------------------------------------------


def decode_positions(output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1) -> list[list[Decoded]]:
    """The assignment of sentences to positions with the highest sum of log probabilities (Kuhn, 1955).

    The further orders for ``k`` > 1 are exact up to 14 sentences. Confidence is how much surer than a guess the
    positions were: the mean of ``(p - 1/n) / (1 - 1/n)``.
    """
    return _decode_assignment(output, slot_mask, k, position_log_probabilities)


def decode_soft_permutation(output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1) -> list[list[Decoded]]:
    """:func:`decode_positions` with the probabilities of the soft permutation that the logits scale to."""
    return _decode_assignment(output, slot_mask, k, sinkhorn_log_probabilities)


def _decode_assignment(
    output: OrderingOutput,
    slot_mask: torch.Tensor,
    k: int,
    log_probabilities: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> list[list[Decoded]]:
    assert output.position_logits is not None
    refuse_non_finite(output.position_logits[_both(slot_mask)])
    likelihoods = _array(log_probabilities(output.position_logits, slot_mask))

    def rank(group: _Group) -> tuple[RankedOrders, np.ndarray]:
        part = group.of_positions(likelihoods)
        documents, n = part.shape[:2]
        if k == 1:
            # Rows are positions: the columns found are the slots in order.
            orders = np.stack([linear_sum_assignment(matrix.T, maximize=True)[1] for matrix in part])[:, None]
            ranked = RankedOrders(orders, np.zeros((documents, 1)))
        else:
            ranked = best_orders(position_scores=part, k=k)
        chosen = part[np.arange(documents)[:, None, None], ranked.orders, np.arange(n)]
        surplus = (np.exp(chosen).mean(axis=-1) - 1 / n) / (1 - 1 / n) if n > 1 else np.ones(ranked.scores.shape)
        return ranked._replace(scores=np.where(np.isfinite(ranked.scores), chosen.sum(axis=-1), -np.inf)), surplus

    return _by_length(slot_mask, rank)


# --- without training: the floors -------------------------------------------------------------------------------------


def decode_as_shuffled(output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1) -> list[list[Decoded]]:
    """The sentences as they come in, which is at random here: what a model has to beat. Confidence is 0."""
    return [[Decoded(list(range(n)), 0.0, 0.0)] for n in slot_mask.sum(dim=1).tolist()]


def decode_at_random(output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1) -> list[list[Decoded]]:
    """A random order, the same for the same batch. Confidence is 0."""

    def rank(group: _Group) -> tuple[RankedOrders, np.ndarray]:
        documents, n = group.labels.shape  # the slots have been numbered at random already
        return RankedOrders(np.tile(np.arange(n), (documents, 1, 1)), np.zeros((documents, 1))), np.zeros(
            (documents, 1)
        )

    return _by_length(slot_mask, rank)


def decode_similarity(output: OrderingOutput, slot_mask: torch.Tensor, *, k: int = 1) -> list[list[Decoded]]:
    """The order in which neighbours are most alike: the highest sum of their cosines, exact up to 14 sentences.

    The brute-force search of Golestani et al., "Using BERT Encoding and Sentence-Level Language Model for Sentence
    Ordering" (2021), on the states as they are. An order and its reverse are equally good: which one comes out is
    chance. Confidence is 0.
    """
    assert output.slot_states is not None
    refuse_non_finite(output.slot_states[slot_mask])
    states = torch.nn.functional.normalize(output.slot_states.float(), dim=-1)
    cosines = _array(torch.bmm(states, states.transpose(1, 2)))

    def rank(group: _Group) -> tuple[RankedOrders, np.ndarray]:
        ranked = best_orders(adjacency_scores=group.of_pairs(cosines), k=k)
        return ranked, np.zeros(ranked.scores.shape)

    return _by_length(slot_mask, rank)


# --- the parts --------------------------------------------------------------------------------------------------------


class _Group(NamedTuple):
    """The documents of a batch that have n sentences, with their slots numbered anew."""

    rows: np.ndarray
    """(R,) which documents."""
    labels: np.ndarray
    """(R, n) the slot of the batch that each new number stands for."""

    def of_slots(self, values: np.ndarray) -> np.ndarray:
        """(R, n) of values (B, N)."""
        found: np.ndarray = values[self.rows[:, None], self.labels]
        return found

    def of_pairs(self, values: np.ndarray) -> np.ndarray:
        """(R, n, n) of values (B, N, N) with slots in both directions."""
        found: np.ndarray = values[self.rows[:, None, None], self.labels[:, :, None], self.labels[:, None, :]]
        return found

    def of_positions(self, values: np.ndarray) -> np.ndarray:
        """(R, n, n) of values (B, N, N) with slots and positions."""
        found: np.ndarray = values[self.rows[:, None, None], self.labels[:, :, None], np.arange(self.labels.shape[1])]
        return found


def _by_length(
    slot_mask: torch.Tensor, rank: Callable[[_Group], tuple[RankedOrders, np.ndarray]]
) -> list[list[Decoded]]:
    """Decode the documents of each length together, and put the results back in the order of the batch."""
    random = np.random.default_rng(0)
    counts = slot_mask.sum(dim=1).cpu().numpy()
    results: list[list[Decoded]] = [[] for _ in counts]
    for n in np.unique(counts):
        if n == 0:
            continue
        rows = np.flatnonzero(counts == n)
        group = _Group(rows, random.permuted(np.tile(np.arange(n), (len(rows), 1)), axis=1))
        (orders, scores), confidences = rank(group)
        found = np.take_along_axis(np.broadcast_to(group.labels[:, None], orders.shape), orders, axis=2).tolist()
        certain = np.clip(confidences, 0.0, 1.0).tolist()
        for row, *ranking in zip(rows.tolist(), found, scores.tolist(), certain, strict=True):
            results[row] = [
                Decoded(order, score, confidence)
                for order, score, confidence in zip(*ranking, strict=True)
                if score > -np.inf
            ]
    return results


def _array(values: torch.Tensor) -> np.ndarray:
    found: np.ndarray = values.detach().double().cpu().numpy()
    return found


def _both(slot_mask: torch.Tensor) -> torch.Tensor:
    return slot_mask[:, :, None] & slot_mask[:, None, :]


def _finite(values: torch.Tensor | None, mask: torch.Tensor) -> np.ndarray:
    """The values on the CPU; those outside of the mask play no part."""
    assert values is not None
    refuse_non_finite(values[mask])
    return _array(values)


def _pair_likelihoods(output: OrderingOutput, slot_mask: torch.Tensor) -> np.ndarray:
    """(B, N, N) log p(i before j)."""
    assert output.pair_logits is not None
    refuse_non_finite(output.pair_logits[_both(slot_mask)])
    return _array(pair_log_probabilities(output.pair_logits.double()))


def _in_order(pairs: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """(R, K, n, n): the pair matrices (R, n, n) with rows and columns put into each of the orders (R, K, n)."""
    documents = np.arange(len(pairs))[:, None, None, None]
    found: np.ndarray = pairs[documents, orders[..., :, None], orders[..., None, :]]
    return found


def _expected_tau(probabilities: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """(R, K) the tau that each of the orders (R, K, n) has on average if p(i before j) (R, n, n) is right."""
    n = orders.shape[-1]
    if n == 1:
        return np.ones(orders.shape[:2])
    mean: np.ndarray = _in_order(probabilities, orders)[..., np.triu(np.ones((n, n), dtype=bool), 1)].mean(axis=-1)
    return 2 * mean - 1
