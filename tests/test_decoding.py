import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentorder.contracts import OrderingOutput
from sentorder.decoding import decode_choices, decode_pairs, decode_scores
from sentorder.heads import PointerHead
from sentorder.metrics import kendall_tau, positions_of


def antisymmetric(random: np.random.Generator, documents: int, n: int) -> np.ndarray:
    logits = random.normal(size=(documents, n, n)) * 2
    return logits - logits.transpose(0, 2, 1)


def test_long_documents_are_decoded() -> None:
    n = 60
    true = np.random.default_rng(0).permutation(n)
    logits = np.where(true[:, None] < true[None, :], 4.0, -4.0)
    output = OrderingOutput(pair_logits=torch.tensor(logits[None]))
    ((best,),) = decode_pairs(output, torch.ones(1, n, dtype=torch.bool))
    assert np.array_equal(positions_of(best.order), true) and best.confidence > 0.9


def output_of(kind: str, random: np.random.Generator, documents: int, n: int) -> OrderingOutput:
    if kind == "scores":
        return OrderingOutput(scores=torch.tensor(random.normal(size=(documents, n))))
    return OrderingOutput(pair_logits=torch.tensor(antisymmetric(random, documents, n)))


@settings(max_examples=50)
@given(st.sampled_from(["scores", "pairs"]), st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(0, 999))
def test_ragged_batches_decode_as_each_document_alone(kind: str, counts: list[int], seed: int) -> None:
    decode = decode_scores if kind == "scores" else decode_pairs
    random = np.random.default_rng(seed)
    mask = torch.tensor([[slot < n for slot in range(max(counts))] for n in counts])
    output = output_of(kind, random, len(counts), max(counts))
    together = decode(output, mask, k=3)
    for row, n in enumerate(counts):
        assert [sorted(decoded.order) for decoded in together[row]] == [list(range(n))] * min(3, math.factorial(n))
        assert all(0.0 <= decoded.confidence <= 1.0 for decoded in together[row])
        assert together[row][0].order == decode(output, mask)[row][0].order
        alone = OrderingOutput(
            scores=None if output.scores is None else output.scores[row : row + 1, :n],
            pair_logits=None if output.pair_logits is None else output.pair_logits[row : row + 1, :n, :n],
        )
        assert decode(alone, mask[row : row + 1, :n], k=3)[0] == together[row]


@given(st.sampled_from(["scores", "pairs"]), st.integers(2, 16), st.integers(0, 999))
def test_relabelling_the_slots_changes_nothing(kind: str, n: int, seed: int) -> None:
    decode = decode_scores if kind == "scores" else decode_pairs
    random = np.random.default_rng(seed)
    output, mask = output_of(kind, random, 1, n), torch.ones(1, n, dtype=torch.bool)
    labels = torch.tensor(random.permutation(n))
    relabelled = OrderingOutput(
        scores=None if output.scores is None else output.scores[:, labels],
        pair_logits=None if output.pair_logits is None else output.pair_logits[:, labels][:, :, labels],
    )
    ((plain,),), ((renamed,),) = decode(output, mask), decode(relabelled, mask)
    assert [int(labels[slot]) for slot in renamed.order] == plain.order
    assert math.isclose(plain.confidence, renamed.confidence, abs_tol=1e-6)


