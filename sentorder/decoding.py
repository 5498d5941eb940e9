"""From a model's output to an order of the slots: always a permutation, never with a look at gold positions.

The slots are in an order that has nothing to do with the text (see ``data/collation.py``), so a tie may fall to the
lower slot without leaking anything.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from .contracts import Decoded, OrderingOutput

EXACT_SENTENCES = 14
"""Up to here pair decoding is exact: 2^14 subsets; beyond, local search."""
TABLE_FLOATS = 2**23
"""The most numbers that one table of the subset search may hold (64 MiB): more documents are decoded in parts."""


class RankedOrders(NamedTuple):
    """Orders of several documents of n sentences, best first."""

    orders: np.ndarray
    """(B, K, n) slots in order."""
    scores: np.ndarray
    """(B, K) what was maximised; -inf where a document has fewer than K orders."""


# --- decoders -------------------------------------------------------------------------------------------------------


def decode_scores(output: OrderingOutput, slot_mask: torch.Tensor, k: int = 1) -> list[list[Decoded]]:
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
            ranked = best_orders(part[:, None, :] - part[:, :, None], k)
        return ranked, np.broadcast_to(np.clip(spread, 0.0, 1.0)[:, None], ranked.scores.shape)

    return _by_length(slot_mask, rank)


def decode_pairs(output: OrderingOutput, slot_mask: torch.Tensor, k: int = 1) -> list[list[Decoded]]:
    """The order with the highest sum of log probabilities of its pairs, exact up to 14 sentences.

    The score is that sum. Confidence is the share of sentence pairs that the model expects to be in the right order,
    from 0 (every pair is a coin flip) to 1, on the scale of Kendall's tau.
    """
    logits = _finite(output.pair_logits, slot_mask[:, :, None] & slot_mask[:, None, :])

    def rank(rows: np.ndarray, n: int) -> tuple[RankedOrders, np.ndarray]:
        part = logits[rows, :n, :n].astype(np.float64)
        # log p(i before j) = logsigmoid(x_ij), and logsigmoid(x) - logsigmoid(-x) = x: the logits alone decide.
        log_likelihood = -np.logaddexp(0.0, -part)
        ranked = best_orders(log_likelihood, k)
        probabilities = np.exp(log_likelihood)
        chosen = probabilities[np.arange(len(rows))[:, None, None, None], *_pairs_of(ranked.orders)]
        upper = np.triu(np.ones((n, n), dtype=bool), 1)
        expected = 2 * chosen[..., upper].mean(axis=-1) - 1 if n > 1 else np.ones(ranked.scores.shape)
        return ranked, np.clip(expected, 0.0, 1.0)

    return _by_length(slot_mask, rank)


def _finite(values: torch.Tensor | None, mask: torch.Tensor) -> np.ndarray:
    """The values on the CPU; those outside of the mask play no part."""
    assert values is not None
    if not torch.isfinite(values[mask]).all():
        raise FloatingPointError(
            "The model's output is infinite or not a number, so it has no order: its weights are spoilt. Train with a "
            "lower learning rate."
        )
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


# --- the best orders of a pair matrix -------------------------------------------------------------------------------


def best_orders(pair_scores: np.ndarray, k: int = 1) -> RankedOrders:
    """The k orders with the highest sum of ``pair_scores[i, j]`` over all pairs in which i comes before j.

    Exact up to ``EXACT_SENTENCES`` by dynamic programming over subsets (Held and Karp, 1962; for the linear ordering
    problem); beyond that by :func:`search_orders`.

    Args:
        pair_scores: (B, n, n); the diagonal plays no part.
        k: how many orders, at least 1.

    Returns:
        At most min(k, n!) orders per document.
    """
    pair_scores = np.asarray(pair_scores, dtype=np.float64)
    documents, n = pair_scores.shape[:2]
    if n > EXACT_SENTENCES:
        return search_orders(pair_scores, k)
    chunk = max(1, TABLE_FLOATS // (2**n * max(n, k)))
    parts = [_exact_orders(pair_scores[start : start + chunk], k) for start in range(0, documents, chunk)]
    return RankedOrders(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@lru_cache(maxsize=EXACT_SENTENCES + 1)
def _layers(n: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each size 1..n: the subsets of that size (S,), their members (S, size), and the subsets without each."""
    subsets = np.arange(1, 2**n)
    member = (subsets[:, None] >> np.arange(n)) & 1
    sizes = member.sum(axis=1)
    layers = []
    for size in range(1, n + 1):
        of_size = subsets[sizes == size]
        members = np.nonzero(member[sizes == size])[1].reshape(len(of_size), size)
        layers.append((of_size, members, of_size[:, None] ^ (1 << members)))
    return layers


