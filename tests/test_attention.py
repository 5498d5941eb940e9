"""Attention in groups, how sentences are put into them, and dropout that costs little."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sentorder import SentenceOrderer
from sentorder.attention import NAME, Group, attend, group_by_length
from sentorder.dropout import Dropout, dropout_factors

LAYER = nn.Module()
LAYER.is_causal = False


def total_cost(lengths: list[int], groups: list[list[int]], cost: float) -> float:
    padded = sum(len(group) * max(lengths[index] for index in group) for group in groups)
    return padded - sum(lengths) + cost * len(groups)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=9), st.sampled_from([0.5, 4.0, 30.0]))
def test_groups_cost_the_least_that_is_possible(lengths: list[int], cost: float) -> None:
    groups = group_by_length(lengths, cost)
    order = [index for group in groups for index in group]
    assert sorted(order) == list(range(len(lengths)))
    ascending = [lengths[index] for index in order]
    assert ascending == sorted(lengths)
    # All ways to cut the ascending lengths into groups.
    n = len(lengths)
    best = min(
        total_cost(lengths, [order[a:b] for a, b in itertools.pairwise((0, *cuts, n))], cost)
        for count in range(n)
        for cuts in itertools.combinations(range(1, n), count)
    )
    assert math.isclose(total_cost(lengths, groups, cost), best)


def test_groups_of_nothing_and_of_one_length() -> None:
    assert group_by_length([], 4.0) == []
    assert group_by_length([7] * 5, 4.0) == [[0, 1, 2, 3, 4]]


def row(groups: list[Group], heads: int = 2, size: int = 4) -> list[torch.Tensor]:
    tokens = sum(group.sentences * group.width for group in groups)
    random = torch.Generator().manual_seed(0)
    return [torch.randn(1, heads, tokens, size, generator=random, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize("window", [None, 3])
def test_sentences_of_a_row_see_only_themselves(window: int | None) -> None:
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)[:, None, None]
    groups = [Group(3, 2, None), Group(2, 5, mask)]
    query, key, value = row(groups)
    found, _ = attend(LAYER, query, key, value, None, scaling=0.5, groups=groups, sliding_window=window)
    assert found.shape == (1, 16, 2, 4)
    for start, length in ((0, 2), (2, 2), (4, 2), (6, 5), (11, 3)):
        place = slice(start, start + length)
        q, k, v = (tensor[0, :, place] for tensor in (query, key, value))
        scores = 0.5 * q @ k.transpose(-1, -2)
        if window is not None:
            far = (torch.arange(length)[:, None] - torch.arange(length)).abs() >= window
            scores = scores.masked_fill(far, -math.inf)
        expected = (scores.softmax(-1) @ v).transpose(0, 1)
        torch.testing.assert_close(found[0, place], expected)


def test_attention_with_dropout_is_the_same_in_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]], dtype=torch.bool)[:, None, None]
    groups = [Group(2, 3, mask)]
    query, key, value = row(groups)
    without, _ = attend(LAYER, query, key, value, None, groups=groups)
    torch.manual_seed(0)
    draws = torch.stack([attend(LAYER, query, key, value, None, 0.3, groups=groups)[0] for _ in range(3000)])
    kept = [0, 1, 2, 3, 4]  # the last token is padding
    errors = (draws.mean(0) - without)[0, kept].abs() / (draws.std(0)[0, kept] / math.sqrt(len(draws)))
    assert float(errors.max()) < 4.5 and float(draws.std(0)[0, kept].min()) > 0.01
    # With nothing dropped it is the same to the digit, whether the mask says what counts or is added.
    monkeypatch.setattr("sentorder.attention.dropout_factors", lambda shape, p, dtype: torch.ones(*shape, dtype=dtype))
    torch.testing.assert_close(attend(LAYER, query, key, value, None, 0.3, groups=groups)[0], without)
    states = [tensor.view(1, 2, 6, 4) for tensor in (query, key, value)]
    added = torch.zeros(1, 1, 6, 6, dtype=torch.float64).masked_fill(torch.arange(6) > 3, -1e30)
    torch.testing.assert_close(attend(LAYER, *states, added, 0.3)[0], attend(LAYER, *states, added > -1, 0.0)[0])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.99])
def test_dropout_has_the_distribution_of_torch(p: float) -> None:
    torch.manual_seed(0)
    n = 400_001
    factors = dropout_factors((n,), p, torch.float64)
    dropped = round(p * 2**16) / 2**16
    assert factors.shape == (n,) and set(factors.unique().tolist()) == {0.0, 1 / (1 - dropped)}
    zeros = factors == 0
    error = math.sqrt(p * (1 - p) / n)
    assert abs(float(zeros.double().mean()) - p) < 5 * error
    # Neighbours know nothing of each other, nor do those that come from one number.
    for apart in (1, 2, 3, 4):
        both = float((zeros[apart:] & zeros[:-apart]).double().mean())
        assert abs(both - p * p) < 5 * math.sqrt(p * p * (1 - p * p) / n)


def test_dropout_at_its_ends() -> None:
    ones = torch.ones(3, 5)
    assert bool((Dropout(1.0)(ones) == 0).all())
    assert Dropout(0.0)(ones) is ones and Dropout(0.5).eval()(ones) is ones
    assert Dropout(0.5)(torch.ones(0, 3)).shape == (0, 3)
    assert Dropout(0.5)(ones.to(torch.bfloat16)).dtype == torch.bfloat16
    once = torch.ones(4, 4, requires_grad=True)
    dropped = Dropout(0.5)(once)
    dropped.sum().backward()
    assert torch.equal(once.grad, dropped.detach())


def test_a_model_has_it_everywhere_and_its_files_know_nothing_of_it(tiny_encoder: str, tmp_path) -> None:
    model = SentenceOrderer.from_encoder(tiny_encoder, dropout=0.1)
    kinds = {type(module) for module in model.modules() if isinstance(module, nn.Dropout)}
    assert kinds == {Dropout}
    assert model.backbone.encoder.config._attn_implementation == NAME
    model.save_pretrained(tmp_path / "model")
    assert NAME not in {line.strip('", ') for line in (tmp_path / "model/config.json").read_text().split(":")}
    assert f'"{NAME}"' not in (tmp_path / "model" / "config.json").read_text().replace('"model_type": "sentorder"', "")
