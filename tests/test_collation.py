import itertools
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentorder.data.collation import EncodedDocument, JointCollator, Shape, shuffle_slots
from sentorder.data.sampling import PlannedDocument

CLS, PAD = 101, 0
DOCUMENTS = st.lists(st.lists(st.integers(5, 30), min_size=1, max_size=6), min_size=1, max_size=7)


def collate(
    documents: list[list[list[int]]], *, seed: int = 0, epoch: int = 0, **options: Any
) -> dict[str, torch.Tensor]:
    planned = [PlannedDocument(epoch, index, 1.0) for index in range(len(documents))]
    items = [EncodedDocument(place, ids) for place, ids in zip(planned, documents, strict=True)]
    return JointCollator(CLS, PAD, seed=seed, **options)(items)  # type: ignore[return-value]


@given(st.lists(DOCUMENTS, min_size=1, max_size=4))
def test_a_batch_can_be_read_back(documents: list[list[list[int]]]) -> None:
    batch = collate(documents)
    for row, document in enumerate(documents):
        n, length = len(document), sum(len(ids) + 1 for ids in document)
        positions = batch["positions"][row]
        assert sorted(positions[:n].tolist()) == list(range(n)) and (positions[n:] == -100).all()
        assert batch["slot_mask"][row].tolist() == [place < n for place in range(positions.shape[0])]
        assert batch["attention_mask"][row].tolist() == [int(t < length) for t in range(batch["input_ids"].shape[1])]
        for slot in range(n):
            tokens = batch["input_ids"][row][batch["token_slots"][row] == slot].tolist()
            # The label of a slot is the original place of the sentence that stands there, not the inverse permutation.
            assert tokens == [CLS, *document[positions[slot]]]
        assert (batch["token_slots"][row, length:] == -1).all() and (batch["input_ids"][row, length:] == PAD).all()
    assert batch["document_ids"].tolist() == list(range(len(documents)))
    assert batch["weights"].tolist() == [1.0] * len(documents)
    assert "positions" not in collate(documents, with_positions=False)


@given(DOCUMENTS, st.integers(0, 3), st.integers(0, 3), st.randoms())
def test_the_slots_do_not_depend_on_the_order_in_which_sentences_are_given(
    document: list[list[int]], seed: int, epoch: int, random: object
) -> None:
    order = list(range(len(document)))
    random.shuffle(order)  # type: ignore[attr-defined]
    given_order = [document[index] for index in shuffle_slots(document, seed, epoch)]
    shuffled = [document[index] for index in order]
    assert given_order == [shuffled[index] for index in shuffle_slots(shuffled, seed, epoch)]


def test_copies_of_a_sentence_are_labelled_in_slot_order() -> None:
    """Which of two equal sentences stood first nobody can tell: a label by chance would be noise."""
    document = [[7, 7], [8], [7, 7], [9], [8], [7, 7]]
    for epoch in range(20):
        positions = collate([document], epoch=epoch)["positions"][0].tolist()
        assert sorted(positions) == list(range(6))
        for tokens in ([7, 7], [8]):
            places = [position for position in positions if document[position] == tokens]
            assert places == sorted(places)
        # The label is what to learn; where each sentence truly came from is another matter.
        assert collate([document], epoch=epoch)["sources"][0].tolist() == shuffle_slots(document, 0, epoch)


def test_a_document_is_shuffled_alike_in_every_batch() -> None:
    documents = [[[row, sentence, 7] for sentence in range(6)] for row in range(40)]
    together = collate(documents, seed=5, epoch=2)["positions"]
    alone = torch.cat([collate([document], seed=5, epoch=2)["positions"] for document in documents])
    assert torch.equal(together, alone)
    assert not torch.equal(together, collate(documents, seed=5, epoch=3)["positions"])
    assert not torch.equal(together, collate(documents, seed=6, epoch=2)["positions"])
    # No two of these documents share a shuffle just because they stand a thousand rows apart, or at all often.
    assert len({tuple(row.tolist()) for row in together}) > 35


@settings(max_examples=5)
@given(st.integers(0, 1000))
def test_all_orders_are_equally_likely(seed: int) -> None:
    draws = 2400
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    for row in range(draws):
        counts[tuple(shuffle_slots([[row, s] for s in range(4)], seed, 0))] += 1
    chi_squared = sum((count - 100) ** 2 / 100 for count in counts.values())
    assert chi_squared < 64  # 23 degrees of freedom: exceeded once in 100,000


def test_equal_sentences_are_shuffled_too() -> None:
    firsts = [
        shuffle_slots([[9], [9], [row]], 0, 0).index(0) < shuffle_slots([[9], [9], [row]], 0, 0).index(1)
        for row in range(10, 410)
    ]
    assert abs(np.mean(firsts) - 0.5) < 0.1


def test_a_filler_has_no_weight() -> None:
    item = EncodedDocument(PlannedDocument(0, 3, 0.0), [[5], [6]])
    batch = JointCollator(CLS, PAD, seed=0)([item])
    assert batch["weights"].tolist() == [0.0] and batch["document_ids"].tolist() == [3]


@given(DOCUMENTS)
def test_a_fixed_shape_only_adds_padding(document: list[list[int]]) -> None:
    documents = [document, document[:1]]
    plain, fixed = collate(documents), collate(documents, shape=Shape(tokens=400, sentences=11))
    length, most = plain["input_ids"].shape[1], plain["positions"].shape[1]
    for name, filler in (("input_ids", PAD), ("attention_mask", 0), ("token_slots", -1)):
        assert fixed[name].shape == (2, 400)
        assert torch.equal(fixed[name][:, :length], plain[name]) and (fixed[name][:, length:] == filler).all()
    for name, filler in (("slot_mask", 0), ("positions", -100), ("sources", -100)):
        assert fixed[name].shape == (2, 11)
        assert torch.equal(fixed[name][:, :most], plain[name]) and (fixed[name][:, most:] == filler).all()