def test_sorting_is_the_best_order_by_score_differences() -> None:
    scores = torch.tensor([[2.1, -0.3, 0.9, 3.0]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    ranked = decode_scores(OrderingOutput(scores=scores), mask, k=3)[0]
    assert ranked[0].order == [1, 2, 0, 3]
    # The next best swaps the two sentences whose scores are closest.
    assert ranked[1].order == [1, 2, 3, 0]
    assert ranked[0].score > ranked[1].score > ranked[2].score
    assert math.isclose(ranked[0].score, decode_scores(OrderingOutput(scores=scores), mask)[0][0].score, rel_tol=1e-5)
    perfect = decode_scores(OrderingOutput(scores=torch.tensor([[0.0, 1.0, 2.0, 3.0]])), mask)[0][0]
    unsure = decode_scores(OrderingOutput(scores=torch.tensor([[1.4, 1.5, 1.5, 1.6]])), mask)[0][0]
    assert perfect.confidence == 1.0 and unsure.confidence < 0.01


@pytest.mark.parametrize("n", [5, 12])
@pytest.mark.parametrize("kind", ["scores", "pairs"])
def test_random_scores_give_tau_0(kind: str, n: int) -> None:
    """Coin flips must not pay. The published topological sort gets tau 0.38 (n=5) and 0.70 (n=12) for them, because it
    numbers the sentences by their gold positions."""
    documents = 2000
    output = output_of(kind, np.random.default_rng(n), documents, n)
    decoded = (decode_scores if kind == "scores" else decode_pairs)(output, torch.ones(documents, n, dtype=torch.bool))
    positions = [positions_of(best.order) for (best,) in decoded]
    taus = [kendall_tau(row, range(n)) for row in positions]
    accuracies = [float(np.mean(row == np.arange(n))) for row in positions]
    assert abs(np.mean(taus)) < 4 * np.std(taus) / documents**0.5
    assert abs(np.mean(accuracies) - 1 / n) < 4 * np.std(accuracies) / documents**0.5


@pytest.mark.parametrize("n", [5, 16])
@pytest.mark.parametrize("kind", ["scores", "pairs"])
def test_an_output_that_is_not_finite_has_no_order(kind: str, n: int) -> None:
    output = output_of(kind, np.random.default_rng(0), 2, n + 1)
    mask = torch.tensor([[slot < n for slot in range(n + 1)], [True] * (n + 1)])
    values = output.scores if kind == "scores" else output.pair_logits
    assert values is not None
    values[0, n] = float("nan")  # padding: plays no part
    decode = decode_scores if kind == "scores" else decode_pairs
    assert [sorted(best.order) for (best,) in decode(output, mask)] == [list(range(n)), list(range(n + 1))]
    values[1, 2] = float("nan")
    with pytest.raises(FloatingPointError, match="infinite or not a number"):
        decode(output, mask)


def test_confidence_of_pairs_is_the_expected_tau() -> None:
    probability = 0.9
    logit = math.log(probability / (1 - probability))
    logits = torch.triu(torch.full((4, 4), logit), 1)
    output = OrderingOutput(pair_logits=(logits - logits.T)[None])
    ((best,),) = decode_pairs(output, torch.ones(1, 4, dtype=torch.bool))
    assert best.order == [0, 1, 2, 3] and math.isclose(best.confidence, 2 * probability - 1, rel_tol=1e-5)
    assert math.isclose(best.score, 6 * math.log(probability), rel_tol=1e-5)


# --- choices --------------------------------------------------------------------------------------------------------


def pointer(counts: list[int], seed: int, hidden: int = 8) -> tuple[PointerHead, OrderingOutput, torch.Tensor]:
    """A head with random weights (large ones, so that its choices are far from even) and random slot states."""
    torch.manual_seed(seed)
    head = PointerHead(hidden, 0.0).eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    mask = torch.tensor([[slot < n for slot in range(max(counts))] for n in counts])
    return head, OrderingOutput(slot_states=torch.randn(len(counts), max(counts), hidden)), mask


def log_probability(head: PointerHead, output: OrderingOutput, mask: torch.Tensor, order: tuple[int, ...]) -> float:
    """By the head's own teacher-forced logits, for a batch of one."""
    positions = torch.full(mask.shape, -100)
    positions[0, list(order)] = torch.arange(len(order))
    assert output.slot_states is not None
    logits = head(output.slot_states, mask, positions).next_slot_logits
    return sum(torch.log_softmax(logits[0, step], dim=-1)[slot].item() for step, slot in enumerate(order))


@settings(max_examples=30)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 999))
def test_a_wide_beam_finds_the_likeliest_orders(counts: list[int], seed: int) -> None:
    """Brute force over all orders with the teacher-forced logits: stepping and training agree, and so do batches."""
    head, output, mask = pointer(counts, seed)
    assert output.slot_states is not None
    found = decode_choices(output, mask, k=120, head=head)
    for row, n in enumerate(counts):
        alone = OrderingOutput(slot_states=output.slot_states[row : row + 1, :n])
        values = {
            order: log_probability(head, alone, mask[row : row + 1, :n], order)
            for order in itertools.permutations(range(n))
        }
        ranked = sorted(values.values(), reverse=True)
        assert math.isclose(sum(math.exp(value) for value in ranked), 1.0, rel_tol=1e-4)
        assert len(found[row]) == math.factorial(n)
        assert np.allclose([best.score for best in found[row]], ranked, atol=1e-4)
        assert all(math.isclose(values[tuple(best.order)], best.score, abs_tol=1e-4) for best in found[row])
        assert all(0.0 <= best.confidence <= 1.0 for best in found[row])


@settings(max_examples=30)
@given(st.lists(st.integers(1, 14), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 999))
def test_beam_search_gives_permutations_of_every_length(counts: list[int], k: int, seed: int) -> None:
    head, output, mask = pointer(counts, seed)
    for n, ranking in zip(counts, decode_choices(output, mask, k=k, head=head), strict=True):
        assert len(ranking) == min(k, math.factorial(n))
        assert all(sorted(found.order) == list(range(n)) for found in ranking)
        assert len({tuple(found.order) for found in ranking}) == len(ranking)
        assert [found.score for found in ranking] == sorted((found.score for found in ranking), reverse=True)


def test_a_hundred_sentences_and_slots_by_any_name() -> None:
    head, output, mask = pointer([100], 1)
    assert output.slot_states is not None
    labels = torch.randperm(100)
    ((plain,),) = decode_choices(output, mask, head=head)
    ((renamed,),) = decode_choices(OrderingOutput(slot_states=output.slot_states[:, labels]), mask, head=head)
    assert [int(labels[slot]) for slot in renamed.order] == plain.order
    assert math.isclose(plain.confidence, renamed.confidence, abs_tol=1e-4)


def test_confidence_of_choices_is_0_for_guesses_and_1_for_certainty() -> None:
    head, output, mask = pointer([4, 1], 0)
    torch.nn.init.zeros_(head.logit.weight)
    (guess, *_), (single,) = decode_choices(output, mask, k=2, head=head)
    assert guess.confidence == 0.0 and math.isclose(guess.score, -math.log(24), rel_tol=1e-5)
    assert single.confidence == 1.0 and single.score == 0.0
    head, output, mask = pointer([4], 0)
    head.logit.weight.data *= 1000
    ((sure,),) = decode_choices(output, mask, head=head)
    assert sure.confidence > 0.999


def test_states_that_are_not_finite_have_no_order() -> None:
    head, output, mask = pointer([3, 5], 0)
    assert output.slot_states is not None
    with pytest.raises(FloatingPointError, match="infinite or not a number"):
        output.slot_states[1, 0] = float("inf")
        decode_choices(output, mask, head=head)


def test_random_choices_give_tau_0() -> None:
    documents, n = 2000, 5
    head, output, mask = pointer([n] * documents, 5)
    taus = [kendall_tau(positions_of(best.order), range(n)) for (best,) in decode_choices(output, mask, head=head)]
    assert abs(np.mean(taus)) < 4 * np.std(taus) / documents**0.5
