import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentorder.backbones import pooling_weights
from sentorder.contracts import AutoregressiveHead, Batch, OrderingOutput
from sentorder.heads import PairHead, PointerHead, PositionHead, RelationalPointerHead, ScoreHead
from sentorder.losses import (
    adjacency_cross_entropy,
    exclusive_cross_entropy,
    next_slot_cross_entropy,
    next_slot_log_likelihood,
    pairwise_logistic,
    position_cross_entropy,
    sinkhorn_cross_entropy,
    sum_of,
)
from sentorder.methods import METHODS, TRAINED
from sentorder.score_losses import (
    absolute_error,
    absolute_error_of_share,
    huber,
    huber_of_share,
    lambda_tau,
    listmle,
    listmle_both_ways,
    listmle_by_position,
    listnet,
    ranknet,
    squared_error,
    squared_error_of_share,
)

COUNTS = st.lists(st.integers(1, 6), min_size=1, max_size=4)


def random_batch(counts: list[int], most: int | None = None) -> Batch:
    most = most or max(counts)
    positions = torch.full((len(counts), most), -100)
    for row, n in enumerate(counts):
        positions[row, :n] = torch.randperm(n)
    return Batch(positions=positions, slot_mask=positions >= 0)


def softplus(value: float) -> float:
    return math.log1p(math.exp(-abs(value))) + max(value, 0.0)


def log_sum_exp(values: list[float]) -> float:
    return max(values) + math.log(sum(math.exp(value - max(values)) for value in values))


def by_sentence(error: Callable[[float, float], float], *, share: bool) -> Callable[[list[float], int], float]:
    """The sum of an error over the sentences, whose scores stand in gold order."""
    return lambda s, n: sum(error(s[p], p / max(n - 1, 1) if share else p) for p in range(n))


def huber_error(turn: float) -> Callable[[float, float], float]:
    return lambda s, t: 0.5 * (s - t) ** 2 if abs(s - t) <= turn else turn * (abs(s - t) - 0.5 * turn)


def naive_ranknet(s: list[float], n: int) -> float:
    pairs = list(itertools.combinations(range(n), 2))
    return sum(softplus(s[i] - s[j]) for i, j in pairs) / max(1, len(pairs))


def concordant(order: list[int]) -> int:
    return sum(i < j for i, j in itertools.combinations(order, 2))


def naive_lambda_tau(s: list[float], n: int) -> float:
    """Swaps each pair in the present order and counts again."""
    present = sorted(range(n), key=s.__getitem__)
    weights = {}
    for i, j in itertools.combinations(range(n), 2):
        swapped = [{i: j, j: i}.get(item, item) for item in present]
        weights[i, j] = abs(concordant(swapped) - concordant(present))
    mean = sum(weights.values()) / max(1, len(weights))
    return sum(weight / mean * softplus(s[i] - s[j]) for (i, j), weight in weights.items()) / max(1, len(weights))


def choice_losses(s: list[float]) -> list[float]:
    return [log_sum_exp([-value for value in s[t:]]) + s[t] for t in range(len(s))]


def naive_listmle_both_ways(s: list[float], n: int) -> float:
    backward = [-value for value in reversed(s)]
    return sum(choice_losses(s) + choice_losses(backward)) / (2 * max(1, n - 1))


def naive_listmle_by_position(s: list[float], n: int) -> float:
    weights = [2.0 ** (n - t) - 1 for t in range(1, n + 1)]
    return sum(w * loss for w, loss in zip(weights, choice_losses(s), strict=True)) / max(sum(weights), 1e-9)


def naive_listnet(s: list[float], n: int) -> float:
    target = [math.exp(-p) / sum(math.exp(-q) for q in range(n)) for p in range(n)]
    return sum(t * (log_sum_exp([-value for value in s]) + s[p]) for p, t in enumerate(target))


NAIVE = {
    squared_error: by_sentence(lambda s, t: (s - t) ** 2, share=False),
    squared_error_of_share: by_sentence(lambda s, t: (s - t) ** 2, share=True),
    absolute_error: by_sentence(lambda s, t: abs(s - t), share=False),
    absolute_error_of_share: by_sentence(lambda s, t: abs(s - t), share=True),
    huber: by_sentence(huber_error(1.0), share=False),
    huber_of_share: lambda s, n: by_sentence(huber_error(1 / max(n - 1, 1)), share=True)(s, n),
    ranknet: naive_ranknet,
    lambda_tau: naive_lambda_tau,
    listnet: naive_listnet,
    listmle: lambda s, n: sum(choice_losses(s)) / max(1, n - 1),
    listmle_both_ways: naive_listmle_both_ways,
    listmle_by_position: naive_listmle_by_position,
}
"""Each loss of scores, worked out for one document whose scores stand in gold order."""


