"""Several passes over the same documents: what is moved around must come back where it was."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sentorder import SentenceOrderer, UserError
from sentorder.beam import decode_choices, decode_together
from sentorder.contracts import Batch, OrderingOutput
from sentorder.data.collation import Collator, EncodedDocument, JointCollator, SentenceCollator
from sentorder.data.documents import Document
from sentorder.data.sampling import PlannedDocument
from sentorder.heads import RelationalPointerHead
from sentorder.inference import Decoding
from sentorder.passes import HeadOverPasses, average, reorder_batch, reorder_output, run_passes, shuffled_slots
from tests.test_backbones import batch_of


def random_slots(counts: list[int], seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    slots = torch.arange(max(counts)).repeat(len(counts), 1)
    for row, n in enumerate(counts):
        slots[row, :n] = torch.randperm(n)
    return slots


@pytest.mark.parametrize("kind", [JointCollator, SentenceCollator])
@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_a_reordered_batch_is_what_the_collator_would_have_made(
    kind: type[Collator], counts: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    texts = [[torch.randint(5, 999, (int(torch.randint(1, 5, ())),)).tolist() for _ in range(n)] for n in counts]
    items = [EncodedDocument(PlannedDocument(0, row, 1.0), text) for row, text in enumerate(texts)]
    collator = kind(1, 0, seed=0)
    batch, slots = collator(items), random_slots(counts, seed)
    reordered = reorder_batch(batch, slots)
    tokens = [[sentence_of(batch, row, int(slot)) for slot in slots[row, :n]] for row, n in enumerate(counts)]
    input_ids, token_slots = collator.tokens(tokens, max(counts))
    assert reordered["input_ids"].tolist() == input_ids.tolist()
    assert reordered["token_slots"].tolist() == token_slots.tolist()
    assert torch.equal(reordered["attention_mask"], (reordered["token_slots"] >= 0).long())
    for name in ("positions", "sources"):
        assert torch.equal(reordered[name], batch[name].gather(1, slots))  # type: ignore[literal-required]
    back = reorder_batch(reordered, torch.argsort(slots, dim=1))
    assert all(torch.equal(back[name], batch[name]) for name in batch)  # type: ignore[literal-required]


def sentence_of(batch: Batch, row: int, slot: int) -> list[int]:
    found: list[int] = batch["input_ids"][row][batch["token_slots"][row] == slot].tolist()
    return found


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 99))
def test_a_reordered_output_comes_back(counts: list[int], seed: int) -> None:
    slots, size, most = random_slots(counts, seed), len(counts), max(counts)
    output = OrderingOutput(
        slot_states=torch.randn(size, most, 3),
        scores=torch.randn(size, most),
        pair_logits=torch.randn(size, most, most),
        adjacency_logits=torch.randn(size, most, most),
        position_logits=torch.randn(size, most, most),
        next_slot_logits=torch.randn(size, most, most),
    )
    moved = reorder_output(output, slots)
    for row in range(size):
        for i, j in itertools.product(range(most), repeat=2):
            a, b = slots[row, i], slots[row, j]
            assert moved.scores[row, i] == output.scores[row, a]  # type: ignore[index]
            assert moved.pair_logits[row, i, j] == output.pair_logits[row, a, b]  # type: ignore[index]
            assert moved.position_logits[row, i, j] == output.position_logits[row, a, j]  # type: ignore[index]
            assert moved.next_slot_logits[row, i, j] == output.next_slot_logits[row, i, b]  # type: ignore[index]
    back = reorder_output(moved, torch.argsort(slots, dim=1))
    assert all(torch.equal(back[name], output[name]) for name in output)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 20))
def test_each_pass_has_a_permutation_of_its_own(counts: list[int], number: int) -> None:
    mask = torch.tensor([[slot < n for slot in range(max(counts))] for n in counts])
    slots = shuffled_slots(mask, number)
    assert slots.sort(dim=1).values.tolist() == [list(range(max(counts)))] * len(counts)
    for row, n in enumerate(counts):
        assert slots[row, n:].tolist() == list(range(n, max(counts)))


def test_passes_show_each_sentence_in_many_places() -> None:
    mask = torch.ones(1, 8, dtype=torch.bool)
    orders = [shuffled_slots(mask, number)[0].tolist() for number in range(16)]
    assert orders[0] == list(range(8)) and orders[1] == orders[0][::-1]
    assert len({tuple(order) for order in orders}) == 16
    for slot in range(8):  # each place as often as any other
        assert sorted(order.index(slot) for order in orders) == sorted([*range(8), *range(8)])
    for i, j in itertools.combinations(range(8), 2):  # before and after each other one equally often
        assert sum(order.index(i) < order.index(j) for order in orders) == 8


def test_the_average_is_that_of_the_passes(tiny_encoder: str, documents: list[Document]) -> None:
    torch.manual_seed(0)
    model = SentenceOrderer.from_encoder(tiny_encoder, method="pairwise", backbone="joint").eval()
    batch = batch_of(model, [document.sentences for document in documents[:4]])
    model.set_decoding(num_permutations=3)
    with torch.no_grad():
        found = model.forward_passes(batch)
        expected = []
        for number in range(3):
            slots = shuffled_slots(batch["slot_mask"], number)
            output = model(**reorder_batch(batch, slots))
            expected.append(reorder_output(output, torch.argsort(slots, dim=1)).pair_logits)
    assert torch.allclose(found.pair_logits, torch.stack(expected).mean(dim=0), atol=1e-6)  # type: ignore[arg-type]
    assert found.slot_states is not None and found.slot_states.shape[-1] == 3 * model.backbone.hidden_size
    assert (expected[0] - expected[1]).abs().max() > 1e-3


def test_blind_backbones_gain_nothing_from_more_passes(tiny_encoder: str, documents: list[Document]) -> None:
    texts = [document.sentences for document in documents[:5]]
    for backbone in ("restarted", "hierarchical"):
        torch.manual_seed(0)
        model = SentenceOrderer.from_encoder(tiny_encoder, method="joint", backbone=backbone).eval()
        with pytest.raises(UserError, match="does not see the order of its input"):
            model.set_decoding(num_permutations=4)
        once = model.order(texts)
        model.decoding = Decoding(None, 4, 1)
        assert [found.order for found in model.order(texts)] == [found.order for found in once]


@pytest.mark.parametrize("decode", [decode_choices, decode_together])
def test_a_head_over_equal_passes_chooses_as_over_one(decode: Any) -> None:
    torch.manual_seed(0)
    head = RelationalPointerHead(8, 0.0, positions=True).eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    with torch.no_grad():
        output = head(torch.randn(2, 5, 8), mask)
    several = average([output, output, output])
    for one, three in zip(
        decode(output, mask, k=4, head=head), decode(several, mask, k=4, head=HeadOverPasses(head, 3)), strict=True
    ):
        assert [found.order for found in one] == [found.order for found in three]
        assert [found.score for found in one] == pytest.approx([found.score for found in three], abs=1e-4)


def test_the_best_order_is_fed_in_again() -> None:
    """A model that says what it is given: the second pass must have been given the order that the first one found."""
    given_orders: list[list[int]] = []

    def model(**batch: torch.Tensor) -> OrderingOutput:
        given_orders.append(batch["input_ids"][0].tolist())
        return OrderingOutput(scores=batch["input_ids"].float())

    batch = Batch(
        input_ids=torch.tensor([[30, 10, 20]]),
        attention_mask=torch.ones(1, 3, dtype=torch.long),
        token_slots=torch.tensor([[0, 1, 2]]),
        slot_mask=torch.ones(1, 3, dtype=torch.bool),
        sources=torch.tensor([[0, 1, 2]]),
    )
    output = run_passes(
        model, batch, permutations=1, refeeds=1, best_orders=lambda output, mask: output.scores.argsort(dim=1).tolist()
    )
    assert given_orders == [[30, 10, 20], [10, 20, 30]]
    assert output.scores.tolist() == [[30, 10, 20]]  # type: ignore[union-attr]
