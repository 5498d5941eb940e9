import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentorder import local_search, order_search
from sentorder.local_search import search_orders
from sentorder.order_search import best_orders
from sentorder.pair_rules import borda_orders, copeland_orders, topological_orders

Terms = dict[str, np.ndarray]
NAMES = ("pair_scores", "position_scores", "adjacency_scores")
# Every combination of the three terms but none.
COMBINATIONS = [names for size in (1, 2, 3) for names in itertools.combinations(NAMES, size)]
combinations = st.sampled_from(COMBINATIONS)
seeds = st.integers(0, 10_000)


def random_terms(names: tuple[str, ...], documents: int, n: int, seed: int) -> Terms:
    random = np.random.default_rng(seed)
    return {name: random.normal(size=(documents, n, n)) for name in names}


def values_of(terms: Terms, document: int, orders: np.ndarray) -> np.ndarray:
    """(M,) what the orders (M, n) of one document earn, written as the definition reads."""
    nothing = np.zeros((orders.shape[1],) * 2)
    pairs, positions, adjacency = (terms[name][document] if name in terms else nothing for name in NAMES)
    values = np.zeros(len(orders))
    for first in range(orders.shape[1]):
        values += positions[orders[:, first], first]
        if first + 1 < orders.shape[1]:
            values += adjacency[orders[:, first], orders[:, first + 1]]
        for second in range(first + 1, orders.shape[1]):
            values += pairs[orders[:, first], orders[:, second]]
    return values


def all_orders(n: int) -> np.ndarray:
    return np.array(list(itertools.permutations(range(n))), dtype=np.int64).reshape(math.factorial(n), n)


@pytest.mark.parametrize("names", COMBINATIONS)
@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 7), k=st.integers(1, 5), seed=seeds)
def test_exact_equals_brute_force(names: tuple[str, ...], n: int, k: int, seed: int) -> None:
    terms = random_terms(names, 3, n, seed)
    ranked = best_orders(**terms, k=k)
    assert ranked.orders.shape == (3, k, n) and ranked.scores.shape == (3, k)
    there = min(k, math.factorial(n))
    for document, (orders, scores) in enumerate(zip(ranked.orders, ranked.scores, strict=True)):
        best = -np.sort(-values_of(terms, document, all_orders(n)))[:there]
        assert np.allclose(scores[:there], best) and (scores[there:] == -np.inf).all()
        assert np.allclose(values_of(terms, document, orders[:there]), best)
        assert len({tuple(order) for order in orders[:there]}) == there
        assert (np.sort(orders, axis=1) == np.arange(n)).all()


