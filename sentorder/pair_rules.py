"""Simple rules from pair logits to orders, to compare the exact search with; none of them maximises anything.

Each rule takes (B, n, n) logits, antisymmetric, positive where the row comes before the column, and gives (B, n) slots
in order. Ties fall by slot number: number the slots by chance, or what they are numbered by leaks into the order.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit


def borda_orders(pair_logits: np.ndarray) -> np.ndarray:
    """Sort by the sum of p(i before j) over all j, highest first (Borda, 1781, with probabilities for votes).

    Args:
        pair_logits: (B, n, n) antisymmetric; the diagonal plays no part.

    Returns:
        (B, n) slots in order.
    """
    return _sorted_by(_off_diagonal(expit(pair_logits)))


def copeland_orders(pair_logits: np.ndarray) -> np.ndarray:
    """Sort by the number of pairs won, highest first; an even pair is half a win (Copeland, 1951).

    Args:
        pair_logits: (B, n, n) antisymmetric; the diagonal plays no part.

    Returns:
        (B, n) slots in order.
    """
    return _sorted_by(_off_diagonal((np.sign(pair_logits) + 1) / 2))


def topological_orders(pair_logits: np.ndarray) -> np.ndarray:
    """The procedure of B-TSort (Prabhumoye, Salakhutdinov and Black, "Topological Sort for Sentence Ordering", 2020).

    Each pair gives an edge to the sentence that more probably comes later. Vertices are visited depth-first, starting
    from 0..n-1 in turn and going along edges to lower numbers first; the first edge met that leads back to a vertex
    still open closes a cycle and is deleted; this is repeated until there is no cycle, and what is left is sorted
    topologically, by a depth-first search of the same kind.

    The visits are in the order of the slot numbers, so cycles are broken in favour of low numbers first. That is
    harmless only where slots are numbered by chance. The published evaluation numbers them by their gold positions,
    which lets coin flips reach a tau of 0.38 on five sentences (``examples/benchmarks/gold_order_leak.py``).

    A deleted edge leads to a vertex that was visited, so the next search visits the same vertices in the same order,
    and in the end all the edges that lead back are deleted and nothing else is changed: one search is enough, which
    skips what was visited, and its vertices in the reverse order of their completion are the result.

    Args:
        pair_logits: (B, n, n) antisymmetric; an even pair has no edge.

    Returns:
        (B, n) slots in order.
    """
    pair_logits = np.asarray(pair_logits)
    documents, n, _ = pair_logits.shape
    row, slots = np.arange(documents), np.arange(n)
    edge = pair_logits > 0
    edge[:, slots, slots] = False
    # One search for all documents in step: each step opens or completes one vertex of each document. Below the open
    # vertices lies number n, with edges to all: where the search starts anew.
    edge = np.concatenate([edge, np.ones((documents, 1, n), dtype=bool)], axis=1)
    fresh = np.ones((documents, n), dtype=bool)
    stack = np.full((documents, n + 1), n)
    depth = np.zeros(documents, dtype=np.int64)
    free = np.full(documents, n)  # places of the order that are still free: it is filled from its end
    orders = np.zeros((documents, n), dtype=np.int64)
    for _ in range(2 * n):
        vertex = stack[row, depth]
        onward = edge[row, vertex] & fresh
        opens = onward.any(axis=1)
        entered = onward.argmax(axis=1)
        depth[opens] += 1
        stack[row[opens], depth[opens]] = entered[opens]
        fresh[row[opens], entered[opens]] = False
        free[~opens] -= 1
        orders[row[~opens], free[~opens]] = vertex[~opens]
        depth[~opens] -= 1
    return orders


def _off_diagonal(values: np.ndarray) -> np.ndarray:
    return np.where(np.eye(values.shape[-1], dtype=bool), 0.0, values)


def _sorted_by(values: np.ndarray) -> np.ndarray:
    """(B, n) the rows of (B, n, n) by their sums, highest first."""
    orders: np.ndarray = np.argsort(-values.sum(axis=2), axis=1, kind="stable")
    return orders
