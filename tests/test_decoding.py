import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentorder import decoding
from sentorder.contracts import OrderingOutput
from sentorder.decoding import (
    decode_as_shuffled,
    decode_at_random,
    decode_pairs,
    decode_pairs_and_neighbours,
    decode_positions,
    decode_scores,
    decode_strengths,
)
from sentorder.likelihoods import adjacency_log_probabilities, pair_log_probabilities, position_log_probabilities
from sentorder.metrics import kendall_tau, positions_of
from sentorder.passes import reorder_output

READS = {
    "scores": ("scores",),
    "shares": ("scores",),
    "strengths": ("scores",),
    "pairs": ("pair_logits",),
    "pairs_and_neighbours": ("pair_logits", "adjacency_logits"),
    "borda": ("pair_logits",),
    "copeland": ("pair_logits",),
    "topological": ("pair_logits",),
    "positions": ("position_logits",),
    "soft_permutation": ("position_logits",),
    "similarity": ("slot_states",),
}
"""What each decoder reads."""
RANKED = ("scores", "shares", "strengths", "pairs", "pairs_and_neighbours", "positions", "soft_permutation")
"""Those that know further orders, and whose best one is unique for random values."""


def decoder(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(decoding, f"decode_{name}")
    return found


def output_of(name: str, random: np.random.Generator, documents: int, n: int) -> OrderingOutput:
    values = {}
    for field in READS[name]:
        drawn = torch.tensor(random.normal(size=(documents, n) if field == "scores" else (documents, n, n)) * 2)
        values[field] = drawn - drawn.transpose(1, 2) if field == "pair_logits" else drawn
    return OrderingOutput(**values)


def part_of(output: OrderingOutput, row: int, n: int) -> OrderingOutput:
    """One document of a batch, without its padding."""
    return OrderingOutput(
        **{name: values[row : row + 1, :n] if values.ndim == 2 else values[row : row + 1, :n, :n]
           for name, values in output.items()}
    )  # fmt: skip


def test_long_documents_are_decoded() -> None:
    n = 60
    true = np.random.default_rng(0).permutation(n)
    logits = np.where(true[:, None] < true[None, :], 4.0, -4.0)
    output = OrderingOutput(pair_logits=torch.tensor(logits[None]))
    ((best,),) = decode_pairs(output, torch.ones(1, n, dtype=torch.bool))
    assert np.array_equal(positions_of(best.order), true) and best.confidence > 0.9


@settings(max_examples=100)
@given(st.sampled_from(RANKED), st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(0, 999))
def test_ragged_batches_decode_as_each_document_alone(name: str, counts: list[int], seed: int) -> None:
    decode, random = decoder(name), np.random.default_rng(seed)
    mask = torch.tensor([[slot < n for slot in range(max(counts))] for n in counts])
    output = output_of(name, random, len(counts), max(counts))
    together = decode(output, mask, k=3)
    for row, n in enumerate(counts):
        assert [sorted(decoded.order) for decoded in together[row]] == [list(range(n))] * min(3, math.factorial(n))
        assert len({tuple(decoded.order) for decoded in together[row]}) == len(together[row])
        assert all(0.0 <= decoded.confidence <= 1.0 for decoded in together[row])
        assert together[row][0].order == decode(output, mask)[row][0].order
        alone = decode(part_of(output, row, n), mask[row : row + 1, :n], k=3)[0]
        assert [found.order for found in alone] == [found.order for found in together[row]]
        for one, other in zip(alone, together[row], strict=True):
            assert one[1:] == pytest.approx(other[1:], abs=1e-6)


@settings(max_examples=60)
@given(st.sampled_from(sorted(READS)), st.lists(st.integers(1, 16), min_size=1, max_size=3), st.integers(0, 999))
def test_what_comes_out_is_always_a_permutation(name: str, counts: list[int], seed: int) -> None:
    mask = torch.tensor([[slot < n for slot in range(max(counts))] for n in counts])
    output = output_of(name, np.random.default_rng(seed), len(counts), max(counts))
    found = decoder(name)(output, mask)
    assert [sorted(best.order) for (best,) in found] == [list(range(n)) for n in counts]
    assert all(0.0 <= best.confidence <= 1.0 for (best,) in found)


@given(st.sampled_from([*RANKED, "borda"]), st.integers(2, 16), st.integers(0, 999))
def test_relabelling_the_slots_changes_nothing(name: str, n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    output, mask = output_of(name, random, 1, n), torch.ones(1, n, dtype=torch.bool)
    labels = torch.tensor(random.permutation(n))[None]
    ((plain,),), ((renamed,),) = decoder(name)(output, mask), decoder(name)(reorder_output(output, labels), mask)
    if n <= 14 or name not in ("pairs", "pairs_and_neighbours"):  # beyond, the search is not exact
        assert [int(labels[0, slot]) for slot in renamed.order] == plain.order
        assert math.isclose(plain.confidence, renamed.confidence, abs_tol=1e-6)


def brute_force(value: Callable[[tuple[int, ...]], float], n: int) -> tuple[tuple[int, ...], float]:
    best = max(itertools.permutations(range(n)), key=value)
    return best, value(best)


@settings(max_examples=40)
@given(st.integers(1, 6), st.integers(0, 999))
def test_the_best_order_is_found(n: int, seed: int) -> None:
    """By brute force over all orders, with the log probabilities that each decoder says it sums up."""
    random, mask = np.random.default_rng(seed), torch.ones(1, n, dtype=torch.bool)
    output = output_of("pairs_and_neighbours", random, 1, n)
    pairs = pair_log_probabilities(output.pair_logits)[0]  # type: ignore[arg-type]
    neighbours = adjacency_log_probabilities(output.adjacency_logits, mask)[0]  # type: ignore[arg-type]

    def of_pairs(order: tuple[int, ...]) -> float:
        return float(sum(pairs[i, j] for i, j in itertools.combinations(order, 2)))

    def of_both(order: tuple[int, ...]) -> float:
        return 2 / n * of_pairs(order) + float(sum(neighbours[i, j] for i, j in itertools.pairwise(order)))

    for decode, value in ((decode_pairs, of_pairs), (decode_pairs_and_neighbours, of_both)):
        ((found,),), (order, best) = decode(output, mask), brute_force(value, n)
        assert tuple(found.order) == order and math.isclose(found.score, best, rel_tol=1e-5, abs_tol=1e-6)

    output = output_of("positions", random, 1, n)
    positions = position_log_probabilities(output.position_logits, mask)[0]  # type: ignore[arg-type]
    order, best = brute_force(lambda order: float(sum(positions[i, place] for place, i in enumerate(order))), n)
    for k in (1, 2):  # by assignment and by subsets
        found = decode_positions(output, mask, k=k)[0][0]
        assert tuple(found.order) == order and math.isclose(found.score, best, rel_tol=1e-5, abs_tol=1e-6)


def test_sorting_is_the_best_order_by_score_differences() -> None:
    scores = torch.tensor([[2.1, -0.3, 0.9, 3.0]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    ranked = decode_scores(OrderingOutput(scores=scores), mask, k=3)[0]
    assert ranked[0].order == [1, 2, 0, 3]
    # The next best swaps the two sentences whose scores are closest.
    assert ranked[1].order == [1, 2, 3, 0]
    assert ranked[0].score > ranked[1].score > ranked[2].score
    assert math.isclose(ranked[0].score, decode_scores(OrderingOutput(scores=scores), mask)[0][0].score, rel_tol=1e-5)


def test_confidence_is_on_the_scale_of_the_scores() -> None:
    mask = torch.ones(1, 4, dtype=torch.bool)
    certain = {"scores": [0.0, 1.0, 2.0, 3.0], "shares": [0.0, 1 / 3, 2 / 3, 1.0], "strengths": [0.0, 20.0, 40.0, 60.0]}
    for name, scores in certain.items():
        ((sure,),) = decoder(name)(OrderingOutput(scores=torch.tensor([scores])), mask)
        ((unsure,),) = decoder(name)(OrderingOutput(scores=torch.tensor([scores]) / 500), mask)
        assert sure.order == [0, 1, 2, 3] and sure.confidence == pytest.approx(1.0) and unsure.confidence < 0.05
    # Log odds of 9 to 1 between neighbours, 81 to 1 and 729 to 1 further off.
    step = math.log(9)
    ((found,),) = decode_strengths(OrderingOutput(scores=torch.tensor([[0.0, step, 2 * step, 3 * step]])), mask)
    expected = (3 * 0.9 + 2 * 81 / 82 + 729 / 730) / 6
    assert math.isclose(found.confidence, 2 * expected - 1, rel_tol=1e-5)


@pytest.mark.parametrize("n", [5, 12])
@pytest.mark.parametrize("name", sorted(READS))
def test_random_scores_give_tau_0(name: str, n: int) -> None:
    """Coin flips must not pay. The published topological sort gets tau 0.38 (n=5) and 0.70 (n=12) for them, because it
    numbers the sentences by their gold positions."""
    documents = 2000 if name != "topological" else 1000
    output = output_of(name, np.random.default_rng(n), documents, n)
    check_chance(decoder(name)(output, torch.ones(documents, n, dtype=torch.bool)), n)


@pytest.mark.parametrize("n", [2, 5, 16])
@pytest.mark.parametrize("name", sorted(READS))
def test_ties_fall_to_no_particular_slot(name: str, n: int) -> None:
    """Somebody hands in the sentences in their gold order, and the model cannot tell them apart."""
    documents = 300
    output = output_of(name, np.random.default_rng(0), documents, n)
    even = OrderingOutput(**{field: torch.zeros_like(values) for field, values in output.items()})
    check_chance(decoder(name)(even, torch.ones(documents, n, dtype=torch.bool)), n)


def test_the_floors_are_chance() -> None:
    mask = torch.ones(2000, 5, dtype=torch.bool)
    check_chance(decode_at_random(OrderingOutput(), mask), 5)
    assert [best.order for (best,) in decode_as_shuffled(OrderingOutput(), mask[:2])] == [list(range(5))] * 2


def check_chance(decoded: Any, n: int) -> None:
    positions = [positions_of(best.order) for (best, *_) in decoded]
    taus = [kendall_tau(row, range(n)) for row in positions]
    accuracies = [float(np.mean(row == np.arange(n))) for row in positions]
    assert abs(np.mean(taus)) < 4 * np.std(taus) / len(taus) ** 0.5
    assert abs(np.mean(accuracies) - 1 / n) < 4 * np.std(accuracies) / len(taus) ** 0.5


@pytest.mark.parametrize("n", [5, 16])
@pytest.mark.parametrize("name", sorted(READS))
def test_an_output_that_is_not_finite_has_no_order(name: str, n: int) -> None:
    output = output_of(name, np.random.default_rng(0), 2, n + 1)
    mask = torch.tensor([[slot < n for slot in range(n + 1)], [True] * (n + 1)])
    values = output[READS[name][-1]]
    values[0, n] = float("nan")  # padding: plays no part
    found = decoder(name)(output, mask)
    assert [sorted(best.order) for (best,) in found] == [list(range(n)), list(range(n + 1))]
    values[1, 2] = float("nan")
    with pytest.raises(FloatingPointError, match="infinite or not a number"):
        decoder(name)(output, mask)


def test_a_soft_permutation_is_as_sure_as_it_is() -> None:
    """What speaks for a position as a whole takes no certainty away, as it would if each sentence chose by itself."""
    logits = torch.eye(5) * 8 + torch.tensor([9.0, 0, 0, 0, -9.0])
    output, mask = OrderingOutput(position_logits=logits[None]), torch.ones(1, 5, dtype=torch.bool)
    ((soft,),), ((alone,),) = decoder("soft_permutation")(output, mask), decoder("positions")(output, mask)
    assert soft.order == alone.order == [0, 1, 2, 3, 4]
    assert soft.confidence > 0.98 and soft.score > -0.1 and alone.confidence < 0.7


def test_confidence_of_pairs_is_the_expected_tau() -> None:
    probability = 0.9
    logit = math.log(probability / (1 - probability))
    logits = torch.triu(torch.full((4, 4), logit), 1)
    output = OrderingOutput(pair_logits=(logits - logits.T)[None])
    ((best,),) = decode_pairs(output, torch.ones(1, 4, dtype=torch.bool))
    assert best.order == [0, 1, 2, 3] and math.isclose(best.confidence, 2 * probability - 1, rel_tol=1e-5)
    assert math.isclose(best.score, 6 * math.log(probability), rel_tol=1e-5)