@given(combinations, st.integers(2, 5), st.integers(1, 130), seeds)
@settings(max_examples=40, deadline=None)
def test_ties_and_many_orders_are_ranked_without_repeats(names: tuple[str, ...], n: int, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    terms = {name: random.integers(-1, 2, size=(2, n, n)).astype(float) for name in names}
    ranked = best_orders(**terms, k=k)
    there = min(k, math.factorial(n))
    for document in range(2):
        assert len({tuple(order) for order in ranked.orders[document, :there]}) == there
        best = -np.sort(-values_of(terms, document, all_orders(n)))[:there]
        assert np.array_equal(ranked.scores[document, :there], best)


def test_the_worked_example() -> None:
    """Three sentences, by hand: pairs for 0 1 2, a position term that wants 2 first, an edge that wants 1 behind 2."""
    pairs = np.zeros((1, 3, 3))
    pairs[0, 0, 1] = pairs[0, 0, 2] = pairs[0, 1, 2] = 1.0
    positions, adjacency = np.zeros((1, 3, 3)), np.zeros((1, 3, 3))
    positions[0, 2, 0] = 1.5
    adjacency[0, 2, 1] = 4.0
    assert best_orders(pairs).orders.tolist() == [[[0, 1, 2]]]
    assert best_orders(pairs, position_scores=positions).orders.tolist() == [[[0, 1, 2]]]
    ranked = best_orders(pairs, adjacency_scores=adjacency, k=2)
    assert ranked.orders.tolist() == [[[0, 2, 1], [2, 1, 0]]] and ranked.scores.tolist() == [[6.0, 4.0]]
    ranked = best_orders(pairs, position_scores=positions, adjacency_scores=adjacency)
    assert ranked.orders.tolist() == [[[0, 2, 1]]] and ranked.scores.tolist() == [[6.0]]


@pytest.mark.parametrize("n", [9, 13, 14])
def test_larger_exact_searches_agree_with_sums_and_with_each_other(n: int) -> None:
    """Beyond brute force: the sum is that of the order, an adjacency term of zeros changes nothing, and no random order
    is better."""
    terms = random_terms(NAMES, 2, n, n)
    ranked = best_orders(**terms, k=2)
    random = np.random.default_rng(0)
    others = np.stack([random.permutation(n) for _ in range(2000)])
    without = {name: term for name, term in terms.items() if name != "adjacency_scores"}
    plain, zeros = best_orders(**without), best_orders(**without, adjacency_scores=np.zeros((2, n, n)))
    assert np.array_equal(plain.orders, zeros.orders) and np.allclose(plain.scores, zeros.scores)
    for document in range(2):
        assert np.allclose(values_of(terms, document, ranked.orders[document]), ranked.scores[document])
        assert values_of(terms, document, others).max() <= ranked.scores[document, 0]
    assert (ranked.scores[:, 0] >= search_orders(**terms)[1][:, 0] - 1e-9).all()


@given(st.integers(1, 9), seeds)
@settings(max_examples=50, deadline=None)
def test_exact_is_never_below_a_rule(n: int, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(4, n, n)) * 2
    logits -= logits.transpose(0, 2, 1)
    terms = {"pair_scores": -np.logaddexp(0.0, -logits)}
    best = best_orders(**terms).scores[:, 0]
    for rule in (borda_orders, copeland_orders, topological_orders):
        orders = rule(logits)
        found = [values_of(terms, document, orders[document][None])[0] for document in range(4)]
        assert (np.array(found) <= best + 1e-9).all()


def relabelled(terms: Terms, labels: np.ndarray) -> Terms:
    """Slot s of the result is the slot labels[s] of the given terms."""
    return {
        name: term[:, labels] if name == "position_scores" else term[:, labels][:, :, labels]
        for name, term in terms.items()
    }


@given(combinations, st.integers(1, 24), st.integers(1, 3), seeds)
@settings(max_examples=60, deadline=None)
def test_relabelling_the_slots_changes_nothing(names: tuple[str, ...], n: int, k: int, seed: int) -> None:
    n = n if k == 1 or n <= 8 else 8  # further ranks may be as good as each other
    terms = random_terms(names, 2, n, seed)
    labels = np.random.default_rng(seed + 1).permutation(n)
    plain, renamed = best_orders(**terms, k=k), best_orders(**relabelled(terms, labels), k=k)
    assert np.array_equal(labels[renamed.orders[:, 0]], plain.orders[:, 0])
    assert np.allclose(plain.scores, renamed.scores)


@pytest.mark.parametrize("names", COMBINATIONS)
@settings(max_examples=12, deadline=None)
@given(n=st.integers(1, 18), k=st.integers(1, 6), seed=seeds)
def test_search_gives_permutations_that_no_insertion_improves(
    names: tuple[str, ...], n: int, k: int, seed: int
) -> None:
    terms = random_terms(names, 2, n, seed)
    all_found, all_scores = search_orders(**terms, k=k)
    assert all_found.shape == (2, min(k, 1 + (n - 1) ** 2), n)
    for document, (orders, scores) in enumerate(zip(all_found, all_scores, strict=True)):
        assert (np.sort(orders, axis=1) == np.arange(n)).all()
        assert len({tuple(order) for order in orders}) == len(orders)
        assert np.allclose(values_of(terms, document, orders), scores)
        assert sorted(scores, reverse=True) == scores.tolist()
        best, moved = orders[0].tolist(), set()
        for source in range(n):
            rest = best[:source] + best[source + 1 :]
            moved |= {(*rest[:target], best[source], *rest[target:]) for target in range(n)}
        values = -np.sort(-values_of(terms, document, np.array(sorted(moved))))
        # The order itself is among them: no insertion is better, and the further ranks are the best of them.
        assert np.allclose(values[: len(scores)], scores)


# The mean share of the best sum, for random terms: the rugged ones (neighbours alone) are the hardest.
NEARLY = dict(zip(COMBINATIONS, [0.999, 0.995, 0.985, 0.998, 0.998, 0.99, 0.99], strict=True))


@pytest.mark.parametrize("names", COMBINATIONS)
def test_search_is_nearly_exact_where_both_can_be_had(names: tuple[str, ...]) -> None:
    terms = random_terms(names, 50, 10, 0)
    exact, found = best_orders(**terms).scores[:, 0], search_orders(**terms)[1][:, 0]
    assert (found <= exact + 1e-9).all()
    assert np.mean(found / exact) > NEARLY[names]


def test_search_finds_a_clear_order_of_a_hundred() -> None:
    true = np.random.default_rng(0).permutation(100)
    positions = np.argsort(true)
    pairs = np.where(positions[:, None] < positions[None, :], 1.0, -1.0)[None]
    places = -np.abs(positions[:, None] - np.arange(100))[None].astype(float)
    adjacency = (positions[:, None] + 1 == positions[None, :])[None].astype(float)
    for terms in (
        {"pair_scores": pairs},
        {"position_scores": places},
        {"adjacency_scores": adjacency},
        {"pair_scores": pairs, "position_scores": places, "adjacency_scores": adjacency},
    ):
        ranked = best_orders(**terms)
        assert np.array_equal(ranked.orders[0, 0], true), list(terms)


@pytest.mark.parametrize(("scale", "shift"), [(1e-12, 0.0), (1e9, 0.0), (1.0, 1e6)])
def test_search_ends_whatever_the_scale(scale: float, shift: float) -> None:
    terms = random_terms(NAMES, 2, 20, 0)
    other = {name: term * scale + shift for name, term in terms.items()}
    assert np.array_equal(search_orders(**terms)[0], search_orders(**other)[0])
    flat = {name: np.full((2, 20, 20), shift) for name in NAMES}
    assert (np.sort(search_orders(**flat, k=3)[0], axis=2) == np.arange(20)).all()


@pytest.mark.parametrize("names", [("pair_scores",), NAMES])
def test_documents_are_searched_in_parts_of_bounded_size(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[Callable[[], tuple[np.ndarray, np.ndarray]]] = [
        lambda: tuple(best_orders(**random_terms(names, 9, 6, 1), k=2)),
        lambda: search_orders(**random_terms(names, 9, 17, 1), k=2),
    ]
    whole = [search() for search in searches]
    monkeypatch.setattr(order_search, "TABLE_FLOATS", 1)
    monkeypatch.setattr(local_search, "TABLE_FLOATS", 1)
    parts = [search() for search in searches]
    for (orders, scores), (orders_again, scores_again) in zip(whole, parts, strict=True):
        assert np.array_equal(orders, orders_again) and np.allclose(scores, scores_again, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [0, 1, 5, 20])
def test_no_documents(n: int) -> None:
    ranked = best_orders(np.zeros((0, n, n)), k=2)
    assert ranked.orders.shape == (0, 2, n) and ranked.scores.shape == (0, 2)


def test_the_diagonal_plays_no_part_and_the_terms_are_not_written_to() -> None:
    for n in (6, 16):
        terms = random_terms(NAMES, 2, n, 3)
        kept = {name: term.copy() for name, term in terms.items()}
        plain = best_orders(**terms)
        assert all(np.array_equal(kept[name], term) for name, term in terms.items())
        for name in ("pair_scores", "adjacency_scores"):
            terms[name][:, np.arange(n), np.arange(n)] = np.nan
        assert np.array_equal(plain.scores, best_orders(**terms).scores)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "at least one term"),
        ({"pair_scores": np.zeros((2, 3))}, "pair_scores must be \\(B, n, n\\), got \\(2, 3\\)"),
        ({"position_scores": np.zeros((2, 3, 4))}, "position_scores must be"),
        ({"pair_scores": np.zeros((2, 3, 3)), "adjacency_scores": np.zeros((2, 4, 4))}, "all of one shape"),
        ({"adjacency_scores": np.full((2, 3, 3), -np.inf)}, "adjacency_scores must be finite"),
        ({"pair_scores": np.zeros((2, 3, 3)), "k": 0}, "k must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_searched(terms: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        best_orders(**terms)
