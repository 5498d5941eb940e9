"""Good orders of many sentences: beam search over prefixes, then insertions until none helps.

For documents that are too long for the exact search of :mod:`sentorder.order_search`, with the same three terms. Beam
search (Lowerre, "The Harpy speech recognition system", 1976) grows orders from their beginning; the insertion
neighbourhood is better than swaps for the linear ordering problem (Laguna, Martí and Campos, "Intensification and
diversification with elite tabu search solutions for the linear ordering problem", 1999).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BEAMS = 16
"""Prefixes of each document that the beam search keeps."""
TABLE_FLOATS = 2**18
"""About the most numbers that one table (B, n, n) may hold (2 MiB): more documents are searched in parts."""
NO_GAIN = 1e-9
"""A change smaller than this share of the largest number is taken for round-off."""


class _Terms(NamedTuple):
    """The terms of several documents, without what every order earns."""

    documents: int
    n: int
    pairs: np.ndarray | None
    """(B, n, n) antisymmetric: what i before j earns more than the mean of both directions."""
    positions: np.ndarray | None
    """(B, n, n) with rows and columns of mean 0; with what the ends of an order lack of the means of the adjacency."""
    adjacency: np.ndarray | None
    """(B, n, n) with rows and columns of about mean 0, and a diagonal of 0."""
    constant: np.ndarray
    """(B,) what every order earns."""
    tolerance: np.ndarray
    """(B,) the smallest change that counts."""


def search_orders(
    pair_scores: np.ndarray | None = None,
    *,
    position_scores: np.ndarray | None = None,
    adjacency_scores: np.ndarray | None = None,
    k: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Orders that no insertion of one sentence elsewhere improves, and the best ones next to them.

    The best orders of two beam searches, from the beginning and from the end, and of pairs Borda's order are improved
    by insertions until none helps; the best result is kept. None of the starts is idle: on 30 sentences with random
    pair scores, leaving out Borda's or the second beam costs 0.3 to 0.5 % of the sum. The further orders for ``k`` > 1
    are the best ones that are one insertion away from the result.

    Args:
        pair_scores: (B, n, n) finite numbers of at least one document, as for
            :func:`sentorder.order_search.best_orders`, or None.
        position_scores: the same.
        adjacency_scores: the same.
        k: how many orders, at least 1.

    Returns:
        The orders (B, K, n) and their sums (B, K), falling, of the K = min(k, 1 + (n - 1)^2) orders that there are.
    """
    documents, n, _ = next(t.shape for t in (pair_scores, position_scores, adjacency_scores) if t is not None)
    part = max(1, TABLE_FLOATS // (n * n))
    found = []
    for start in range(0, documents, part):
        terms = [
            None if term is None else term[start : start + part]
            for term in (pair_scores, position_scores, adjacency_scores)
        ]
        found.append(_search(_centred(*terms), k))
    orders, scores = (np.concatenate(column) for column in zip(*found, strict=True))
    return orders, scores


def _centred(pairs: np.ndarray | None, positions: np.ndarray | None, adjacency: np.ndarray | None) -> _Terms:
    """Take out what every order earns: a beam compares prefixes of different sentences, and it would mislead there."""
    documents, n, _ = next(term.shape for term in (pairs, positions, adjacency) if term is not None)
    constant = np.zeros(documents)
    if pairs is not None:
        # Each pair is decided one way or the other.
        constant += np.triu(pairs + pairs.transpose(0, 2, 1), 1).sum(axis=(1, 2)) / 2
        pairs = (pairs - pairs.transpose(0, 2, 1)) / 2
    if adjacency is not None:
        # Every slot but the last has one behind it, and every slot but the first one before it.
        distinct, others = ~np.eye(n, dtype=bool), max(1, n - 1)
        before = (adjacency * distinct).sum(axis=2, keepdims=True) / others
        behind = ((adjacency - before) * distinct).sum(axis=1, keepdims=True) / others
        constant += before.sum(axis=(1, 2)) + behind.sum(axis=(1, 2))
        adjacency = (adjacency - before - behind) * distinct
        positions = np.zeros((documents, n, n)) if positions is None else positions.copy()
        positions[:, :, -1] -= before[:, :, 0]
        positions[:, :, 0] -= behind[:, 0]
    if positions is not None:
        # Every slot has one place, and every place one slot.
        by_slot = positions.mean(axis=2, keepdims=True)
        by_place = (positions - by_slot).mean(axis=1, keepdims=True)
        constant += by_slot.sum(axis=(1, 2)) + by_place.sum(axis=(1, 2))
        positions = positions - by_slot - by_place
    given = [term for term in (pairs, positions, adjacency) if term is not None]
    tolerance = NO_GAIN * np.max([np.abs(term).max(axis=(1, 2)) for term in given], axis=0)
    return _Terms(documents, n, pairs, positions, adjacency, constant, tolerance)


def _reversed(terms: _Terms) -> _Terms:
    """The terms by which an order read from its end earns the same."""
    return terms._replace(
        pairs=None if terms.pairs is None else -terms.pairs,
        positions=None if terms.positions is None else terms.positions[:, :, ::-1],
        adjacency=None if terms.adjacency is None else terms.adjacency.transpose(0, 2, 1),
    )


def _search(terms: _Terms, k: int) -> tuple[np.ndarray, np.ndarray]:
    starts = [_beam_orders(terms), _beam_orders(_reversed(terms))[:, ::-1]]
    if terms.pairs is not None:
        starts.append(np.argsort(-terms.pairs.sum(axis=2), axis=1, kind="stable"))  # Borda
    results = [_improved(terms, order) for order in starts]
    sums = np.stack([_sums(terms, order) for order in results])
    row = np.arange(terms.documents)
    order, best = np.stack(results)[sums.argmax(axis=0), row], sums.max(axis=0)
    if k == 1:
        return order[:, None], (best + terms.constant)[:, None]
    n = terms.n
    changes = np.stack([_insertion_changes(terms, order, row, np.full_like(row, place)) for place in range(n)], axis=1)
    np.minimum(changes, 0.0, out=changes)  # what is above is round-off
    places = np.arange(n)
    changes[:, places, places] = -np.inf  # the order itself
    changes[:, places[1:], places[:-1]] = -np.inf  # neighbours that swap: the same as the other one moving forward
    flat = changes.reshape(len(row), n * n)
    choice = np.argsort(-flat, axis=1, kind="stable")[:, : min(k - 1, (n - 1) ** 2)]
    source, target = np.divmod(choice, n)
    wide = choice.shape[1]
    further = _moved(np.repeat(order, wide, axis=0), source.ravel(), target.ravel()).reshape(len(order), wide, n)
    orders = np.concatenate([order[:, None], further], axis=1)
    scores = np.concatenate([best[:, None], best[:, None] + np.take_along_axis(flat, choice, axis=1)], axis=1)
    return orders, scores + terms.constant[:, None]


def _sums(terms: _Terms, order: np.ndarray) -> np.ndarray:
    """(B,) what the orders (B, n) earn, on top of the constant."""
    row, n = np.arange(len(order))[:, None], terms.n
    total = np.zeros(len(order))
    if terms.pairs is not None:
        total += np.triu(terms.pairs[row[:, :, None], order[:, :, None], order[:, None, :]], 1).sum(axis=(1, 2))
    if terms.positions is not None:
        total += terms.positions[row, order, np.arange(n)].sum(axis=1)
    if terms.adjacency is not None:
        total += terms.adjacency[row, order[:, :-1], order[:, 1:]].sum(axis=1)
    return total


# --- beam search -----------------------------------------------------------------------------------------------------


def _beam_orders(terms: _Terms) -> np.ndarray:
    """(B, n) the best complete order of the beam.

    A prefix is valued by what is certain: all pairs with at least one sentence in it, its positions and its neighbours.
    Of two prefixes of the same sentences, with the same last one if there is an adjacency term, only the better is
    kept: what can follow is the same for both.
    """
    documents, n = terms.documents, terms.n
    row = np.arange(documents)[:, None]
    # A set is known by the sum of its members' random numbers: two sets of one sum are as good as impossible.
    codes = np.random.default_rng(0).integers(2**64, size=n, dtype=np.uint64)
    orders = np.zeros((documents, 1, n), dtype=np.int64)
    values, sets = np.zeros((documents, 1)), np.zeros((documents, 1), dtype=np.uint64)
    left = np.ones((documents, 1, n), dtype=bool)
    # after[b, w, j]: what placing j before all the others that are left earns.
    after = None if terms.pairs is None else terms.pairs.sum(axis=2)[:, None]
    for place in range(n):
        earned = np.where(left, values[:, :, None], -np.inf)  # (B, W, n)
        if after is not None:
            earned += after
        if terms.positions is not None:
            earned += terms.positions[:, None, :, place]
        if terms.adjacency is not None and place:
            earned += terms.adjacency[row, orders[:, :, place - 1]]
        flat = earned.reshape(documents, -1)
        keys = (sets[:, :, None] + codes).reshape(documents, -1)
        # Prefixes of one set come from its members as the last one: so many may have to be looked through.
        choice = _first_highest(flat, 4 * BEAMS)
        value, key = flat[row, choice], keys[row, choice]
        slot = choice % n
        if terms.adjacency is not None:
            key = key * np.uint64(n + 1) + slot.astype(np.uint64)
        again = np.tril(key[:, :, None] == key[:, None, :], -1).any(axis=2)
        keep = _first_highest(np.where(again, -np.inf, value), BEAMS)
        choice, values, slot = choice[row, keep], np.where(again, -np.inf, value)[row, keep], slot[row, keep]
        prefix = choice // n
        orders, left = orders[row, prefix], left[row, prefix]
        orders[:, :, place] = slot
        np.put_along_axis(left, slot[:, :, None], False, axis=2)
        sets = keys[row, choice]
        if terms.pairs is not None and after is not None:
            after = after[row, prefix] - terms.pairs[row, :, slot]
    return orders[:, 0]


def _first_highest(values: np.ndarray, width: int) -> np.ndarray:
    """(B, <= width) the indices of the highest values (B, m), falling; those of the same value in their order."""
    if values.shape[1] > 4 * width:
        bound = -np.partition(-values, width - 1, axis=1)[:, width - 1 : width]
        values = np.where(values >= bound, values, -np.inf)
    return np.argsort(-values, axis=1, kind="stable")[:, :width]


# --- insertions ------------------------------------------------------------------------------------------------------


def _improved(terms: _Terms, order: np.ndarray) -> np.ndarray:
    """The orders (B, n) after each sentence in turn was put where it helps most, until no move of any one helps."""
    # The turns go by the places of the start, so that how the slots are numbered plays no part.
    order, turns, active = order.copy(), order, np.arange(len(order))
    while len(active):
        changed = np.zeros(len(active), dtype=bool)
        for turn in range(terms.n):
            present = order[active]
            source = (present == turns[active, turn, None]).argmax(axis=1)
            changes = _insertion_changes(terms, present, active, source)
            target = changes.argmax(axis=1)
            helps = changes[np.arange(len(active)), target] > terms.tolerance[active]
            order[active[helps]] = _moved(present[helps], source[helps], target[helps])
            changed |= helps
        active = active[changed]
    return order


def _moved(order: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The orders (B, n) with the sentence at place ``source`` (B,) taken out and put back at place ``target`` (B,)."""
    places = np.arange(order.shape[1])
    source, target = source[:, None], target[:, None]
    between = ((source <= places) & (places < target)).astype(np.int64) - ((target < places) & (places <= source))
    taken = np.where(places == target, source, places + between)
    moved: np.ndarray = np.take_along_axis(order, taken, axis=1)
    return moved


def _insertion_changes(terms: _Terms, order: np.ndarray, rows: np.ndarray, source: np.ndarray) -> np.ndarray:
    """(B, n) the change of the sum when the sentence at place ``source`` (B,) moves to each place.

    Args:
        order: (B, n) the present orders.
        rows: (B,) whose documents' they are.
        source: (B,) places.
    """
    documents, n = order.shape
    changes = np.zeros((documents, n))
    document, row, places = np.arange(documents), rows[:, None], np.arange(n)
    moving = order[document, source][:, None]
    forward = places > source[:, None]
    if terms.pairs is not None:
        # Moving forward to t turns the pairs with all up to t around, moving back to t those from t on. What the
        # sentence earns with places below p is past[p]; with itself it earns 0.
        past = np.zeros((documents, n + 1))
        np.cumsum(terms.pairs[row, moving, order], axis=1, out=past[:, 1:])
        changes += 2 * (past[document, source, None] - np.where(forward, past[:, 1:], past[:, :-1]))
    if terms.positions is not None:
        stay = terms.positions[row, order, places]
        # The sentences in between move by one place, towards where this one was.
        down, up = np.zeros((documents, n + 1)), np.zeros((documents, n + 1))
        np.cumsum(terms.positions[row, order[:, 1:], places[:-1]] - stay[:, 1:], axis=1, out=down[:, 2:])
        np.cumsum(terms.positions[row, order[:, :-1], places[1:]] - stay[:, :-1], axis=1, out=up[:, 1:-1])
        changes += terms.positions[row, moving, places] - stay[document, source, None]
        changes += np.where(
            forward,
            down[:, 1:] - down[document, source + 1, None],  # the places behind it, up to the new one
            up[document, source, None] - up[:, :-1],  # the places before it, from the new one on
        )
    if terms.adjacency is not None:
        # Gap g is before place g, and gap n behind the last; nothing is earned at the two ends.
        edge, behind, before = np.zeros((3, documents, n + 1))
        edge[:, 1:-1] = terms.adjacency[row, order[:, :-1], order[:, 1:]]
        behind[:, 1:] = terms.adjacency[row, order, moving]
        before[:, :-1] = terms.adjacency[row, moving, order]
        inside = (source > 0) & (source < n - 1)
        left, right = order[document, source - 1], order[document, np.minimum(source + 1, n - 1)]
        closed = np.where(inside, terms.adjacency[rows, left, right], 0.0)  # once the sentence is taken out
        closed -= edge[document, source] + edge[document, source + 1]
        opened = behind + before - edge
        changes += closed[:, None] + np.where(forward, opened[:, 1:], opened[:, :-1])
    changes[document, source] = 0.0
    return changes
