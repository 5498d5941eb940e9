import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentorder.beam import decode_choices, decode_together
from sentorder.contracts import OrderingOutput
from sentorder.heads import PointerHead, RelationalPointerHead
from sentorder.likelihoods import adjacency_log_probabilities, pair_log_probabilities, position_log_probabilities
from sentorder.metrics import kendall_tau, positions_of


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


# --- together -------------------------------------------------------------------------------------------------------


def relational(
    counts: list[int], seed: int, *, positions: bool
) -> tuple[RelationalPointerHead, OrderingOutput, torch.Tensor]:
    torch.manual_seed(seed)
    head = RelationalPointerHead(8, 0.0, positions=positions).eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    mask = torch.tensor([[slot < n for slot in range(max(counts))] for n in counts])
    with torch.no_grad():
        return head, head(torch.randn(len(counts), max(counts), 8), mask), mask


@settings(max_examples=25)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.booleans(), st.integers(0, 999))
def test_a_wide_beam_finds_what_all_relations_speak_for(counts: list[int], positions: bool, seed: int) -> None:
    """Brute force over all orders: choices, pairs, neighbours and positions, each counted once."""
    head, output, mask = relational(counts, seed, positions=positions)
    assert output.pair_logits is not None and output.adjacency_logits is not None and output.slot_states is not None
    pairs = pair_log_probabilities(output.pair_logits)
    neighbours = adjacency_log_probabilities(output.adjacency_logits, mask)
    found = decode_together(output, mask, k=120, head=head)
    for row, n in enumerate(counts):
        values = {}
        for order in itertools.permutations(range(n)):
            gold = torch.full(mask[row : row + 1].shape, -100)
            gold[0, list(order)] = torch.arange(n)
            logits = head(output.slot_states[row : row + 1], mask[row : row + 1], gold).next_slot_logits[0]
            value = sum(torch.log_softmax(logits[step], dim=-1)[slot].item() for step, slot in enumerate(order))
            value += 2 / n * sum(pairs[row, i, j].item() for i, j in itertools.combinations(order, 2))
            value += sum(neighbours[row, i, j].item() for i, j in itertools.pairwise(order))
            if positions:
                assert output.position_logits is not None
                of_positions = position_log_probabilities(output.position_logits, mask)
                value += sum(of_positions[row, slot, place].item() for place, slot in enumerate(order))
            values[order] = value
        assert len(found[row]) == math.factorial(n)
        for best in found[row]:
            assert math.isclose(values[tuple(best.order)], best.score, rel_tol=1e-4, abs_tol=1e-3)
        assert math.isclose(found[row][0].score, max(values.values()), rel_tol=1e-4, abs_tol=1e-3)


@pytest.mark.parametrize("decode", [decode_choices, decode_together])
def test_ties_fall_to_no_particular_slot(decode: object) -> None:
    """A head that knows nothing gains nothing by slots that stand in the gold order."""
    documents, n = 600, 5
    head, output, mask = relational([n] * documents, 0, positions=True)
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    output = head(output.slot_states, mask)
    found = partial(decode, head=head)(output, mask)  # type: ignore[arg-type, call-arg]
    taus = [kendall_tau(positions_of(best.order), range(n)) for (best,) in found]
    assert abs(np.mean(taus)) < 4 * np.std(taus) / documents**0.5 and np.std(taus) > 0.3
