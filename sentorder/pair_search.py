"""The best orders of a pair matrix: exact for as many sentences as most documents have, a local search beyond."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

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
