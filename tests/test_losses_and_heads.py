import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from sentorder.backbones import pooling_weights
from sentorder.contracts import Batch, OrderingOutput
from sentorder.heads import PairHead, PointerHead, ScoreHead
from sentorder.losses import (
    next_slot_cross_entropy,
    next_slot_log_likelihood,
    pairwise_logistic,
    squared_error,
)

COUNTS = st.lists(st.integers(1, 6), min_size=1, max_size=4)


def random_batch(counts: list[int], most: int | None = None) -> Batch:
    most = most or max(counts)
    positions = torch.full((len(counts), most), -100)
    for row, n in enumerate(counts):
        positions[row, :n] = torch.randperm(n)
    return Batch(positions=positions, slot_mask=positions >= 0)


@given(COUNTS, st.integers(0, 99))
def test_squared_error_is_the_sum_over_sentences(counts: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    batch = random_batch(counts)
    scores = torch.randn(batch["positions"].shape)
    found = squared_error(OrderingOutput(scores=scores), batch)
    for row, n in enumerate(counts):
        expected = sum((scores[row, i].item() - batch["positions"][row, i].item()) ** 2 for i in range(n))
        assert math.isclose(found[row].item(), expected, rel_tol=1e-5)


@given(COUNTS, st.integers(0, 99))
def test_pairwise_logistic_is_the_mean_over_pairs(counts: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    batch = random_batch(counts)
    raw = torch.randn(len(counts), max(counts), max(counts))
    logits = raw - raw.transpose(1, 2)
    found = pairwise_logistic(OrderingOutput(pair_logits=logits), batch)
    for row, n in enumerate(counts):
        where = batch["positions"][row].tolist()
        pairs = [(i, j) for i in range(n) for j in range(n) if where[i] < where[j]]
        expected = sum(math.log1p(math.exp(-logits[row, i, j].item())) for i, j in pairs) / max(1, len(pairs))
        assert math.isclose(found[row].item(), expected, rel_tol=1e-4, abs_tol=1e-6)


def test_padding_changes_no_loss_and_gets_no_gradient() -> None:
    torch.manual_seed(0)
    batch, wide = random_batch([3, 5]), random_batch([3, 5], most=9)
    wide["positions"][:, :5] = batch["positions"]
    for loss, shape, name in ((squared_error, (2, 9), "scores"), (pairwise_logistic, (2, 9, 9), "pair_logits")):
        values = torch.randn(shape, requires_grad=True)
        narrow = values[:, :5] if name == "scores" else values[:, :5, :5]
        assert torch.allclose(
            loss(OrderingOutput(**{name: values}), wide), loss(OrderingOutput(**{name: narrow}), batch)
        )
        loss(OrderingOutput(**{name: values}), wide).sum().backward()
        assert values.grad is not None
        assert (values.grad[0, 3:] == 0).all() and (values.grad[1, 5:] == 0).all() and (values.grad[0, :3] != 0).any()


def test_heads() -> None:
    torch.manual_seed(0)
    states, mask = torch.randn(2, 4, 8), torch.ones(2, 4, dtype=torch.bool)
    scores = ScoreHead(8, 0.0)(states, mask).scores
    assert scores.shape == (2, 4)
    head = PairHead(8, 0.0)
    logits = head(states, mask).pair_logits
    assert logits.shape == (2, 4, 4) and torch.equal(logits, -logits.transpose(1, 2))
    # A pair's logit is a function of its two sentences alone.
    swapped = head(states[:, [1, 0, 2, 3]], mask).pair_logits
    assert torch.allclose(swapped[:, 0, 1], logits[:, 1, 0]) and torch.allclose(swapped[:, 0, 2], logits[:, 1, 2])


@given(COUNTS, st.integers(0, 99))
def test_next_slot_cross_entropy_is_the_mean_over_choices(counts: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    batch = random_batch(counts)
    raw = torch.randn(len(counts), max(counts), max(counts))
    rows = torch.arange(max(counts))
    left = batch["slot_mask"][:, None, :] & (batch["positions"][:, None, :] >= rows[None, :, None])
    output = OrderingOutput(next_slot_logits=raw.masked_fill(~left, -torch.inf))
    for row, n in enumerate(counts):
        order = batch["positions"][row, :n].argsort().tolist()
        expected = sum(
            math.log(sum(math.exp(raw[row, step, other].item()) for other in order[step:]))
            - raw[row, step, slot].item()
            for step, slot in enumerate(order)
        )
        assert math.isclose(-next_slot_log_likelihood(output, batch)[row].item(), expected, abs_tol=1e-4)
        mean = next_slot_cross_entropy(output, batch)[row].item()
        assert math.isclose(mean, expected / max(1, n - 1), abs_tol=1e-4)


def test_the_pointer_head_sees_only_what_was_chosen_before() -> None:
    torch.manual_seed(0)
    head = PointerHead(8, 0.0)
    states, mask = torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)
    one, two = torch.tensor([[2, 0, 1, 4, 3]]), torch.tensor([[2, 0, 1, 3, 4]])  # alike in the first three places
    first, second = (head(states, mask, positions).next_slot_logits for positions in (one, two))
    assert torch.equal(first[0, :4], second[0, :4]) and not torch.equal(first[0, 4], second[0, 4])
    # Row t leaves out the slots of the first t sentences.
    assert (first[0] == -torch.inf).tolist() == [[position < step for position in one[0]] for step in range(5)]
    assert head(states, mask).next_slot_logits is None


def test_padding_changes_no_choice_and_gets_no_gradient() -> None:
    torch.manual_seed(0)
    head = PointerHead(8, 0.0)
    batch, wide = random_batch([3, 5]), random_batch([3, 5], most=9)
    wide["positions"][:, :5] = batch["positions"]
    states = torch.randn(2, 9, 8, requires_grad=True)
    losses = [
        next_slot_cross_entropy(head(part, given["slot_mask"], given["positions"]), given)
        for part, given in ((states, wide), (states[:, :5], batch))
    ]
    assert torch.allclose(losses[0], losses[1], atol=1e-6)
    losses[0].sum().backward()
    assert states.grad is not None and torch.isfinite(states.grad).all()
    assert (states.grad[0, 3:] == 0).all() and (states.grad[1, 5:] == 0).all() and (states.grad[0, :3] != 0).any()
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in head.parameters())


def test_pooling_reads_the_marker_the_mean_or_both() -> None:
    slots = torch.tensor([[0, 0, 0, 1, 1, -1], [0, 1, 1, 1, 2, 2]])
    marker = pooling_weights(slots, 3, "marker")
    mean = pooling_weights(slots, 3, "mean")
    assert marker[0].tolist() == [[1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0] * 6]
    assert torch.allclose(mean[0, 0], torch.tensor([1 / 3, 1 / 3, 1 / 3, 0, 0, 0]))
    assert mean[1, 1].tolist() == [0, *[torch.tensor(1 / 3).item()] * 3, 0, 0] and (mean[0, 2] == 0).all()
    assert torch.equal(pooling_weights(slots, 3, "both"), marker + mean)
