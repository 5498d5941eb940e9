import torch
from hypothesis import given
from hypothesis import strategies as st

from sentorder.likelihoods import (
    adjacency_log_probabilities,
    position_log_probabilities,
    sinkhorn_log_probabilities,
    slot_log_probabilities,
)

COUNTS = st.lists(st.integers(1, 7), min_size=1, max_size=4)


def logits_of(counts: list[int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    most = max(counts)
    mask = torch.tensor([[slot < n for slot in range(most)] for n in counts])
    return torch.randn(len(counts), most, most) * 3, mask


@given(COUNTS, st.integers(0, 99))
def test_what_sums_to_one(counts: list[int], seed: int) -> None:
    logits, mask = logits_of(counts, seed)
    positions = position_log_probabilities(logits, mask).exp()
    slots = slot_log_probabilities(logits, mask).exp()
    soft = sinkhorn_log_probabilities(logits / 3, mask, rounds=200).exp()  # certain ones take thousands of rounds
    for row, n in enumerate(counts):
        ones = torch.ones(n)
        assert torch.allclose(positions[row, :n, :n].sum(dim=1), ones, atol=1e-5)
        assert torch.allclose(slots[row, :n, :n].sum(dim=0), ones, atol=1e-5)
        assert torch.allclose(soft[row, :n, :n].sum(dim=1), ones, atol=1e-3)
        assert torch.allclose(soft[row, :n, :n].sum(dim=0), ones, atol=1e-3)
        # Positions that a document does not have get nothing.
        assert (
            (positions[row, :n, n:] == 0).all() and (slots[row, n:, :n] == 0).all() and (soft[row, :n, n:] == 0).all()
        )


@given(COUNTS, st.integers(0, 99))
def test_adjacency_is_the_mean_of_both_directions(counts: list[int], seed: int) -> None:
    logits, mask = logits_of(counts, seed)
    found = adjacency_log_probabilities(logits, mask)
    for row, n in enumerate(counts):
        for i in range(n):
            for j in range(n):
                if i == j:
                    assert found[row, i, j] < -1e30
                    continue
                after = torch.stack([logits[row, i, other] for other in range(n) if other != i]).logsumexp(0)
                before = torch.stack([logits[row, other, j] for other in range(n) if other != j]).logsumexp(0)
                expected = logits[row, i, j] - (after + before) / 2
                assert torch.isclose(found[row, i, j], expected, atol=1e-4)


def test_padding_gets_no_gradient_and_spoils_none() -> None:
    logits, mask = logits_of([1, 3, 6], 0)
    both = mask[:, :, None] & mask[:, None, :]
    functions = (
        position_log_probabilities,
        slot_log_probabilities,
        sinkhorn_log_probabilities,
        adjacency_log_probabilities,
    )
    for function in functions:
        leaf = logits.clone().requires_grad_()
        values = function(leaf, mask)
        values.masked_fill(~both | (values < -1e30), 0.0).sum().backward()
        assert leaf.grad is not None and torch.isfinite(leaf.grad).all() and (leaf.grad[~both] == 0).all()