@pytest.mark.parametrize("loss", NAIVE, ids=lambda loss: loss.__name__)
@settings(max_examples=40)
@given(counts=COUNTS, seed=st.integers(0, 99))
def test_losses_of_scores_are_what_they_say(loss: Callable[..., torch.Tensor], counts: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    batch = random_batch(counts)
    scores = torch.randn(batch["positions"].shape) * 2
    found = loss(OrderingOutput(scores=scores), batch)
    for row, n in enumerate(counts):
        in_gold_order = [scores[row, slot].item() for slot in batch["positions"][row, :n].argsort()]
        assert math.isclose(found[row].item(), NAIVE[loss](in_gold_order, n), rel_tol=1e-4, abs_tol=1e-5)


@given(COUNTS, st.integers(0, 99))
def test_losses_of_positions_and_neighbours_are_what_they_say(counts: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    batch = random_batch(counts)
    logits = torch.randn(len(counts), max(counts), max(counts)) * 2
    output = OrderingOutput(position_logits=logits, adjacency_logits=logits)
    rows, columns, neighbours = (
        loss(output, batch) for loss in (position_cross_entropy, exclusive_cross_entropy, adjacency_cross_entropy)
    )
    for row, n in enumerate(counts):
        where = batch["positions"][row, :n].tolist()
        part = logits[row, :n, :n].tolist()
        of_slots = sum(log_sum_exp(part[i]) - part[i][where[i]] for i in range(n)) / n
        of_positions = sum(log_sum_exp([part[k][where[i]] for k in range(n)]) - part[i][where[i]] for i in range(n)) / n
        assert math.isclose(rows[row].item(), of_slots, rel_tol=1e-4, abs_tol=1e-5)
        assert math.isclose(columns[row].item(), of_slots + of_positions, rel_tol=1e-4, abs_tol=1e-5)
        order = sorted(range(n), key=where.__getitem__)
        expected = 0.0
        for i, j in itertools.pairwise(order):
            after = log_sum_exp([part[i][k] for k in range(n) if k != i])
            before = log_sum_exp([part[k][j] for k in range(n) if k != j])
            expected += (after + before) / 2 - part[i][j]
        assert math.isclose(neighbours[row].item(), expected / max(1, n - 1), rel_tol=1e-4, abs_tol=1e-5)


def test_sinkhorn_costs_nothing_for_a_certain_permutation_and_log_n_for_none() -> None:
    batch = random_batch([5])
    certain = torch.nn.functional.one_hot(batch["positions"], 5) * 30.0
    assert sinkhorn_cross_entropy(OrderingOutput(position_logits=certain), batch).item() < 1e-4
    even = sinkhorn_cross_entropy(OrderingOutput(position_logits=torch.zeros(1, 5, 5)), batch)
    assert math.isclose(even.item(), math.log(5), rel_tol=1e-5)
    # What speaks for a sentence or a position as a whole is scaled away: only the permutation counts.
    tilted = certain + torch.randn(1, 5, 1) + torch.randn(1, 1, 5)
    assert sinkhorn_cross_entropy(OrderingOutput(position_logits=tilted), batch).item() < 1e-4


def test_a_sum_of_losses() -> None:
    batch = random_batch([3, 1])
    output = OrderingOutput(scores=torch.randn(2, 3))
    both = sum_of(squared_error, ranknet)(output, batch)
    assert torch.equal(both, squared_error(output, batch) + ranknet(output, batch))


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


LOSSES: dict[Callable[..., torch.Tensor], tuple[str, tuple[int, ...]]] = {
    **dict.fromkeys(NAIVE, ("scores", (2, 9))),
    pairwise_logistic: ("pair_logits", (2, 9, 9)),
    adjacency_cross_entropy: ("adjacency_logits", (2, 9, 9)),
    position_cross_entropy: ("position_logits", (2, 9, 9)),
    exclusive_cross_entropy: ("position_logits", (2, 9, 9)),
    sinkhorn_cross_entropy: ("position_logits", (2, 9, 9)),
}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_padding_changes_no_loss_and_gets_no_gradient(loss: Callable[..., torch.Tensor]) -> None:
    torch.manual_seed(0)
    name, shape = LOSSES[loss]
    batch, wide = random_batch([3, 5]), random_batch([3, 5], most=9)
    wide["positions"][:, :5] = batch["positions"]
    values = torch.randn(shape, requires_grad=True)
    narrow = values[:, :5] if name == "scores" else values[:, :5, :5]
    assert torch.allclose(
        loss(OrderingOutput(**{name: values}), wide), loss(OrderingOutput(**{name: narrow}), batch), atol=1e-6
    )
    loss(OrderingOutput(**{name: values}), wide).sum().backward()
    assert values.grad is not None and torch.isfinite(values.grad).all()
    assert (values.grad[0, 3:] == 0).all() and (values.grad[1, 5:] == 0).all() and (values.grad[0, :3] != 0).any()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_a_hundred_sentences_and_a_single_one(loss: Callable[..., torch.Tensor]) -> None:
    torch.manual_seed(0)
    name, shape = LOSSES[loss]
    batch = random_batch([100, 1])
    values = (torch.randn([2, *[100] * (len(shape) - 1)]) * 10).requires_grad_()
    found = loss(OrderingOutput(**{name: values}), batch)
    found.sum().backward()
    assert torch.isfinite(found).all() and found[0] > 0
    assert values.grad is not None and torch.isfinite(values.grad).all()
    if "error" not in loss.__name__ and "huber" not in loss.__name__:
        assert abs(found[1].item()) < 1e-6  # nothing to order


@pytest.mark.parametrize("name", TRAINED)
def test_every_method_can_learn_an_order_by_heart(name: str) -> None:
    """Head, loss and decoder of each row fit together: a few hundred steps, and each document comes out right."""
    torch.manual_seed(1)
    method, batch = METHODS[name], random_batch([2, 4, 6, 1])
    head = method.head(16, 0.0)
    states, mask = torch.randn(4, 6, 16) * batch["slot_mask"][:, :, None], batch["slot_mask"]
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(300):
        loss = method.training_loss(head(states, mask, batch["positions"]), batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.eval()
    with torch.no_grad():
        output = head(states, mask)
    steps = {"head": head} if isinstance(head, AutoregressiveHead) else {}
    found = method.decoder(output, mask, **steps)  # type: ignore[arg-type]
    orders = [best.order for (best,) in found]
    assert orders == [row[:n].argsort().tolist() for row, n in zip(batch["positions"], [2, 4, 6, 1], strict=True)]


def test_heads() -> None:
    torch.manual_seed(0)
    states, mask = torch.randn(2, 4, 8), torch.ones(2, 4, dtype=torch.bool)
    scores = ScoreHead(8, 0.0)(states, mask).scores
    assert scores.shape == (2, 4)
    head = PairHead(8, 0.0)
    logits = head(states, mask).pair_logits
    assert logits.shape == (2, 4, 4) and torch.equal(logits, -logits.transpose(1, 2))
    assert head(states, mask).adjacency_logits is None
    assert PairHead(8, 0.0, adjacency=True)(states, mask).adjacency_logits.shape == (2, 4, 4)
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


def test_positions_are_asked_for_by_where_they_lie() -> None:
    """The first, the middle and the last sentence of three are asked for in the same way as of five, but for 1/n."""
    torch.manual_seed(0)
    head = PositionHead(8, 0.0)
    first = head.query[0]
    assert isinstance(first, torch.nn.Linear)
    first.weight.data[:, -1] = 0.0  # what is given for 1/n
    states = torch.randn(1, 1, 8)
    short = head(states.expand(1, 3, 8), torch.ones(1, 3, dtype=torch.bool)).position_logits
    long = head(states.expand(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).position_logits
    assert torch.allclose(short[0, 0], long[0, 0, [0, 2, 4]], atol=1e-5)
    many = head(states.expand(1, 150, 8), torch.ones(1, 150, dtype=torch.bool)).position_logits
    assert torch.isfinite(many).all() and many[0, 0].unique().numel() == 150


@pytest.mark.parametrize("kind", [PointerHead, RelationalPointerHead])
def test_the_pointer_head_sees_only_what_was_chosen_before(kind: type[PointerHead]) -> None:
    torch.manual_seed(0)
    head = kind(8, 0.0)
    states, mask = torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)
    one, two = torch.tensor([[2, 0, 1, 4, 3]]), torch.tensor([[2, 0, 1, 3, 4]])  # alike in the first three places
    first, second = (head(states, mask, positions).next_slot_logits for positions in (one, two))
    assert torch.equal(first[0, :4], second[0, :4]) and not torch.equal(first[0, 4], second[0, 4])
    # Row t leaves out the slots of the first t sentences.
    assert (first[0] == -torch.inf).tolist() == [[position < step for position in one[0]] for step in range(5)]
    assert head(states, mask).next_slot_logits is None


@pytest.mark.parametrize("kind", [PointerHead, RelationalPointerHead])
def test_padding_changes_no_choice_and_gets_no_gradient(kind: type[PointerHead]) -> None:
    torch.manual_seed(0)
    head = kind(8, 0.0)
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


@pytest.mark.parametrize("method", ["pairwise-neighbours", "pointer", "joint"])
def test_tables_computed_in_parts_are_the_same(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs and gradients, and without the memory of the whole: no tensor of that size is made."""
    torch.manual_seed(0)
    head = METHODS[method].head(8, 0.0)
    states = torch.randn(2, 9, 8, requires_grad=True)
    mask = torch.arange(9) < torch.tensor([[9], [6]])
    positions = torch.stack([torch.randperm(9), torch.cat([torch.randperm(6), torch.full((3,), -100)])])
    found = []
    for most in (2**25, 2 * 2 * 9 * 8):
        monkeypatch.setattr("sentorder.heads.MOST_FEATURES", most)
        output = head(states, mask, positions)
        tables = [output[name] for name in ("pair_logits", "adjacency_logits", "next_slot_logits") if name in output]
        head.zero_grad()
        total = sum(table.masked_fill(table.isinf(), 0.0).square().sum() for table in tables)
        (gradient,) = torch.autograd.grad(total, states)
        with torch.no_grad():
            quiet = head(states, mask, positions)
        found.append([*tables, gradient, *(quiet[name] for name in output if name != "slot_states")])
    assert len(found[0]) == len(found[1]) > 2
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-5)