def _exact_orders(pair_scores: np.ndarray, k: int) -> RankedOrders:
    documents, n = pair_scores.shape[:2]
    # gain[:, j, S]: what placing j behind the set S earns, the sum of pair_scores[i, j] over i in S.
    gain = np.zeros((documents, n, 2**n))
    for i in range(n):
        gain[:, :, 2**i : 2 ** (i + 1)] = gain[:, :, : 2**i] + pair_scores[:, i, :, None]
    # best[:, S, r]: the r-th best sum over orders of the set S; last and rank say how it was reached.
    best = np.full((documents, 2**n, k), -np.inf)
    best[:, 0, 0] = 0.0
    last = np.zeros((documents, 2**n, k), dtype=np.int8)
    rank = np.zeros((documents, 2**n, k), dtype=np.int32)
    for subsets, members, without in _layers(n):
        candidates = best[:, without] + gain[:, members, without][..., None]  # (documents, subsets, members, k)
        candidates = candidates.reshape(documents, len(subsets), -1)
        if k == 1:
            choice = candidates.argmax(axis=2)[..., None]
        else:
            choice = np.argsort(-candidates, axis=2, kind="stable")[..., :k]
        width = choice.shape[2]
        best[:, subsets, :width] = np.take_along_axis(candidates, choice, axis=2)
        last[:, subsets, :width] = members[np.arange(len(subsets))[None, :, None], choice // k]
        rank[:, subsets, :width] = choice % k
    # Walk back from the full set.
    everything = 2**n - 1
    row = np.arange(documents)[:, None]
    subset = np.full((documents, k), everything)
    place = np.broadcast_to(np.arange(k), (documents, k))
    orders = np.zeros((documents, k, n), dtype=np.int64)
    for position in range(n - 1, -1, -1):
        chosen = last[row, subset, place].astype(np.int64)
        orders[:, :, position] = chosen
        subset, place = subset ^ (1 << chosen), rank[row, subset, place]
    return RankedOrders(orders, best[:, everything])


def search_orders(pair_scores: np.ndarray, k: int = 1) -> RankedOrders:
    """A good order of many sentences: Borda's order, then the best insertion until none helps.

    An insertion takes one sentence out and puts it back elsewhere; a round of trying all of them is O(n^2). The further
    orders for ``k`` > 1 are the best ones that are one insertion away from the result.

    Args:
        pair_scores: (B, n, n), any n.
        k: how many orders, at least 1.
    """
    pair_scores = np.asarray(pair_scores, dtype=np.float64)
    found = [_search_one(matrix, k) for matrix in pair_scores]
    width = max(len(scores) for _, scores in found)
    orders = np.stack([np.concatenate([o, np.repeat(o[:1], width - len(o), axis=0)]) for o, _ in found])
    scores = np.stack([np.concatenate([s, np.full(width - len(s), -np.inf)]) for _, s in found])
    return RankedOrders(orders, scores)


def _search_one(pair_scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    n = len(pair_scores)
    excess = pair_scores - pair_scores.T
    order = np.argsort(-excess.sum(axis=1), kind="stable")
    while True:
        changes = _insertion_changes(excess[np.ix_(order, order)])
        source, target = divmod(int(changes.argmax()), n)
        if changes[source, target] <= 1e-9:
            break
        order = _moved(order, source, target)
    total = pair_scores[np.ix_(order, order)][np.triu_indices(n, 1)].sum()
    orders, scores = [order], [total]
    seen = {order.tobytes()}
    for flat in np.argsort(-changes, axis=None, kind="stable"):
        if len(orders) == k:
            break
        source, target = divmod(int(flat), n)
        neighbour = _moved(order, source, target)
        if neighbour.tobytes() not in seen:
            seen.add(neighbour.tobytes())
            orders.append(neighbour)
            scores.append(total + changes[source, target])
    return np.stack(orders), np.asarray(scores)


def _insertion_changes(excess: np.ndarray) -> np.ndarray:
    """(n, n) the change of the sum when the sentence at place s moves to place t; excess is in the present order."""
    n = len(excess)
    # Moving s back past a sentence j in between earns excess[j, s]; moving it forward past j earns excess[s, j].
    past = np.cumsum(np.pad(excess, ((0, 0), (1, 0))), axis=1)  # past[s, t] = sum of excess[s, :t]
    places = np.arange(n)
    backward = -(past[:, 1:] - past[places, places + 1][:, None])  # t > s: minus the sum over s < j <= t
    forward = past[places, places][:, None] - past[:, :-1]  # t < s: the sum over t <= j < s
    changes: np.ndarray = np.where(places[None, :] > places[:, None], backward, forward)
    np.fill_diagonal(changes, 0.0)
    return changes


def _moved(order: np.ndarray, source: int, target: int) -> np.ndarray:
    rest = np.delete(order, source)
    return np.insert(rest, target, order[source])
