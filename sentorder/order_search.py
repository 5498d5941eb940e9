"""The best orders by scores of pairs, positions and neighbours: exact for as many sentences as most documents have.

What is maximised is a sum of up to three terms, over the places of an order:

* ``pair_scores[i, j]`` for all i somewhere before j: the linear ordering problem, Kemeny's rule for votes,
* ``position_scores[i, p]`` for i at place p, counted from 0: the assignment problem,
* ``adjacency_scores[i, j]`` for j right behind i: the travelling salesman's path.

Up to ``EXACT_SENTENCES`` this is dynamic programming over subsets (Held and Karp, "A dynamic programming approach to
sequencing problems", 1962). What is known about a set of sentences that come first is the best sum over their orders;
with an adjacency term, the best sum for each sentence that may be the last of them. Beyond that, see
:mod:`sentorder.local_search`.

The tables have the documents behind the subsets, so that each step of numpy is a long one, for many short documents as
for one long one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .local_search import search_orders

EXACT_SENTENCES = 14
"""Up to here the orders are exact: 2^14 subsets; beyond, local search."""
TABLE_FLOATS = 2**20
"""About the most numbers in the tables of one search (8 MiB): more documents are decoded in parts, which costs nothing,
because small tables stay in the caches of the processor."""


class RankedOrders(NamedTuple):
    """Orders of several documents of n sentences, best first."""

    orders: np.ndarray
    """(B, K, n) slots in order."""
    scores: np.ndarray
    """(B, K) what was maximised; -inf where a document has fewer than K orders (there the best one stands again)."""


def best_orders(
    pair_scores: np.ndarray | None = None,
    *,
    position_scores: np.ndarray | None = None,
    adjacency_scores: np.ndarray | None = None,
    k: int = 1,
) -> RankedOrders:
    """The k orders with the highest sum of the terms that are given.

    Exact, and distinct, up to ``EXACT_SENTENCES``; beyond that found by :func:`sentorder.local_search.search_orders`.
    Between orders of the same sum the choice falls by slot number, so slots must not be numbered by what is looked for.

    Args:
        pair_scores: (B, n, n), of row before column, near or far; the diagonal plays no part.
        position_scores: (B, n, n), of slot (row) at place (column).
        adjacency_scores: (B, n, n), of column right behind row; the diagonal plays no part.
        k: how many orders, at least 1.

    Returns:
        k orders per document; beyond ``EXACT_SENTENCES`` some may be missing, as where there are only n! < k.

    Raises:
        ValueError: if no term is given, their shapes are not one (B, n, n), a number is not finite, or k < 1.
    """
    pairs = _checked(pair_scores, "pair_scores", diagonal=False)
    positions = _checked(position_scores, "position_scores", diagonal=True)
    adjacency = _checked(adjacency_scores, "adjacency_scores", diagonal=False)
    shapes = {term.shape for term in (pairs, positions, adjacency) if term is not None}
    if len(shapes) != 1:
        raise ValueError(f"give at least one term, and all of one shape; got the shapes {sorted(shapes)}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    ((documents, n, _),) = shapes
    if not documents:
        return RankedOrders(np.zeros((0, k, n), dtype=np.int64), np.zeros((0, k)))
    if n > EXACT_SENTENCES:
        return _padded(*search_orders(pairs, position_scores=positions, adjacency_scores=adjacency, k=k), k)

    states = k if adjacency is None else n * k
    floats = 2**n * (n + states) + n * k * min(k, 2**n)  # the tables, and the walk back
    part = max(1, TABLE_FLOATS // max(1, floats))
    found = []
    for start in range(0, documents, part):
        terms = [
            None if term is None else np.ascontiguousarray(term[start : start + part].transpose(1, 2, 0))
            for term in (pairs, positions, adjacency)
        ]
        found.append(_exact_orders(*terms, k=min(k, math.factorial(n))))
    orders, scores = (np.concatenate(column) for column in zip(*found, strict=True))
    return _padded(orders, scores, k)


def _checked(scores: np.ndarray | None, name: str, *, diagonal: bool) -> np.ndarray | None:
    """A copy (B, n, n) in double precision, without what plays no part."""
    if scores is None:
        return None
    checked = np.array(scores, dtype=np.float64)
    if checked.ndim != 3 or checked.shape[1] != checked.shape[2]:
        raise ValueError(f"{name} must be (B, n, n), got {checked.shape}")
    if not diagonal:
        slots = np.arange(checked.shape[1])
        checked[:, slots, slots] = 0.0
    if not np.isfinite(checked).all():
        raise ValueError(f"{name} must be finite")
    return checked


def _padded(orders: np.ndarray, scores: np.ndarray, k: int) -> RankedOrders:
    """K orders up to k."""
    missing = k - orders.shape[1]
    if not missing:
        return RankedOrders(orders, scores)
    again = np.repeat(orders[:, :1], missing, axis=1)
    nothing = np.full((len(scores), missing), -np.inf)
    return RankedOrders(np.concatenate([orders, again], axis=1), np.concatenate([scores, nothing], axis=1))


# --- the tables ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=EXACT_SENTENCES + 1)
def _layers(n: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each size 1..n: the subsets of that size (S,), their members (size, S), and the subsets without each."""
    subsets = np.arange(1, 2**n)
    member = (subsets[:, None] >> np.arange(n)) & 1
    sizes = member.sum(axis=1)
    layers = []
    for size in range(1, n + 1):
        of_size = subsets[sizes == size]
        members = np.ascontiguousarray(np.nonzero(member[sizes == size])[1].reshape(len(of_size), size).T)
        layers.append((of_size, members, of_size ^ (1 << members)))
    return layers


def _parts(n: int, floats: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The layers, cut so that a table with so many floats per subset and member is of bounded size."""
    for layer in _layers(n):
        part = max(1, TABLE_FLOATS // (len(layer[1]) * floats))
        for start in range(0, len(layer[0]), part):
            subsets, members, without = (column[..., start : start + part] for column in layer)
            yield subsets, members, without


def _exact_orders(
    pairs: np.ndarray | None, positions: np.ndarray | None, adjacency: np.ndarray | None, *, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k <= n! best orders (B, k, n) and their sums (B, k), of terms (n, n, B)."""
    n, _, documents = next(term.shape for term in (pairs, positions, adjacency) if term is not None)
    gain = _gains(pairs, positions, n, documents)
    if adjacency is None:
        return _walk_back(_best_of_sets(gain, k), gain, None)
    return _walk_back(_best_of_ends(gain, adjacency, k), gain, adjacency)


def _gains(pairs: np.ndarray | None, positions: np.ndarray | None, n: int, documents: int) -> np.ndarray:
    """(n, 2^n, B) at [j, S]: what placing j behind the set S earns, but for the adjacency.

    That is the sum of pairs[i, j] over i in S, and positions[j, |S|]. Entries with j in S mean nothing.
    """
    gain = np.zeros((n, 2**n, documents))
    if pairs is not None:
        for i in range(n):
            np.add(gain[:, : 2**i], pairs[i, :, None], out=gain[:, 2**i : 2 ** (i + 1)])
    if positions is not None and n:
        for subsets, _, _ in _layers(n)[:-1]:
            size = int(subsets[0]).bit_count()
            gain[:, subsets] += positions[:, size, None]
        gain[:, 0] += positions[:, 0]
    return gain


def _best_of_sets(gain: np.ndarray, k: int) -> np.ndarray:
    """(2^n, B, k) at [S]: the k highest sums over orders of the set S."""
    n, subsets_in_all, documents = gain.shape
    flat_gain = gain.reshape(n * subsets_in_all, documents)
    best = np.full((subsets_in_all, documents, k), -np.inf)
    best[0, :, 0] = 0.0
    for subsets, members, without in _parts(n, documents * k):
        candidates = best.take(without, axis=0)  # (size, S, B, k): for each member that may be the last
        candidates += flat_gain.take(members * subsets_in_all + without, axis=0)[..., None]
        best[subsets] = _highest(candidates, k)
    return best


def _best_of_ends(gain: np.ndarray, adjacency: np.ndarray, k: int) -> np.ndarray:
    """(n, 2^n, B, k) at [j, S]: the k highest sums over orders of the set S that end with j; -inf if j is not in S."""
    n, subsets_in_all, documents = gain.shape
    best = np.full((n, subsets_in_all, documents, k), -np.inf)
    slots = np.arange(n)
    best[slots, 1 << slots, :, 0] = gain[:, 0]
    for subsets, members, without in _parts(n, n * documents * k):
        if len(members) == 1:
            continue
        candidates = best.take(without, axis=1)  # (n, size, S, B, k): for each i that may stand before the member
        candidates += adjacency.take(members, axis=1)[..., None]
        best[members, subsets] = _highest(candidates, k) + gain[members, without][..., None]
    return best


def _highest(candidates: np.ndarray, k: int) -> np.ndarray:
    """(..., k) the k highest of (m, ..., k), falling."""
    if k == 1:
        highest: np.ndarray = candidates.max(axis=0)
        return highest
    together = np.moveaxis(candidates, 0, -2).reshape(*candidates.shape[1:-1], -1)
    return -np.sort(-together, axis=-1)[..., :k]


# --- from the tables to the orders -----------------------------------------------------------------------------------


def _walk_back(best: np.ndarray, gain: np.ndarray, adjacency: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The orders (B, k, n) and their sums (B, k), from the last sentence to the first.

    The tables hold no way back: at each place the candidates of the one set that is left are computed once more, in the
    same arithmetic, and the one of the rank that is sought is followed. Candidates are sorted stably, so two ranks of
    a set never follow the same one, and the orders are distinct.
    """
    n, subsets_in_all, documents = gain.shape
    k, slots = best.shape[-1], np.arange(n)
    # One path per document and rank, (B k,): the set that is left, the rank sought there, and the sentence behind it.
    row, rank = np.repeat(np.arange(documents), k), np.tile(np.arange(k), documents)
    subset, following = np.full(documents * k, subsets_in_all - 1), np.zeros(documents * k, dtype=np.int64)
    orders, scores = np.zeros((documents * k, n), dtype=np.int64), np.zeros(documents * k)
    for place in range(n - 1, -1, -1):
        at = (row, subset, following)
        path = np.arange(len(row))
        if k > 1:  # many paths of a document come through the same set: sort its candidates once
            key = (row * subsets_in_all + subset) * n + (0 if adjacency is None else following)
            _, first, path = np.unique(key, return_index=True, return_inverse=True)
            at = (row[first], subset[first], following[first])
        document, left, behind = (column[:, None] for column in at)
        # candidates (paths, n, k): the sums of the orders of the set that end with each slot
        if adjacency is None:
            others = left ^ (1 << slots)
            candidates = best[others, document] + gain[slots, others, document][..., None]
            candidates[others > left] = -np.inf  # not a member
        else:
            candidates = best[slots, left, document]
            if place < n - 1:
                candidates += adjacency[slots, behind, document][..., None]
        candidates = candidates.reshape(len(candidates), n * k)
        choice = candidates.argmax(axis=1) if k == 1 else np.argsort(-candidates, axis=1, kind="stable")[path, rank]
        if place == n - 1:
            scores = candidates[path, choice]
        following, rank = np.divmod(choice, k)
        orders[:, place] = following
        subset = subset ^ (1 << following)
    return orders.reshape(documents, k, n), scores.reshape(documents, k)
